"""Step 4: few-shot tasks, sorted into class folders: the user's own pictures, and two shifts of style.

TASKS/<name>/train/<class>/<hexcode>.png    emoji the model knows in other styles, in Twemoji's
TASKS/<name>/test/...                       emoji it has never seen, in Twemoji's
TASKS/<name>/test_line_art/, test_high_contrast/   the same emoji in two more styles it has never seen

A design lies in train or in test, never in both, and gives one picture. Nothing is drawn at random.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from .download import attribution
from .emoji import Emoji, category_words, plain_forms
from .render import on_white, read_pictures
from .split import held_out_designs
from .styles import PACKAGE_OF, SHIFTED_STYLES, SPLITS, TASK_STYLE

SHOTS = 16
TRAIN_PER_CLASS = 20  # the shots, and some to validate on
# Mean absolute difference of two pictures, as a fraction of black against white.
NEAR_IDENTICAL = 0.05
# Clock faces and yellow faces differ by so few pixels that shots and test pictures would be the same;
# high contrast has no country flags; a keycap is a digit in one frame.
LEFT_OUT = {"time", "country-flag", "subdivision-flag", "keycap", "family"}
TABLE_FILE, ATTRIBUTION_FILE = "tasks.json", "ATTRIBUTION.md"


class TaskError(Exception):
    """A task cannot be made from the pictures there are."""


@dataclass(frozen=True)
class Task:
    """What makes a task: its classes, and who belongs to each; the least and most pictures are a class's."""

    name: str
    about: str
    classes: tuple[str, ...]  # in words; empty: every subgroup with enough pictures
    class_of: Callable[[Emoji], list[str]]
    least_known: int
    least_held_out: int
    most_tested: int


def _subgroup(emoji: Emoji) -> list[str]:
    return [emoji.subgroup.replace("-", " ")]


def words_of(emoji: Emoji) -> list[str]:
    """All words that may name its class."""
    return [*emoji.keywords, *emoji.label.split(), *category_words(emoji)]


# Searched for so that as many words as can be have enough emoji of which no other of them is said.
_WORDS = (
    "accessibility affection air alphabet arrow astrology ball bank beach beverage bird book box breakfast "
    "building business car cat circle cloud cold dessert email event fantasy farm finger fruit game hair hat "
    "head hot household insect joy kanji light marine media music photo planet religion sad shape shopping "
    "sick spring square stationery surprise technology vegetable water"
)

TASKS = (
    Task(
        "subgroups",
        "Unicode's large subgroups, their awkward names as they are",
        (
            "alphanum",
            "animal mammal",
            "clothing",
            "food prepared",
            "geometric",
            "person role",
            "place building",
            "sky weather",
            "sport",
            "transport ground",
        ),
        _subgroup,
        least_known=16,
        least_held_out=11,
        most_tested=20,
    ),
    Task(
        "nouns",
        "plain words, that keywords define",
        (
            "animal",
            "arrow",
            "building",
            "clothing",
            "face",
            "food",
            "heart",
            "sport",
            "tool",
            "vehicle",
            "weather",
        ),
        words_of,
        least_known=12,
        least_held_out=12,
        most_tested=20,
    ),
    Task(
        "subgroups_medium",
        "Unicode's subgroups with at least 7 pictures to test on",
        (),
        _subgroup,
        least_known=10,
        least_held_out=7,
        most_tested=20,
    ),
    Task(
        "subgroups_all",
        "Unicode's subgroups with at least 4 pictures to test on",
        (),
        _subgroup,
        least_known=6,
        least_held_out=4,
        most_tested=20,
    ),
    Task(
        "words",
        "many plain words, that keywords define",
        tuple(_WORDS.split()),
        words_of,
        least_known=4,
        least_held_out=3,
        most_tested=20,
    ),
)


def folder_of(name: str) -> str:
    """Example: "sky weather" -> "sky_weather"."""
    return name.replace(" ", "_")


