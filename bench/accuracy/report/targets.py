"""The targets that edge is held to, each with what was found."""

from __future__ import annotations

import math
import operator
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from ..harness.ablations import DIFFERENCES, DIFFERENCES_QUERIES
from ..harness.jobs import MOST_SHOTS, QUERIES, SEEDS, SHOTS
from ..harness.runs import (
    EDGE,
    NOT_RUN,
    Pairs,
    Runs,
    first_to_reach,
    in_full,
    paired,
    seconds_at,
    shift,
    until_seconds,
)
from ..methods.all_methods import METHODS
from ..methods.method import IN_USE

PAPER, COOP, GDA, PROMPT = "paper", "coop_w", "gda", "prompt"
EDGE_QUERIES = 2_000
LOSS_FACTOR = 1.01
QUERIES_RATIO, SECONDS_RATIO = 1 / 50, 1 / 30
COOP_POINTS, HEAD_POINTS = -1.0, -0.5


def geometric_mean(ratios: Iterable[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, ratios)))


def counted(n: int, what: str) -> str:
    return f"{n} {what}{'s'[: n != 1]}"


@dataclass(frozen=True)
class Speed:
    """Edge's over paper's queries and seconds to the fixed loss, and which runs missed it."""

    queries: list[float]
    seconds: list[float]
    missed: list[str]


def speed(runs: Runs) -> Speed:
    """Where paper ran in full. A miss counts edge's whole budget, whatever part of it was spent, and as many
    seconds as that would have taken.
    """
    found = Speed([], [], [])
    for task in runs.tasks:
        for seed in SEEDS:
            edge, paper = (runs.get(m, task, MOST_SHOTS, seed) for m in (EDGE, PAPER))
            if not (edge and paper and in_full(paper)):
                continue
            is_enough = partial(operator.ge, LOSS_FACTOR * paper["last"]["train_loss"])
            theirs, ours = (first_to_reach(run, "train_loss", is_enough) for run in (paper, edge))
            if ours is None:
                found.missed.append(f"{task} seed {seed}")
                ours = edge["max_queries"], edge["seconds"] * edge["max_queries"] / edge["queries"]
            assert theirs is not None  # the last moment is in the curve
            found.queries.append(ours[0] / theirs[0])
            found.seconds.append(ours[1] / max(theirs[1], 1e-3))
    return found


@dataclass(frozen=True)
class Target:
    text: str
    found: str
    met: bool | None

    @property
    def verdict(self) -> str:
        return NOT_RUN if self.met is None else "met" if self.met else "**not met**"


def targets(runs: Runs) -> list[Target]:
    rows = []
    fast = speed(runs)
    for what, ratios, wanted in (
        ("queries", fast.queries, QUERIES_RATIO),
        ("seconds", fast.seconds, SECONDS_RATIO),
    ):
        text = (
            f"edge's over paper's {what} to {LOSS_FACTOR} times paper's final loss, geometric mean: "
            f"at most 1/{1 / wanted:.0f}"
        )
        if not ratios:
            rows.append(Target(text, NOT_RUN, None))
            continue
        mean = geometric_mean(ratios)
        missed = f"; missed by {', '.join(fast.missed)}" if fast.missed else ""
        rows.append(
            Target(text, f"1/{1 / mean:.1f} over {counted(len(ratios), 'run')}{missed}", mean <= wanted)
        )

    def at_least(text: str, pairs: Pairs, points: float) -> None:
        text = f"{text}: at least {points:+g} points"
        if not pairs.differences:
            rows.append(Target(text, NOT_RUN, None))
            return
        found = f"{pairs} over {counted(len(pairs.differences), 'pair')}"
        rows.append(Target(text, found, pairs.mean >= points))

    edge = f"edge at {EDGE_QUERIES:,} queries"
    at_least(f"{edge} less paper in full", paired(runs, PAPER, EDGE_QUERIES, None, where=in_full), 0)
    for name in rivals():
        label = METHODS[name].label
        at_least(f"{edge} less {label} at {QUERIES:,}", paired(runs, name, EDGE_QUERIES, QUERIES), 0)
    coop = METHODS[COOP].label if COOP in METHODS else COOP
    at_least(f"{edge} less {coop}", paired(runs, COOP, EDGE_QUERIES, None), COOP_POINTS)
    pairs = paired(runs, PAPER, EDGE_QUERIES, None, shift, in_full)
    at_least(f"{edge} less paper in full, shifted styles", pairs, 0)

    before = f"edge in the seconds of {EDGE_QUERIES:,} queries with differences, less those at"
    at_least(f"{before} {DIFFERENCES_QUERIES:,} queries", at_equal_seconds(runs), 0)

    tune = "tune with no options"
    for name in heads():
        for shots in reversed(SHOTS):
            # Above GDA where pictures are few, and not far below any head.
            points = 0.0 if name == GDA and shots < MOST_SHOTS else HEAD_POINTS
            pairs = paired(runs, name, IN_USE, QUERIES, shots=shots)
            at_least(f"{tune} less {METHODS[name].label}, {counted(shots, 'shot')}", pairs, points)
    pairs = paired(runs, GDA, IN_USE, QUERIES, shift)
    at_least(f"{tune} less {METHODS[GDA].label}, shifted styles", pairs, 0)
    prompt = "its prompt alone"
    at_least(f"{prompt} less {coop}", paired(runs, COOP, PROMPT, None), COOP_POINTS)
    at_least(f"{prompt} less paper in full", paired(runs, PAPER, PROMPT, None, where=in_full), 0)
    pairs = paired(runs, PAPER, PROMPT, None, shift, in_full)
    at_least(f"{prompt} less paper in full, shifted styles", pairs, 0)
    return rows


def at_equal_seconds(runs: Runs) -> Pairs:
    """Edge within the seconds that EDGE_QUERIES take with differences, less differences at their end."""
    found = []
    for task in runs.tasks:
        for seed in SEEDS:
            ours, before = (runs.get(m, task, MOST_SHOTS, seed) for m in (EDGE, DIFFERENCES))
            if ours and before:
                own = until_seconds(ours, seconds_at(before, EDGE_QUERIES))
                found.append(100 * (own["test_accuracy"] - before["best"]["test_accuracy"]))
    return Pairs(found)


def heads() -> list[str]:
    """Closed-form heads, and the linear probe."""
    return [name for name, method in METHODS.items() if method.kind == "head"]


def rivals() -> list[str]:
    """What tunes with forward passes alone."""
    return [n for n, m in METHODS.items() if m.kind in ("prompt", "picture") and n not in (EDGE, "zero_shot")]
