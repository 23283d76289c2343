"""How sure the answers are to known pictures, and from when on a picture is called none of the classes.

A picture is called none of them when its answer is less sure than all but a small share of the answers to
known pictures: ones of the classes that had no part in what answers. With the k-th lowest of N such scores as
the threshold, a new picture of the classes is below it with a probability of k / (N + 1) at most, if it is
like the others; so k is the largest whole number with k / (N + 1) <= share.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..search.losses import softmax
from ..types import Doubles, Floats

SHARE = 0.05  # of known pictures that may be called none of the classes
MOST_SHARE = 0.5


@dataclass(frozen=True)
class Known:
    """What known pictures score. n_pictures: how many were measured;  scores: the lowest, in order."""

    n_pictures: int
    scores: tuple[float, ...]

    def threshold(self, share: float) -> float | None:
        """The score below which a picture is called none; None where so few pictures cannot tell."""
        k = int(np.floor(share * (self.n_pictures + 1) + 1e-9))
        return self.scores[k - 1] if 0 < k <= len(self.scores) else None


def checked_share(share: float) -> float:
    """The share after --none. Raises UsageError."""
    if not 0 < share <= MOST_SHARE:
        raise UsageError(
            f"--none {share:g} is out of range. It is the share of known pictures that may be called none of "
            f"the classes, above 0 and up to {MOST_SHARE}. Try --none {SHARE}"
        )
    return share


def sureness(logits: Floats) -> Doubles:
    """How sure an answer is: logits (N, K) -> (N,)."""
    found: Doubles = softmax(logits).max(axis=1)
    return found


def are_below(threshold: float | None, scores: Doubles) -> NDArray[np.bool_]:
    """Whether each is none of the classes: (N,). Nothing is without a threshold."""
    return np.zeros(len(scores), bool) if threshold is None else scores < threshold
