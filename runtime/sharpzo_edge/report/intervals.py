"""How sure an accuracy is: 95 % intervals of fractions that were seen in so many pictures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from .data import Estimate

Z95 = 1.959963984540054  # of the normal distribution, for 95 %


def wilson(fraction: float, n: float) -> tuple[float, float]:
    """The 95 % interval of a fraction that was seen in n trials (E. B. Wilson 1927). n > 0.

    >>> low, high = wilson(0.9, 100)
    >>> round(low, 4), round(high, 4)
    (0.8256, 0.9448)
    """
    z2 = Z95 * Z95 / n
    middle = (fraction + z2 / 2) / (1 + z2)
    half = Z95 / (1 + z2) * math.sqrt(fraction * (1 - fraction) / n + z2 / (4 * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def effective(sizes: Iterable[int]) -> float:
    """Kish's number of pictures of a mean over classes of these sizes, all of which weigh alike.

    >>> effective([4, 4]), effective([1, 7])
    (8.0, 3.5)
    """
    there = [size for size in sizes if size]
    return len(there) ** 2 / sum(1 / size for size in there)


def estimate(value: float | None, sizes: Sequence[int]) -> Estimate | None:
    """Of an accuracy, with every class alike, on so many pictures of each class; None of none."""
    if value is None:
        return None
    if not any(sizes):
        return Estimate(value, None, None, None)
    low, high = wilson(value, effective(sizes))
    return Estimate(value, low, high, sum(sizes))
