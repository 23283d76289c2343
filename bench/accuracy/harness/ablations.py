"""The preset edge with one part changed or left out: what each part adds."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..methods.all_methods import METHODS
from ..methods.method import Method

BASE = "edge"
QUERIES = 2_000
TASKS = ("subgroups", "nouns")
# What edge was before tangents. It is run on every task, and longer: a target compares by seconds.
DIFFERENCES = "edge:differences"
DIFFERENCES_QUERIES = 3_500

# By the name behind "edge:": what the row says, and the settings that differ.
CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "rho0": ("without the sharpness direction (rho 0)", {"rho": 0.0}),
    "no_warm_up": ("without the warm-up (change point 0)", {"change_point": 0}),
    "pruned": ("half the coordinates pruned (prune ratio 0.5)", {"prune_ratio": 0.5}),
    "no_smoothing": ("without label smoothing", {"label_smoothing": 0.0}),
    "kept0": ("without the columns of earlier rounds", {"kept_rounds": 0}),
    "rank16": ("smaller sketches, as many columns (rank 16, 7 rounds kept)", {"rank": 16, "kept_rounds": 7}),
    "rank64": ("larger sketches, as many columns (rank 64, 1 round kept)", {"rank": 64, "kept_rounds": 1}),
    "differences": ("with differences in place of tangents", {"tangents": "none"}),
    "dim512": ("w in 512 random dimensions, not the context's own", {"dim": 512}),
}


ABLATIONS: dict[str, Method] = {
    f"{BASE}:{name}": dataclasses.replace(METHODS[BASE], name=f"{BASE}:{name}", label=label)
    for name, (label, _) in CHANGES.items()
}


def is_run_on(name: str, task: str) -> bool:
    """Whether an ablation is run on a task."""
    return name == DIFFERENCES or task in TASKS


def queries_of(name: str) -> int:
    """Where an ablation's run ends."""
    return DIFFERENCES_QUERIES if name == DIFFERENCES else QUERIES


def change_of(method: str) -> dict[str, Any]:
    """The settings that differ from the base's; none for what is no ablation."""
    _, _, name = method.partition(":")
    return dict(CHANGES[name][1]) if name else {}
