"""The two models of the development set: other networks, seeds and held-out emoji than the demo's."""

from __future__ import annotations

from demo_model.emoji import Emoji
from demo_model.kind import DEMO, VOCABULARY, Kind
from demo_model.split import held_out_designs
from demo_model.styles import PACKAGE_OF

SALT = "development"
# Emoji styles of the development tasks; no picture in them is trained on. The demo's tasks are in Twemoji's.
TASK_STYLES = {"groups": "noto", "families": "noto", "themes": "fluent_flat"}
SHIFTED_STYLES = ("line_art", "high_contrast")
TRAINING_STYLES = tuple(s for s in PACKAGE_OF if s not in {*TASK_STYLES.values(), *SHIFTED_STYLES})


def among(emoji: list[Emoji]) -> list[Emoji]:
    """The emoji that development tasks may show: those that the demo's tasks do not test on."""
    tested = DEMO.held_out(emoji)
    return [each for each in emoji if each.design not in tested]


def held_out(emoji: list[Emoji]) -> set[str]:
    """The designs that development tasks test on."""
    return held_out_designs(among(emoji), SALT)


RESNET = Kind(
    name="develop-resnet",
    config={
        "embed_dim": 96,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 20, "head_width": 32},
        "text_cfg": VOCABULARY | {"width": 192, "heads": 3, "layers": 4},
    },
    held_out=held_out,
    training_styles=TRAINING_STYLES,
    watched_style=TASK_STYLES["groups"],
)
TRANSFORMER = Kind(
    name="develop-transformer",
    config={
        "embed_dim": 160,
        "vision_cfg": {"image_size": 64, "patch_size": 16, "width": 160, "layers": 3, "head_width": 32},
        "text_cfg": VOCABULARY | {"width": 256, "heads": 8, "layers": 3},
    },
    held_out=held_out,
    training_styles=TRAINING_STYLES,
    watched_style=TASK_STYLES["groups"],
)
SEEDS = {RESNET.name: 101, TRANSFORMER.name: 202}
KINDS = (RESNET, TRANSFORMER)
