"""The head of a set of pictures: which candidates there are, and which is taken."""

from __future__ import annotations

from collections.abc import Iterator

from . import gaussian, ridge
from .gaussian import Gaussian
from .head import Head
from .leave_one_out import ENOUGH_COVERED, Chosen, Group, Pictures, choose
from .ridge import UNMEASURED_BASE, UNMEASURED_PENALTY, Ridge

AUTO = "auto"


def best_head(pictures: Pictures, kind: str = AUTO) -> Chosen | Head | None:
    """The best head of a kind, or of all kinds, by leave-one-out.

    A Head without figures where fewer than half of the classes have two pictures, so that there is nothing
    to choose by. None where no head can be made: all pictures are equal, or for "gda" all of each class.
    """
    if pictures.covered >= ENOUGH_COVERED:
        return choose(pictures, _groups(pictures, kind))
    if kind == gaussian.KIND:
        fitted = Gaussian.of(pictures)
        return None if fitted is None else fitted.at(1.0, (0.1,)).head(0)
    found = Ridge.of(pictures)
    return None if found is None else found.at(UNMEASURED_PENALTY, (UNMEASURED_BASE,)).head(0)


def _groups(pictures: Pictures, kind: str) -> Iterator[Group]:
    """The candidates, one kind after the other, so that only one of them is in memory."""
    if kind in (AUTO, ridge.KIND) and (found := Ridge.of(pictures)):
        yield from found.groups()
        del found
    is_enough = len(pictures.pictures) >= gaussian.FEWEST_PICTURES * pictures.n_classes
    if (kind == gaussian.KIND or (kind == AUTO and is_enough)) and (fitted := Gaussian.of(pictures)):
        yield from fitted.groups()
