"""The six development tasks: three of emoji in styles of their own, three of icons.

TASKS/<name>/train/<class>/*.png, TASKS/<name>/test/..., and for emoji test_line_art/ and test_high_contrast/
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from demo_model.download import Package, install
from demo_model.emoji import Emoji, plain_forms
from demo_model.render import draw, on_white, read_pictures
from demo_model.tasks import LEFT_OUT, TRAIN_PER_CLASS, Task, choose, folder_of, words_of, write_classes

from . import names
from .kinds import SHIFTED_STYLES, TASK_STYLES, among, held_out

CC_BY = "CC-BY-4.0"
MOST_TESTED = 20
LEAST_PICTURES = 12  # of a class of icons
COPIES = ("-outline", "-24px", "-flat", "-duo")  # endings of a second drawing of the same thing


@dataclass(frozen=True)
class Icons:
    """A task of icons: a package, and its categories in words of ours."""

    name: str
    package: Package
    classes: Mapping[str, str]


ICONS = (
    Icons("icon_park", Package("@iconify-json/icon-park", "1.2.4", "Apache-2.0"), names.ICON_PARK),
    Icons("ultimate", Package("@iconify-json/streamline-ultimate-color", "1.2.2", CC_BY), names.ULTIMATE),
    Icons("health", Package("@iconify-json/healthicons", "1.2.13", "MIT"), names.HEALTH),
)


GROUPS_OF = {
    "smileys-emotion": "smiley emotion",
    "people-body": "person body",
    "animals-nature": "animal nature",
    "food-drink": "food drink",
    "travel-places": "travel place",
    "activities": "activity",
    "objects": "object",
    "symbols": "symbol",
}


def _family(emoji: Emoji) -> list[str]:
    return [
        family
        for family, subgroups in names.FAMILIES.items()
        if emoji.subgroup in subgroups
        or any(each.endswith("-") and emoji.subgroup.startswith(each) for each in subgroups)
    ]


EMOJI = (
    Task("groups", "Unicode's groups", names.GROUPS, lambda e: [GROUPS_OF.get(e.group, "")], 16, 12, 20),
    Task("families", "several subgroups together", tuple(names.FAMILIES), _family, 4, 3, 20),
    Task("themes", "words of a mood, a time or a place", names.THEMES, words_of, 3, 2, 20),
)


def write_tasks(work: Path, emoji: list[Emoji], folder: Path) -> None:
    """All tasks, and a table of their sizes in folder/tasks.json."""
    sizes = {}
    for task in EMOJI:
        sizes[task.name] = _write_emoji(work, emoji, task, folder / task.name)
    modules = install(work / "icons", [icons.package for icons in ICONS])
    for icons in ICONS:
        sizes[icons.name] = _write_icons(modules / icons.package.name, icons, folder / icons.name)
    for name, classes in sizes.items():
        print(
            f"{name}: {len(classes)} classes, {sum(n for _, n in classes.values())} test pictures", flush=True
        )
    (folder / "tasks.json").write_text(json.dumps(sizes, indent=1), encoding="utf-8")


def _write_emoji(work: Path, emoji: list[Emoji], task: Task, folder: Path) -> dict[str, tuple[int, int]]:
    pictures, table = read_pictures(work / "pictures")
    row = {(hexcode, style): i for i, (hexcode, style) in enumerate(table)}
    style = TASK_STYLES[task.name]
    splits = {"test": style} | {f"test_{shifted}": shifted for shifted in SHIFTED_STYLES}
    usable = [e for e in plain_forms(among(emoji)) if e.subgroup not in LEFT_OUT]
    usable = [e for e in usable if all((e.hexcode, each) in row for each in splits.values())]

    def in_style(style: str) -> Callable[[Emoji], np.ndarray]:
        return lambda emoji: pictures[row[emoji.hexcode, style]]

    train, test = choose(task, usable, held_out(emoji), in_style(style))
    write_classes(folder / "train", train, in_style(style))
    for split, shown in splits.items():
        write_classes(folder / split, test, in_style(shown))
    return {k: (len(train[k]), len(test[k])) for k in test}


def _write_icons(package: Path, icons: Icons, folder: Path) -> dict[str, tuple[int, int]]:
    """Half of a class's icons are to train on, and half to test on; 20 at most of each."""
    drawings = json.loads((package / "icons.json").read_text(encoding="utf-8"))
    categories = json.loads((package / "metadata.json").read_text(encoding="utf-8"))["categories"]
    sizes = {}
    for category, words in icons.classes.items():
        found = [name for name in categories[category] if not name.endswith(COPIES)]
        found.sort(key=lambda name: sha256(name.encode()).hexdigest())
        shown = [(name, picture) for name in found if (picture := draw(drawings, name)) is not None]
        if len(shown) < LEAST_PICTURES:
            raise SystemExit(f"{package.name} has {len(shown)} pictures of {category}, not {LEAST_PICTURES}")
        n_train = min(TRAIN_PER_CLASS, len(shown) // 2)
        parts = {"train": shown[:n_train], "test": shown[n_train:][:MOST_TESTED]}
        for split, pictures in parts.items():
            target = folder / split / folder_of(words)
            target.mkdir(parents=True, exist_ok=True)
            for name, picture in pictures:
                on_white(picture).save(target / f"{name}.png", optimize=True)
        sizes[words] = (len(parts["train"]), len(parts["test"]))
    return sizes
