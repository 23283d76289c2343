"""Thresholds for pictures of no class, from counts: how many pictures' largest logits lie below some levels.

No picture's own logit leaves a board. Levels are laid by sums that members send: with mean m and deviation d
of N logits, all are above m - d sqrt(N) (Samuelson), and half of them below m + d. Between these bounds the
levels are m - d sinh(u), with u in equal steps: close together near the mean, wider apart in the tail.

A threshold is the highest level with fewer pictures below it than its rank allows: the one that `known` finds
for all logits together, rounded down to a level.
"""

from __future__ import annotations

import numpy as np

from ..tuning.known import DIGITS, Known
from ..types import Doubles
from .messages import Counts

LEVELS = 256
# In deviations. The median of all is below m + d. The words and the head are judged on two of three pictures
# at least (classes of one have no say), and the median of any two thirds is below m + 1.42 d.
HIGHEST = 1.5


def levels_of(pictures: int, total: float, squares: float) -> Doubles:
    """Levels (LEVELS,) for the largest logits of so many pictures, by their sum and their sum of squares."""
    mean = total / max(1, pictures)
    deviation = np.sqrt(max(0.0, squares / max(1, pictures) - mean**2))
    steps = np.linspace(np.arcsinh(np.sqrt(pictures)), np.arcsinh(-HIGHEST), LEVELS)
    unit = 10**DIGITS
    levels: Doubles = np.floor((mean - deviation * np.sinh(steps)) * unit) / unit
    levels[0] -= 1 / unit  # below all of them, whatever the round-off
    return levels


def known_by(pictures: int, levels: Doubles, below: Counts) -> Known:
    """What known pictures are like. below: (LEVELS,) how many of them are lower than each level"""
    highest = np.searchsorted(below, Known.ranks(pictures)) - 1
    return Known(pictures, tuple(levels[highest].tolist()))
