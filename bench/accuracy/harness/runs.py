"""The runs that there are: their figures at a budget, first moments to reach a mark, paired differences."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from shared.machine import ROOT

from .coop_layout import DATA_SETS
from .jobs import EVERY_METHOD, FULL, MOST_SHOTS, SEEDS, shots_of
from .measure import headline
from .tasks import DEMO_TASKS

RESULTS = ROOT / "bench" / "results" / "accuracy"
CHOSEN, MACHINE, PICTURES = "chosen.json", "machine.json", "pictures.json"  # in it, beside the runs

TASKS = (*DEMO_TASKS, "digits", "textile")
EDGE = "edge"
RESAMPLES = 10_000
FEWEST_PAIRS = 5  # that are resampled: of fewer, all are shown
# Runs that know tangents were made on a faster machine than the others. 21 runs with differences were made on
# both: the geometric mean of their ratios of seconds a query, which are 2.5 to 3.5.
FASTER = 2.8
NOT_RUN = "not run"
REFUSED = "refused"  # in a run's JSON: why the method refused the problem, instead of figures
DASH = "–"  # in tables, for refused runs

Run = dict[str, Any]
Figures = dict[str, Any]


Key = tuple[str, str, int, int]  # method, task, shots, seed


@dataclass(frozen=True)
class Runs:
    """by_key: every run that has figures; refused: those that the method refused."""

    by_key: dict[Key, Run]
    refused: dict[Key, Run] = field(default_factory=dict)

    @property
    def tried(self) -> dict[Key, Run]:
        return self.by_key | self.refused

    def get(self, method: str, task: str, shots: int, seed: int) -> Run | None:
        return self.by_key.get((method, task, shots, seed))

    def of(self, method: str, task: str, shots: int = MOST_SHOTS) -> list[Run]:
        """The seeds that there are."""
        return [run for seed in SEEDS if (run := self.get(method, task, shots, seed))]

    def absence(self, method: str, shots: int = MOST_SHOTS, task: str | None = None) -> str:
        """What a table shows where a method has no figures, on one task or on all."""
        was_refused = any((m, n) == (method, shots) and task in (None, t) for m, t, n, _ in self.refused)
        return DASH if was_refused else NOT_RUN

    @property
    def tasks(self) -> list[str]:
        """In their order: a method that is run on one task alone is run on the first."""
        there = {task for _, task, _, _ in self.tried}
        return [t for t in (*TASKS, *DATA_SETS) if t in there]

    def missing(self) -> list[str]:
        """What the full set has and this one has not, a line for each method and task."""
        lines = []
        for task in self.tasks:
            for name, method in EVERY_METHOD.items():
                wanted = [(n, s) for n in shots_of(method, task, self.tasks[0]) for s in SEEDS]
                lost = [f"{n}/{s}" for n, s in wanted if (name, task, n, s) not in self.tried]
                if lost:
                    which = "all" if len(lost) == len(wanted) else ", ".join(lost)
                    lines.append(f"{task}, {name}: {which}")
        absent = [task for task in TASKS if task not in self.tasks and set(self.tasks) & set(TASKS)]
        return lines + [f"{task}: all" for task in absent]


def load(results: Path) -> Runs:
    runs = Runs({})
    for path in sorted(results.glob("*/*.json")):
        run = json.loads(path.read_bytes())
        if "tangents" in run.get("settings", ()) and REFUSED not in run:
            run = with_seconds_times(FASTER, run)
        key = run["method"], run["task"], run["shots"], run["seed"]
        (runs.refused if REFUSED in run else runs.by_key)[key] = run
    return runs


def with_seconds_times(factor: float, run: Run) -> Run:
    """The same run in the seconds of another machine."""

    def changed(key: str, value: Any) -> Any:
        if key == "seconds":
            return [factor * s for s in value] if isinstance(value, list) else factor * value
        return {k: changed(k, v) for k, v in value.items()} if isinstance(value, dict) else value

    return {key: changed(key, value) for key, value in run.items()}


def in_full(run: Run) -> bool:
    return bool(run["max_queries"] >= FULL)


def until(run: Run, queries: int | None) -> Figures:
    """The headline of a run, or of its first so many queries."""
    figures: Figures = run["best"] if queries is None else run["at"][str(queries)]
    return figures


def until_seconds(run: Run, seconds: float) -> Figures:
    """The headline of a run that is stopped after so many seconds, by its curve."""
    rows = zip(*run["curve"].values(), strict=True)
    moments = [dict(zip(run["curve"], row, strict=True)) for row in rows]
    return headline([m for m in moments if m["seconds"] <= seconds] or moments[:1])


def seconds_at(run: Run, queries: int) -> float:
    """Of the last moment of its curve with at most so many queries."""
    curve: dict[str, list[float]] = run["curve"]
    return max(s for q, s in zip(curve["queries"], curve["seconds"], strict=True) if q <= queries)


def by_use(run: Run, use: str) -> Figures | None:
    """What a way to label has at the end of a tune; None for a run that is none.

    Where nothing was tuned, the prompt is the words, and prompt and head are the head.
    """
    ways: dict[str, Figures] = run.get("by", {})
    return ways.get(use) or ways.get({"prompt": "words", "both": "head"}.get(use, use))


def shift(figures: Figures) -> float | None:
    """The mean over styles."""
    return statistics.fmean(figures["shift_accuracy"].values()) if figures["shift_accuracy"] else None


def bootstrap(differences: Sequence[float], resamples: int = RESAMPLES) -> tuple[float, float, float]:
    """The mean, and its 95 % interval by resampling the pairs."""
    values = np.asarray(differences, float)
    picks = np.random.default_rng(0).integers(0, len(values), (resamples, len(values)))
    low, high = np.percentile(values[picks].mean(axis=1), (2.5, 97.5))
    return float(values.mean()), float(low), float(high)


def first_to_reach(run: Run, key: str, enough: Callable[[float], bool]) -> tuple[int, float] | None:
    """Queries and seconds at the first moment of the curve whose figure is enough."""
    curve = run["curve"]
    for queries, seconds, value in zip(curve["queries"], curve["seconds"], curve[key], strict=True):
        if value is not None and enough(value):
            return queries, seconds
    return None


@dataclass(frozen=True)
class Pairs:
    """Edge's figures less another method's in points, over the same tasks and seeds."""

    differences: list[float]

    def __str__(self) -> str:
        if not self.differences:
            return NOT_RUN
        if len(self.differences) < FEWEST_PAIRS:
            return f"{self.mean:+.1f} ({', '.join(f'{d:+.1f}' for d in self.differences)})"
        mean, low, high = bootstrap(self.differences)
        return f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"

    @property
    def mean(self) -> float:
        return statistics.fmean(self.differences)


def paired(
    runs: Runs,
    other: str,
    edge: int | str | None,
    other_queries: int | None,
    figure: Callable[[Figures], float | None] = lambda f: f["test_accuracy"],
    where: Callable[[Run], bool] = lambda run: True,
    shots: int = MOST_SHOTS,
) -> Pairs:
    """edge: its queries, or a way to label at its end; where: which of the other's runs count."""
    found = []
    for task in runs.tasks:
        for seed in SEEDS:
            ours, theirs = (runs.get(m, task, shots, seed) for m in (EDGE, other))
            if ours and theirs and where(theirs):
                own = by_use(ours, edge) if isinstance(edge, str) else until(ours, edge)
                a, b = figure(own) if own else None, figure(until(theirs, other_queries))
                if a is not None and b is not None:
                    found.append(100 * (a - b))
    return Pairs(found)
