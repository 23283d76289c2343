"""Every way on one list of names: ours, resident and within a budget, beside torch with and without sharing.

Ways take turns within a round. They answer the same contexts, and the answers are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from .task import LISTS, task_of
from .workers import Worker

CANDIDATES = 32
GROUPS = (1, 4, 8, 16, 32)
LARGEST_DIFFERENCE = 1e-5
# Ways by the process that runs them; candidates at once.
TORCH_WAYS = (("ordinary", 1), ("ordinary", CANDIDATES), ("shared", 1), ("shared", CANDIDATES))


def measure(which: str, bundle: Path, threads: int, rounds: int) -> dict[str, Any]:
    """Every way on one list of names."""
    import numpy as np

    task = task_of(which, bundle, threads)
    n_names = len(task["names"])
    torch, resident, streamed = Worker("torch"), Worker("ours"), Worker("ours")
    positions = torch("prepare", **task)
    ours = resident("prepare", **task, way="resident")
    within = streamed("prepare", **task, way="streamed")
    n_streamed = CANDIDATES if which == LISTS[0] else within["plan"]["together"]

    def saved(name: str) -> str:
        return str(bundle.parent / f"answers-{name}.npy")

    torch("run", way="ordinary", at_once=1, candidates=1, save=saved("ordinary"))
    torch("run", way="shared", at_once=2, candidates=2, save=saved("shared"))
    resident("run", candidates=2, save=saved("resident"))
    streamed("run", candidates=2, save=saved("streamed"))
    expected = np.load(saved("ordinary"))
    difference = {
        way: float(np.abs(np.load(saved(way))[:1] - expected).max())
        for way in ("shared", "resident", "streamed")
    }
    assert max(difference.values()) <= LARGEST_DIFFERENCE, difference

    runs: dict[str, tuple[Callable[[], float], int]] = {
        "resident": (lambda: resident("run", candidates=CANDIDATES), CANDIDATES),
        "streamed": (lambda: streamed("run", candidates=n_streamed), n_streamed),
    }
    for way, at_once in TORCH_WAYS:
        # One candidate at a time takes the same for each: a few of them do.
        n = at_once if at_once > 1 else min(CANDIDATES, 200 // n_names)
        runs[f"{way}, {at_once} at once"] = (
            partial(torch, "run", way=way, at_once=at_once, candidates=n),
            n,
        )
    ms = interleaved(runs, rounds, once={f"ordinary, {CANDIDATES} at once"} if n_names > 10 else set())
    row = {
        "names": which,
        "threads": threads,
        "plans": {"resident": ours["plan"], "streamed": within["plan"]},
        "candidates": {"resident": CANDIDATES, "streamed": n_streamed},
        "positions": {
            "ordinary": positions["ordinary"],
            "shared": positions["shared"],
            "resident": ours["positions"],
            "streamed": within["positions"],
            "needed": ours["needed"],
        },
        "difference": difference,
        "ms": ms,
        "profile": {
            "ordinary": torch("profile", way="ordinary", at_once=1),
            "shared": torch("profile", way="shared", at_once=CANDIDATES),
            "resident": resident("profile", candidates=ours["plan"]["together"]),
            "streamed": streamed("profile", candidates=n_streamed),
        },
        "resident_ms_by_group": by_group(resident, rounds),
    }
    for worker in (torch, resident, streamed):
        worker.close()
    return row


def interleaved(
    runs: dict[str, tuple[Callable[[], float], int]], rounds: int, once: Iterable[str]
) -> dict[str, list[float]]:
    """Milliseconds a candidate, one figure a round; the ways take turns, each round from another on."""
    ms: dict[str, list[float]] = {way: [] for way in runs}
    order = list(runs)
    for i in range(rounds):
        for way in order[i % len(order) :] + order[: i % len(order)]:
            if not (way in once and ms[way]):
                run, n = runs[way]
                ms[way].append(run() * 1e3 / n)
    return ms


def by_group(resident: Worker, rounds: int) -> dict[str, float]:
    """Milliseconds a candidate with so many candidates in a run of the resident graph."""
    best: dict[str, float] = {}
    for group in GROUPS:
        resident("regroup", group=group)
        resident("run", candidates=group)
        best[str(group)] = min(resident("run", candidates=CANDIDATES) for _ in range(min(rounds, 3)))
    return {group: seconds * 1e3 / CANDIDATES for group, seconds in best.items()}
