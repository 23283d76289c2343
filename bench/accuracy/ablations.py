"""The preset edge with one part changed or left out: what each part adds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .method import Method, Moment, Problem
from .methods import METHODS

BASE = "edge"
QUERIES = 2_000
TASKS = ("subgroups", "nouns")

# By the name behind "edge:": what the row says, and the settings that differ.
CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "rho0": ("without the sharpness direction (rho 0)", {"rho": 0.0}),
    "no_warm_up": ("without the warm-up (change point 0)", {"change_point": 0}),
    "pruned": ("half the coordinates pruned (prune ratio 0.5)", {"prune_ratio": 0.5}),
    "no_smoothing": ("without label smoothing", {"label_smoothing": 0.0}),
    "kept0": ("without the columns of earlier rounds", {"kept_rounds": 0}),
    "rank16": ("smaller sketches, as many columns (rank 16, 7 rounds kept)", {"rank": 16, "kept_rounds": 7}),
    "rank64": ("larger sketches, as many columns (rank 64, 1 round kept)", {"rank": 64, "kept_rounds": 1}),
    "dim512": ("w in 512 random dimensions, not the context's own", {"dim": 512}),
}


def ablation(name: str, label: str, change: Mapping[str, Any]) -> Method:
    base = METHODS[BASE]

    def run(problem: Problem, max_queries: int, settings: Mapping[str, Any]) -> Iterator[Moment]:
        return base.run(problem, max_queries, {**settings, **change})

    return Method(f"{BASE}:{name}", label, base.kind, run, base.grid, needs_torch=base.needs_torch)


ABLATIONS: dict[str, Method] = {
    f"{BASE}:{name}": ablation(name, label, change) for name, (label, change) in CHANGES.items()
}
