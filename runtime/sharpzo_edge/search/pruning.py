"""Z-pruning: which coordinates a mask keeps (SharpZO, arXiv 2506.20990, sec. 3.2, eq. 4 and 5).

Now and then a gradient scores all coordinates by w^2 z(g^2), and the mask keeps the best of them.
"""

import math
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..errors import NumericsError
from ..types import Doubles

Mask = npt.NDArray[np.bool_]


class PruningSettings(Protocol):
    """prune_interval: K_prune, updates between two masks;  prune_ratio: the share left out; 0: no masks"""

    @property
    def prune_interval(self) -> int: ...

    @property
    def prune_ratio(self) -> float: ...


def is_due(settings: PruningSettings, step: int) -> bool:
    """Whether this update finds a new mask: every K_prune-th, the first included."""
    return settings.prune_ratio > 0 and step % settings.prune_interval == 0


def z_score(x: Doubles) -> Doubles:
    """z(x) = (x - mean) / std, with the population's std; 0 when all x are equal: (d,) -> (d,) (eq. 4).

    >>> z_score(np.array([1.0, 1.0, 4.0, 4.0]))
    array([-1., -1.,  1.,  1.])
    """
    if np.ptp(x) == 0:  # std itself may come out as round-off instead of 0
        return np.zeros_like(x)
    z: Doubles = (x - x.mean()) / x.std()
    return z


def pruning_score(w: Doubles, gradient: Doubles) -> Doubles:
    """w^2 z(g^2), high for a coordinate that is worth keeping: (d,), (d,) -> (d,) (eq. 4).

    At w = 0 all scores are 0; a mask then keeps the coordinates with the lowest indices.
    Raises NumericsError when a score is not finite.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        scores = w**2 * z_score(gradient**2)
    if not np.isfinite(scores).all():
        raise NumericsError(
            f"A pruning score left the finite numbers: the gradient's largest entry is "
            f"{np.abs(gradient).max():g}, w's is {np.abs(w).max():g}. "
            f"Their squares must stay finite. Try a larger --mu-cge, or a smaller --eta."
        )
    return scores


def keep_mask(scores: Doubles, prune_ratio: float) -> Mask:
    """Omega, True for the round((1 - prune_ratio) d) highest scores, at least one: (d,) -> (d,) bool (eq. 5).

    Halves are rounded up. Of equal scores the one with the lower index is kept.

    >>> keep_mask(np.array([0.5, 2.0, 0.5, -1.0]), prune_ratio=0.5)
    array([ True,  True, False, False])
    """
    n_kept = max(1, math.floor((1 - prune_ratio) * scores.size + 0.5))
    mask = np.zeros(scores.size, dtype=np.bool_)
    mask[np.argsort(-scores, kind="stable")[:n_kept]] = True
    return mask
