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
    "rank16": ("sketches of rank 16", {"rank": 16}),
    "rank96": ("sketches of rank 96", {"rank": 96}),
    "dim1024": ("as many dimensions as the context has numbers (d = 1,024)", {"dim": 1024}),
}


def ablation(name: str, label: str, change: Mapping[str, Any]) -> Method:
    base = METHODS[BASE]

    def run(problem: Problem, max_queries: int, settings: Mapping[str, Any]) -> Iterator[Moment]:
        return base.run(problem, max_queries, {**settings, **change})

    return Method(f"{BASE}:{name}", label, base.kind, run, base.grid, needs_torch=base.needs_torch)


ABLATIONS: dict[str, Method] = {
    f"{BASE}:{name}": ablation(name, label, change) for name, (label, change) in CHANGES.items()
}
