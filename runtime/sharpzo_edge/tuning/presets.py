"""The presets, and the options that take the place of their values.

A preset is a set of settings (settings.py): the paper's (Table 8 and section 5), our own, and the demo's. An
option that a preset does not use is refused.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ..errors import UsageError
from ..requests import TuneRequest
from .settings import AUTO, NOT_OPTIONS, EdgeSettings, PaperSettings, TuneSettings

CONTEXT = "context"  # a value of --dim: w is the context itself
# Below this mu, finite differences of a float32 loss are mostly round-off. At the paper's 1e-5, one unit in
# the last place of a loss near 1, divided by 2 mu, is 6e-3.
SMALLEST_MU_FP32 = 1e-3


PAPER = PaperSettings(preset="paper")

# For each data set: sigma0, mu_cge, T_c, eta (Table 8), and the std of A (the released configurations).
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

EDGE = EdgeSettings(preset="edge")

# A shorter run, for a first try.
DEMO = dataclasses.replace(EDGE, preset="demo", queries=1_200)

# Nothing is tuned: the words' one query, and the head.
HEAD_ALONE = "head"
HEAD = dataclasses.replace(EDGE, preset=HEAD_ALONE, queries=1)

PRESETS: dict[str, TuneSettings] = {
    "edge": EDGE,
    "demo": DEMO,
    HEAD_ALONE: HEAD,
    "paper": PAPER,
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


def overrides_of(request: TuneRequest) -> dict[str, Any]:
    """The values that the request has in place of a preset's. None keeps the preset's value."""
    names = {f.name for preset in (PAPER, EDGE) for f in dataclasses.fields(preset)} - {*NOT_OPTIONS}
    return {f.name: getattr(request, f.name) for f in dataclasses.fields(request) if f.name in names}


def settings_for(preset: str, overrides: dict[str, Any]) -> tuple[TuneSettings, list[str]]:
    """A preset with some values replaced, and notes for the user.

    overrides: values by field name; None keeps the preset's
    Raises UsageError for an unknown preset, a value that the preset does not use, or one that cannot be used.
    """
    if preset not in PRESETS:
        raise UsageError(
            f"--preset {preset} is not known. It takes one of: {', '.join(PRESETS)}. Try --preset edge"
        )
    given = {name: value for name, value in overrides.items() if value is not None}
    used = [f.name for f in dataclasses.fields(PRESETS[preset]) if f.name not in NOT_OPTIONS]
    for name, value in given.items():
        if not PRESETS[preset].tunes:
            raise UsageError(
                f"--{name.replace('_', '-')} {value} means nothing to --preset {preset}: it tunes nothing. "
                f"It goes with the other presets. Leave the option out, or choose --preset edge"
            )
        if name not in used:
            own = ", ".join(f"--{n.replace('_', '-')}" for n in used)
            raise UsageError(
                f"--{name.replace('_', '-')} {value} means nothing to --preset {preset}. That preset takes: "
                f"{own}. Leave the option out, or choose another preset"
            )
    if "bounds" in given:
        given["bounds"] = _bounds(given["bounds"])
    if "dim" in given:
        given["dim"] = _dim(given["dim"], PRESETS[preset])
    if "change_point" in given:
        given["change_point"] = _change_point(given["change_point"])
    if "patience" in given:
        given["patience"] = _patience(given["patience"])
    settings = dataclasses.replace(PRESETS[preset], **given)
    _refuse_what_changes_nothing(settings, given)
    notes = []
    for name in ("mu_cge", "mu_rge"):
        mu = getattr(settings, name, SMALLEST_MU_FP32)
        if 0 < mu < SMALLEST_MU_FP32:
            changes: dict[str, Any] = {name: SMALLEST_MU_FP32}
            settings = dataclasses.replace(settings, **changes)
            notes.append(
                f"{name.replace('_', '-')} {mu:g} is round-off in float32: raised to {SMALLEST_MU_FP32:g}"
            )
    return settings, notes


def _refuse_what_changes_nothing(settings: TuneSettings, given: dict[str, Any]) -> None:
    if settings.prune_ratio == 0 and "prune_interval" in given:
        raise UsageError(
            f"--prune-interval {given['prune_interval']} means nothing where nothing is pruned. It goes "
            f"with a share above 0. Add --prune-ratio 0.5, or leave it out"
        )
    if settings.prune_ratio > 0 and given.get("kept_rounds"):
        raise UsageError(
            f"--kept-rounds {given['kept_rounds']} means nothing beside --prune-ratio "
            f"{settings.prune_ratio:g}: the columns of earlier rounds would move what is left out. "
            f"It goes with a share of 0. Leave out one of the two"
        )


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


def _dim(value: int | str, preset: TuneSettings) -> int:
    """The number of dimensions. `context` is 0, which only the edge presets allow."""
    is_edge = isinstance(preset, EdgeSettings)
    try:
        dim = 0 if value == CONTEXT else int(value)
    except ValueError:
        dim = -1
    if dim < (0 if is_edge else 1):
        raise UsageError(
            f"--dim {value} is not a number of dimensions. It takes 1 or more"
            f"{'; 0 or context for the context itself' if is_edge else ''}. Try --dim 512"
        )
    return dim


def _patience(value: int | str) -> int:
    """The number of evaluations. `none` is 0: patience never ends the run."""
    try:
        n = 0 if value == "none" else int(value)
    except ValueError:
        n = -1
    if n < 0:
        raise UsageError(
            f"--patience {value} is not a number of evaluations. It takes 1 or more; 0 or none for a run "
            f"that goes its length. Try --patience 10"
        )
    return n


def _bounds(value: float | str | None) -> float | None:
    """b for the box [-b, b]^d. None or `none`: no box."""
    try:
        return None if value in (None, "none") else float(value)
    except ValueError as error:
        raise UsageError(
            f"--bounds {value} is not a box. It takes a positive number b, for [-b, b], or none. "
            f"Try --bounds 5"
        ) from error
