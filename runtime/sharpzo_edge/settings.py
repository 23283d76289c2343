"""The settings of a run, and the presets: the paper's (Table 8 and section 5), and the demo's."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

from . import stage1_cmaes, stage2_sparse_zo
from .errors import UsageError

AUTO = "auto"
Covariance = Literal["full", "diagonal", "identity"]
# Finite differences of a float32 loss drown in round-off below this: one unit in the last place of a
# loss near 1, over 2 mu, is 6e-3 at the 1e-5 that the paper lists.
SMALLEST_MU_FP32 = 1e-3


@dataclass(frozen=True)
class TuneSettings:
    """Everything that decides what a run computes, apart from pictures, bundle and seed.

    population … bounds: stage 1, see stage1_cmaes.Settings; prune_interval … eta: stage 2, see
    stage2_sparse_zo.Settings. projection_std: std of A's entries. change_point: generations of stage 1, or
    "auto". steps: generations and stage-2 steps together (the paper's T).
    Raises UsageError for a value that cannot be used.
    """

    preset: str
    population: int = 40
    dim: int = 512
    sigma0: float = 0.4
    rho: float = 0.1
    mu_cge: float = 1e-3
    mu_rge: float = 1e-3
    projection_std: float = 1.0
    bounds: float | None = None
    covariance: Covariance = "full"
    change_point: int | str = 100
    steps: int = 20_000
    prune_interval: int = 200
    prune_ratio: float = 0.5
    eta: float = 1e-3

    def __post_init__(self) -> None:
        """Refuse at once what a stage would refuse, perhaps hours later."""
        if self.steps < 1:
            raise UsageError(f"--steps {self.steps} is not a length. It takes 1 or more. Try --steps 20000")
        if not 0 < self.projection_std < math.inf:
            raise UsageError(
                f"--projection-std {self.projection_std} is not a spread. It takes a positive number. "
                f"Try --projection-std 1"
            )
        self.stage1()
        self.stage2(self.steps)

    def stage1(self) -> stage1_cmaes.Settings:
        return stage1_cmaes.Settings(
            dim=self.dim,
            population=self.population,
            sigma0=self.sigma0,
            rho=self.rho,
            mu_cge=self.mu_cge,
            bounds=self.bounds,
            covariance=self.covariance,
        )

    def stage2(self, steps: int) -> stage2_sparse_zo.Settings:
        return stage2_sparse_zo.Settings(
            dim=self.dim,
            steps=steps,
            eta=self.eta,
            mu_rge=self.mu_rge,
            mu_cge=self.mu_cge,
            prune_interval=self.prune_interval,
            prune_ratio=self.prune_ratio,
        )


PAPER = TuneSettings(preset="paper")

# Per dataset: sigma0, mu_cge, T_c, eta (Table 8), and the std of A (the released configurations).
_PAPER_VALUES = {
    "pets": (0.1, 1e-3, 100, 1e-3, 0.2),
    "flowers": (0.4, 1e-3, 500, 1e-3, 0.2),
    "fgvc": (0.2, 1e-3, 400, 1e-3, 0.2),
    "dtd": (0.4, 1e-5, 300, 1e-3, 1.0),
    "eurosat": (0.4, 1e-3, 500, 1e-3, 1.0),
    "cars": (1.0, 1e-3, 100, 1e-3, 0.2),
    "food": (0.1, 1e-3, 100, 1e-3, 0.2),
    "sun": (0.4, 1e-3, 400, 1e-1, 0.2),
    "caltech": (0.4, 1e-3, 200, 1e-3, 0.2),
    "ucf": (0.1, 1e-3, 200, 1e-3, 0.2),
    "imagenet": (1.0, 1e-5, 200, 1e-1, 1.0),
}

# The paper's algorithm at a size that a small text tower and a minute allow.
DEMO = TuneSettings(
    preset="demo",
    dim=32,
    sigma0=1.0,
    projection_std=1.0,
    mu_cge=1e-2,
    mu_rge=1e-2,
    change_point=60,
    steps=1_060,
    eta=200.0,
)

PRESETS = {
    "paper": PAPER,
    "demo": DEMO,
    **{
        f"paper:{name}": dataclasses.replace(
            PAPER,
            preset=f"paper:{name}",
            sigma0=sigma0,
            mu_cge=mu,
            change_point=t_c,
            eta=eta,
            projection_std=std,
        )
        for name, (sigma0, mu, t_c, eta, std) in _PAPER_VALUES.items()
    },
}


def settings_for(preset: str, overrides: dict[str, Any]) -> tuple[TuneSettings, list[str]]:
    """A preset with some values replaced (None keeps the preset's), and notes for the user.

    Raises UsageError for an unknown preset or a change point that is neither a count nor "auto".
    """
    if preset not in PRESETS:
        raise UsageError(
            f"--preset {preset} is not known. It takes one of: {', '.join(PRESETS)}. Try --preset paper"
        )
    given = {name: value for name, value in overrides.items() if value is not None}
    if "bounds" in given:
        given["bounds"] = _bounds(given["bounds"])
    if "change_point" in given:
        given["change_point"] = _change_point(given["change_point"])
    settings = dataclasses.replace(PRESETS[preset], **given)
    notes = []
    for name in ("mu_cge", "mu_rge"):
        mu = getattr(settings, name)
        if 0 < mu < SMALLEST_MU_FP32:
            changes: dict[str, Any] = {name: SMALLEST_MU_FP32}
            settings = dataclasses.replace(settings, **changes)
            notes.append(
                f"{name.replace('_', '-')} {mu:g} is round-off in float32: raised to {SMALLEST_MU_FP32:g}"
            )
    return settings, notes


def _change_point(value: int | str) -> int | str:
    if value == AUTO:
        return AUTO
    try:
        generations = int(value)
    except ValueError:
        generations = -1
    if generations < 0:
        raise UsageError(
            f"--change-point {value} is not a change of stage. It takes a number of generations from 0, "
            f"or auto. Try --change-point 100"
        )
    return generations


def _bounds(value: float | str | None) -> float | None:
    """b for the box [-b, b]; `none` and None are no box."""
    try:
        return None if value in (None, "none") else float(value)
    except ValueError as error:
        raise UsageError(
            f"--bounds {value} is not a box. It takes a positive number b, for [-b, b], or none. "
            f"Try --bounds 5"
        ) from error
