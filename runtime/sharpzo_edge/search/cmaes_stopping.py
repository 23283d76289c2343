"""Why going on with CMA-ES is of no use, by pycma's names and limits."""

import numpy as np

from ..types import Doubles
from .cmaes import Settings, State

CONDITION_LIMIT = 1e14  # of C, the square of D's: pycma's tolconditioncov


def stop_reasons(settings: Settings, state: State) -> dict[str, float]:
    """pycma's criteria that the last finished generation meets, each with the value that met it.

    tolx             every standard deviation is below 1e-11: sigma has collapsed
    tolfacupx        one is above 1,000 sigma0: sigma0 was far too small, or the search diverges
    noeffectcoord    0.2 standard deviations do not change the mean in some coordinate
    noeffectaxis     0.1 standard deviations along an axis of C do not change the mean
    tolconditioncov  C's largest variance along an axis is above 1e14 times its smallest
    tolfun           losses differ by less than 1e-11, in this generation and among recent bests
    tolfunhist       the bests of ten or more generations differ by less than 1e-12
    """
    if state.generation == 0:
        return {}
    variances = axis_variances(state)
    std = state.sigma * coordinate_deviations(state)
    found = {}
    path = 0.0 if state.p_c is None else float(state.sigma * np.abs(state.p_c).max())
    if max(std.max(), path) < 1e-11:
        found["tolx"] = float(std.max())
    if std.max() > 1e3 * settings.sigma0:
        found["tolfacupx"] = float(std.max())
    still = state.mean == state.mean + 0.2 * std
    if still.any():
        found["noeffectcoord"] = float(np.argmax(still))
    if state.eigenvectors is not None and state.D is not None:
        axis = state.generation % settings.dim
        step = 0.1 * state.sigma * state.D[axis] * state.eigenvectors[axis]
        if (state.mean == state.mean + step).all():
            found["noeffectaxis"] = float(axis)
    if variances.max() > CONDITION_LIMIT * variances.min():
        found["tolconditioncov"] = float(variances.max() / variances.min())
    best_range = float(np.ptp(state.best_losses))
    if np.isfinite(state.last_losses).all() and max(np.ptp(state.last_losses), best_range) < 1e-11:
        found["tolfun"] = float(np.ptp(state.last_losses))
    if state.best_losses.size > 9 and best_range < 1e-12:
        found["tolfunhist"] = best_range
    return found


def coordinate_deviations(state: State) -> Doubles:
    """Square roots of C's diagonal: (d,). Times sigma, the candidates' standard deviations."""
    if state.C is None:
        return np.ones_like(state.mean)
    return np.sqrt(np.diagonal(state.C) if state.C.ndim == 2 else state.C)


def axis_variances(state: State) -> Doubles:
    """Variances along the axes of C, its eigenvalues: (d,), or (1,) for "identity"."""
    if state.D is not None:
        return state.D**2
    return np.ones(1) if state.C is None else state.C
