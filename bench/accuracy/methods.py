"""Every method of the accuracy bench, in the order of its tables."""

from __future__ import annotations

from . import prompts
from .method import Method
from .prompts import EMBEDDING

_ALL = (
    Method("zero_shot", "zero-shot", "prompt", prompts.zero_shot),
    Method(
        "cma",
        "CMA-ES alone (BBT)",
        "prompt",
        prompts.cma,
        # Only the product of the two matters: CMA-ES does not know A's scale.
        grid=(
            {"std": 1.0, "sigma0": 0.4},
            {"std": 1.0, "sigma0": 1.0},
            {"std": 1.0, "sigma0": 0.1},
            {"std": 1.0, "sigma0": 0.02},
            {"std": EMBEDDING, "sigma0": 0.4},
            {"std": EMBEDDING, "sigma0": 0.2},
            {"std": EMBEDDING, "sigma0": 0.1},
            {"std": EMBEDDING, "sigma0": 0.4, "population": 22},
            {"std": EMBEDDING, "sigma0": 0.1, "population": 22},
        ),
    ),
    Method(
        "paper",
        "SharpZO, preset paper",
        "prompt",
        prompts.paper,
        grid=(
            {"std": 1.0, "sigma0": 0.4, "eta": 1e-3},
            {"std": 1.0, "sigma0": 0.4, "eta": 1e-1},
            {"std": 1.0, "sigma0": 1.0, "eta": 1e-3},
            {"std": 1.0, "sigma0": 0.1, "eta": 1e-3},
            {"std": EMBEDDING, "sigma0": 0.4, "eta": 1e-3},
            {"std": EMBEDDING, "sigma0": 0.4, "eta": 1e-2},
            {"std": EMBEDDING, "sigma0": 0.4, "eta": 1e-1},
            {"std": EMBEDDING, "sigma0": 0.1, "eta": 1e-3},
            {"std": EMBEDDING, "sigma0": 0.1, "eta": 1e-2},
        ),
    ),
    Method("edge", "SharpZO, preset edge", "prompt", prompts.edge),
)

METHODS: dict[str, Method] = {method.name: method for method in _ALL}
