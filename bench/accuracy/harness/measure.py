"""From a method's moments to a run's figures: what each moment is worth, and which of them counts.

The headline is the moment of the lowest validation loss, a mean over pictures; among equals the better
validation accuracy, then the earlier one. (The product also gives every class the same say.) Without
validation pictures it is the last one. No test set has a say.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sharpzo_edge.types import LabelledFeatures

from ..methods.method import Method, Moment, Problem, loss_of

TEST = "test"
BUDGETS = (2_000, 8_000)  # queries that headlines are also taken at
CURVE_POINTS = 200
BY = ("test_accuracy", "shift_accuracy")
CURVE = ("queries", "seconds", "train_loss", "val_loss", "val_accuracy", "test_accuracy")


@dataclass(frozen=True)
class TestSet:
    """among: the numbers of the classes that the answer is one of; None: all."""

    __test__ = False  # pytest: this is no test

    pictures: LabelledFeatures
    among: tuple[int, ...] | None = None


Figures = dict[str, Any]  # the keys of CURVE, and shift_accuracy


def run_measured(
    method: Method,
    problem: Problem,
    max_queries: int,
    settings: Mapping[str, Any],
    val: LabelledFeatures,
    tests: Mapping[str, TestSet],
) -> list[Figures]:
    """Figures of every moment. Seconds are the process's own on its one thread, so that other jobs on the
    machine do not count, nor does measuring.

    val, tests: what the moments' logits take: features, or pixels for a method of kind "picture"
    """
    found = []
    for moment, seconds in timed(method.run(problem, max_queries, settings)):
        if math.isfinite(moment.train_loss):
            found.append(figures(moment, seconds, val, tests))
    return found


def timed(moments: Iterator[Moment]) -> Iterator[tuple[Moment, float]]:
    """Moments and the seconds until each, without the time that the caller takes between them."""
    spent, started = 0.0, time.process_time()
    for moment in moments:
        spent += time.process_time() - started
        yield moment, spent if moment.seconds is None else moment.seconds
        started = time.process_time()


def figures(moment: Moment, seconds: float, val: LabelledFeatures, tests: Mapping[str, TestSet]) -> Figures:
    by_style = {name: accuracy(moment, test.pictures, test.among) for name, test in tests.items()}
    return {
        "queries": moment.queries,
        "seconds": round(seconds, 3),
        "train_loss": float(f"{moment.train_loss:.6g}"),
        "val_loss": loss(moment, val),
        "val_accuracy": accuracy(moment, val),
        "test_accuracy": by_style.pop(TEST, None),
        "shift_accuracy": by_style,
        **({"use": moment.use} if moment.use else {}),
    }


def accuracy(
    moment: Moment, pictures: LabelledFeatures, among: tuple[int, ...] | None = None
) -> float | None:
    """A fraction, rounded; None without pictures."""
    if not len(pictures):
        return None
    logits = moment.logits(pictures.features[:])
    classes = np.arange(logits.shape[1]) if among is None else np.asarray(among)
    guesses = classes[logits[:, classes].argmax(axis=1)]
    return round(float(np.mean(guesses == pictures.labels)), 5)


def loss(moment: Moment, pictures: LabelledFeatures) -> float | None:
    """Mean cross-entropy, rounded; None without pictures."""
    if not len(pictures):
        return None
    return float(f"{loss_of(moment.logits(pictures.features[:]), pictures.labels):.6g}")


def headline(moments: list[Figures]) -> Figures:
    moments = [m for m in moments if "use" not in m]
    if moments[0]["val_loss"] is None:
        return moments[-1]
    return min(moments, key=lambda m: (m["val_loss"], -m["val_accuracy"]))


def summary(moments: list[Figures]) -> dict[str, Any]:
    """A run's result: queries and seconds of the whole run, all other figures the headline's.

    best: the headline; last: the last moment; at: the headline of a run stopped at so many queries.
    by: of `tune`, what each way to label has on the test sets, and the one in use
    """
    by = {m["use"]: {key: m[key] for key in BY} for m in moments if "use" in m}
    moments = [m for m in moments if "use" not in m]
    best, last = headline(moments), moments[-1]
    at = {}
    for budget in BUDGETS:
        until = [m for m in moments if m["queries"] <= budget]
        if until:
            at[str(budget)] = headline(until)
    return {
        **best,
        "queries": last["queries"],
        "seconds": last["seconds"],
        "best": best,
        "last": last,
        "at": at,
        "curve": curve(moments, best),
        **({"by": by} if by else {}),
    }


def curve(moments: list[Figures], best: Figures) -> dict[str, list[Any]]:
    """A list for each of CURVE, thinned evenly; the first, last and best moments stay."""
    rows = np.unique(np.linspace(0, len(moments) - 1, CURVE_POINTS - 1).round().astype(int))
    kept = sorted({*rows.tolist(), moments.index(best)})
    return {key: [moments[i][key] for i in kept] for key in CURVE}
