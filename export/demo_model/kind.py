"""What differs between models that this recipe makes: the networks, the styles, and what is held out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .emoji import Emoji
from .split import held_out_designs
from .styles import TASK_STYLE, TRAINING_STYLES

VOCABULARY = {"context_length": 77, "vocab_size": 49408}


@dataclass(frozen=True)
class Kind:
    """One kind of model.

    name:    in the bundle's manifest
    config:  open_clip's model configuration
    held_out: all emoji -> the designs that no training picture shows
    training_styles: whose pictures are trained on
    watched_style:   whose pictures show how the training goes
    """

    name: str
    config: dict[str, Any]
    held_out: Callable[[list[Emoji]], set[str]]
    training_styles: tuple[str, ...]
    watched_style: str


DEMO = Kind(
    name="demo",
    config={
        "embed_dim": 128,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 2, 1], "width": 16},
        "text_cfg": VOCABULARY | {"width": 256, "heads": 4, "layers": 3},
    },
    held_out=held_out_designs,
    training_styles=TRAINING_STYLES,
    watched_style=TASK_STYLE,
)