def write_tasks(work: Path, emoji: list[Emoji], folder: Path) -> None:
    """All of TASKS, and a table of their sizes in folder/tasks.json."""
    pictures, table = read_pictures(work / "pictures")
    row = {(hexcode, style): i for i, (hexcode, style) in enumerate(table)}
    held = held_out_designs(emoji)
    usable = [e for e in plain_forms(emoji) if e.subgroup not in LEFT_OUT]
    usable = [e for e in usable if all((e.hexcode, style) in row for style in SPLITS.values())]

    def in_style(style: str) -> Callable[[Emoji], np.ndarray]:
        return lambda emoji: pictures[row[emoji.hexcode, style]]

    sizes = {}
    for task in TASKS:
        train, test = choose(task, usable, held, in_style(TASK_STYLE))
        for split, style in SPLITS.items():
            write_classes(folder / task.name / split, test, in_style(style))
        write_classes(folder / task.name / "train", train, in_style(TASK_STYLE))
        write_attribution(folder / task.name, shifted=True)
        sizes[task.name] = {
            "about": task.about,
            "classes": {k: [len(train[k]), len(test[k])] for k in test},
        }
        print(f"{task.name}: {len(test)} classes, {sum(map(len, test.values()))} test pictures", flush=True)
    (folder / TABLE_FILE).write_text(json.dumps(sizes, indent=1), encoding="utf-8")


def choose(
    task: Task, usable: list[Emoji], held: set[str], picture: Callable[[Emoji], np.ndarray]
) -> tuple[dict[str, list[Emoji]], dict[str, list[Emoji]]]:
    """Train and test emoji of every class. Raises TaskError when a class that was asked for is too small."""
    known: dict[str, list[Emoji]] = {}
    unseen: dict[str, list[Emoji]] = {}
    for each in sorted(usable, key=lambda e: sha256(e.design.encode()).hexdigest()):
        names = set(task.class_of(each))
        if task.classes:
            names &= set(task.classes)
        if len(names) == 1:  # what belongs to two classes belongs to none
            (unseen if each.design in held else known).setdefault(names.pop(), []).append(each)
    train, test = {}, {}
    for name in sorted(known.keys() & unseen.keys()):
        tested = unseen[name][: task.most_tested]
        pixels = np.stack([_pixels(picture(e)) for e in tested])
        distinct = [
            e
            for e in known[name]
            if np.abs(pixels - _pixels(picture(e))).mean(axis=(1, 2, 3)).min() >= NEAR_IDENTICAL
        ]
        if len(distinct) >= task.least_known and len(tested) >= task.least_held_out:
            train[name], test[name] = distinct[:TRAIN_PER_CLASS], tested
    if missing := set(task.classes) - test.keys():
        counts = {name: (len(known.get(name, ())), len(unseen.get(name, ()))) for name in sorted(missing)}
        raise TaskError(
            f"Too few pictures for classes of the task {task.name} (known, held out): {counts}. It takes "
            f"{task.least_known} known, none like a test picture, and {task.least_held_out} held out. "
            f"Take the class out of TASKS in tasks.py, or lower the task's numbers"
        )
    return train, test


def _pixels(picture: np.ndarray) -> np.ndarray:
    return np.asarray(on_white(picture), np.float32) / 255


def write_classes(
    folder: Path, classes: dict[str, list[Emoji]], picture: Callable[[Emoji], np.ndarray]
) -> None:
    for name, emoji in classes.items():
        target = folder / folder_of(name)
        target.mkdir(parents=True, exist_ok=True)
        for each in emoji:
            on_white(picture(each)).save(target / f"{each.hexcode}.png", optimize=True)


def write_attribution(folder: Path, *, shifted: bool) -> None:
    """Whose pictures lie in a task's folder; `shifted`: those of the two shifts do too."""
    changes = (
        "each picture was scaled to 64 x 64 pixels where it was larger or a drawing, composited on a white "
        "background and written anew as an RGB PNG; a selection was made, and sorted into folders"
    )
    parts = [f"In train/ and test/:\n\n{attribution((PACKAGE_OF[TASK_STYLE],), changes)}"]
    if shifted:
        packages = tuple(PACKAGE_OF[style] for style in SHIFTED_STYLES)
        parts.append(
            f"In test_line_art/ and test_high_contrast/, where present:\n\n{attribution(packages, changes)}"
        )
    (folder / ATTRIBUTION_FILE).write_text(
        "# Whose pictures these are\n\n" + "\n".join(parts) + "\n"
        "The class folders are named by words of Unicode's emoji list (https://unicode.org/emoji/charts/, "
        "Unicode License v3) and of emojibase-data and emojilib (MIT); a file's name is its emoji's "
        "hexcode.\n\nMade by export/demo_model/tasks.py.\n",
        encoding="utf-8",
    )
