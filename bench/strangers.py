"""What the head of a task calls none of its classes: known pictures, and pictures of other tasks.

    PYTHONPATH=bench python bench/strangers.py --tasks DIR --work DIR

--tasks: what `make demo-tasks` rendered;  --work: keeps image features, and the digits as pictures
Writes bench/results/strangers.json, which docs/accuracy.md has a table of.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from accuracy.harness.features import MOST_SHOTS, encoded, pool
from accuracy.harness.tasks import Task, demo_tasks, digits_task
from accuracy.report.strangers import RESULTS
from develop.data import words_features
from shared.machine import describe_machine
from shared.pages import keep_results
from sharpzo_edge.clip.bundle import Bundle
from sharpzo_edge.demo import BUNDLE
from sharpzo_edge.requests import NONE_SHARE
from sharpzo_edge.tuning.answers import HEAD, compare
from sharpzo_edge.tuning.known import are_none
from sharpzo_edge.types import Floats, joined

TASKS = ("subgroups", "nouns", "words", "digits")
SEEDS = (0, 1, 2)
NO_STRANGERS = {("subgroups", "digits"), ("digits", "subgroups")}  # digits are of the class alphanum


def pictures_of(task: Task) -> list[set[str]]:
    """The names of each class's files: an emoji has the same one in every task."""
    tested = task.splits["test"].files
    return [{path.name for path in (*train, *test)} for train, test in zip(task.train, tested, strict=True)]


def strangers(task: Task, other: Task, bundle: Bundle, cache: Path) -> Floats:
    """Features of the other task's test pictures, without classes that share a picture with this one's."""
    mine = set().union(*pictures_of(task))
    are_other = np.array([not mine & theirs for theirs in pictures_of(other)])
    found = encoded(bundle, other.splits["test"].files, cache)
    return np.asarray(found.features[:][are_other[found.labels]])


def run(bundle: Bundle, task: Task, others: list[Task], seed: int, cache: Path) -> dict[str, Any]:
    """All shares of one draw."""
    shots, validation = pool(bundle, task, seed, cache).draw(MOST_SHOTS)
    words, scale = words_features(bundle, task.class_names), bundle.manifest.logit_scale
    found = compare("auto", joined(shots, validation), len(shots), words, None, scale)
    assert found.use == HEAD and found.head and found.threshold is not None and found.caught
    head, threshold, test = (
        found.head.head,
        found.threshold,
        encoded(bundle, task.splits["test"].files, cache),
    )
    logits = head.logits(test.features[:], words, scale)
    right, none = logits.argmax(axis=1) == test.labels, are_none(logits, threshold)
    by_task = {}
    for other in others:
        features = strangers(task, other, bundle, cache)
        if len(features):
            caught = float(are_none(head.logits(features, words, scale), threshold).mean())
            by_task[other.name] = {"pictures": len(features), "caught": caught}
    return {
        "seed": seed,
        "accuracy": float(right.mean()),
        "kept": float((right & ~none).mean()),
        "called_none": float(none.mean()),
        "told": found.caught.share,
        "strangers": by_task,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tasks", type=Path, required=True, metavar="DIR")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR")
    given = parser.parse_args()
    bundle, cache = Bundle.open(BUNDLE), given.work / "features"
    found = [*demo_tasks(given.tasks), digits_task(given.work / "digits")]
    tasks = [task for name in TASKS for task in found if task.name == name]
    results: dict[str, Any] = {"machine": describe_machine(), "share": NONE_SHARE, "tasks": {}}
    for task in tasks:
        others = [o for o in tasks if o is not task and (task.name, o.name) not in NO_STRANGERS]
        results["tasks"][task.name] = [run(bundle, task, others, seed, cache) for seed in SEEDS]
        print(task.name, flush=True)
    keep_results(results, RESULTS)


if __name__ == "__main__":
    main()
