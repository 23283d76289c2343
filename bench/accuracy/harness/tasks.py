"""Few-shot tasks: class names, and which pictures to tune on and to test on.

demo_tasks    the demo model's own, one folder a split and one a class in it
digits_task   scikit-learn's digits, written out as pictures: a task from another world
(textile.py downloads another one; coop_layout.py reads the paper's data sets)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sharpzo_edge.pictures.folder import read_folder

Files = tuple[tuple[Path, ...], ...]  # of each class

DEMO_TASKS = ("subgroups", "nouns", "subgroups_medium", "subgroups_all", "words")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DIGITS_TRAINING = 100  # pictures of each digit that shots are drawn from
DIGITS_SCALE = 8  # a picture of 8 x 8 becomes one of 64 x 64


@dataclass(frozen=True)
class Split:
    """Pictures to test on. among: the numbers of the classes that the answer is one of; None: all."""

    files: Files
    among: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Task:
    """train: what shots are drawn from; val: what validation pictures are, None: train beyond the shots;
    splits: "test", and every shifted style by name; template: the prompt that its authors spell out for
    every class, {} for the name; "": the bundle's initial words.
    """

    name: str
    class_names: tuple[str, ...]
    train: Files
    splits: Mapping[str, Split]
    val: Files | None = None
    template: str = ""


def demo_tasks(root: Path) -> list[Task]:
    """Those of DEMO_TASKS that are in `root`, as `make demo-tasks` leaves them."""
    return [folder_task(name, root / name) for name in DEMO_TASKS if (root / name).is_dir()]


def folder_task(name: str, root: Path) -> Task:
    """root/train, root/test and root/test_STYLE, with the same class folders in each."""
    train = read_folder(root / "train")
    splits = {}
    for folder in sorted(root.glob("test*")):
        found = read_folder(folder)
        if found.folders != train.folders:
            raise SystemExit(f"{folder} has other classes than {root / 'train'}. Render the tasks again")
        splits[folder.name.removeprefix("test_")] = Split(tuple(map(tuple, found.files)))
    return Task(name, train.names, tuple(map(tuple, train.files)), splits)


def digits_task(root: Path) -> Task:
    """The digits in `root`, written there first when they are not there yet: that takes scikit-learn.

    The first hundred of each digit are to train on, all others (about 80) to test on.
    """
    if not (root / "test").is_dir():
        from sklearn.datasets import load_digits

        found = load_digits()
        write_digits(root, found.images, found.target)
    return folder_task("digits", root)


def write_digits(root: Path, images: NDArray[np.float64], labels: Sequence[int]) -> None:
    """images (N, 8, 8) of 0 to 16, white on black, in the order of the data set. test/ comes last."""
    seen = dict.fromkeys(range(10), 0)
    waiting = []
    for image, label in zip(images, map(int, labels), strict=True):
        is_train = seen[label] < DIGITS_TRAINING
        seen[label] += 1
        pixels = np.kron(image * (255 / 16), np.ones((DIGITS_SCALE, DIGITS_SCALE))).round().astype(np.uint8)
        place = Path(f"digit_{DIGITS[label]}") / f"{seen[label]:03}.png"
        if is_train:
            _save(root / "train" / place, pixels)
        else:
            waiting.append((root / "test.part" / place, pixels))
    for path, pixels in waiting:
        _save(path, pixels)
    (root / "test.part").rename(root / "test")


def _save(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def fewest_classes(tasks: Sequence[Task], n: int) -> list[str]:
    """The names of the n tasks with fewest classes; among equals the first ones."""
    return [task.name for task in sorted(tasks, key=lambda task: len(task.class_names))[:n]]
