"""When a picture is called none of the classes: its largest logit is lower than those of known pictures.

Known pictures are ones of the classes that had no part in what answers: left out of a head's fit, or
validation pictures. Probabilities compare classes with each other, so that a stranger may be sure to be one
rather than another. The largest logit says how much a picture looks like any of them (docs/development.md
compares such scores).

With the k-th lowest of N known pictures' logits as the threshold, the chance that one more picture of the
classes, drawn as they were, is below it is k / (N + 1) at most. So k is the largest whole number for which
that is no more than the share that was asked for (conformal prediction, Vovk et al., 2005).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..requests import NONE_SHARE
from ..types import Doubles, Floats

MOST_SHARE = 0.5
MOST_STEPS = 1_000  # shares are told apart to a thousandth
DIGITS = 4  # of a logit after the point; it is rounded down, so that no more pictures are below it
ROUND_OFF = 1e-9  # 0.05 * 20 may be a little less than 1


@dataclass(frozen=True)
class Known:
    """The largest logits of known pictures.

    pictures: how many were measured
    lowest:   the thresholds of the shares 1 / steps, 2 / steps and so on, up to MOST_SHARE; steps is one more
              than the number of pictures, or MOST_STEPS
    """

    pictures: int
    lowest: tuple[float, ...]

    @classmethod
    def of(cls, tops: Doubles) -> Self:
        """tops: (N,) largest logits."""
        n, unit = len(tops), 10**DIGITS
        return cls(n, tuple(math.floor(top * unit) / unit for top in np.sort(tops)[cls.ranks(n) - 1]))

    @staticmethod
    def ranks(pictures: int) -> NDArray[np.int64]:
        """Which of so many logits, counted from the lowest, is the threshold of each share."""
        shares = np.arange(1, Known.size(pictures) + 1)
        return shares * (pictures + 1) // _steps(pictures)

    @staticmethod
    def size(pictures: int) -> int:
        """How many thresholds there are of so many pictures."""
        return _index(MOST_SHARE, _steps(pictures))

    def threshold(self, share: float) -> float | None:
        """The logit below which a picture is called none, so that at most `share` of known ones are.

        None where there are too few known pictures to tell.
        """
        i = _index(share, _steps(self.pictures))
        return self.lowest[i - 1] if 0 < i <= len(self.lowest) else None

    @property
    def least_share(self) -> float:
        """A share that has a threshold, to a thousandth the smallest."""
        return math.ceil(1_000 / _steps(self.pictures)) / 1_000


def checked_share(share: float) -> float:
    """The share after --none. Raises UsageError."""
    if not 0 < share <= MOST_SHARE:
        raise UsageError(
            f"--none {share:g} is out of range. It is the share of known pictures that may be called none of "
            f"the classes, above 0 and up to {MOST_SHARE}. Try --none {NONE_SHARE}"
        )
    return share


def are_none(logits: Floats | Doubles, threshold: float | None) -> NDArray[np.bool_]:
    """Whether each picture is none of the classes: logits (N, K) -> (N,). Without a threshold nothing is."""
    if threshold is None:
        return np.zeros(len(logits), bool)
    found: NDArray[np.bool_] = logits.max(axis=1) < threshold
    return found


def _steps(n_pictures: int) -> int:
    return min(n_pictures + 1, MOST_STEPS)


def _index(share: float, steps: int) -> int:
    return math.floor(share * steps + ROUND_OFF)
