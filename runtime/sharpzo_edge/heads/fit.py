"""The head of a set of pictures: which candidates there are, and which is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from . import gaussian, kernel, ridge
from .gaussian import Gaussian
from .head import Head
from .kernel import Kernel
from .leave_one_out import BLOCK_BYTES, Chosen, Group, Pictures, choose
from .regression import Regression
from .ridge import Ridge

AUTO = "auto"
OF_SUMS = "sums"  # the best of those that are made of sums over pictures: all but the kernel head
KINDS = (kernel.KIND, ridge.KIND, gaussian.KIND)
ENOUGH_COVERED = 0.5  # the least share of classes that must have two pictures, for a choice


def best_head(
    pictures: Pictures, kind: str = AUTO, before_each: Callable[[], None] = lambda: None
) -> Chosen | None:
    """The best head of a kind, or of all kinds, by leave-one-out. Costs no query.

    before_each: is called before each group of candidates; it may raise
    The kernel head has no more than so many pictures; with more, the linear ridge head takes its place.
    Where fewer than half of the classes have two pictures there is nothing to choose by: its numbers are then
    those of the development set, and it has no accuracy.
    None where no head can be made: all pictures are equal, or for "gda" all of each class.
    """
    if pictures.covered >= ENOUGH_COVERED:
        return choose(pictures, _groups(pictures, kind, before_each))
    if kind == gaussian.KIND:
        gda = Gaussian.of(pictures)
        return None if gda is None else Chosen(gda.unmeasured())
    found = _regression(pictures, kind)
    return None if found is None else Chosen(found.unmeasured())


def fitted_as(head: Head, pictures: Pictures) -> Head | None:
    """The head of other pictures, of the same kind and by the same numbers; None where there can be none.

    A class without pictures does not change what it says of the others.
    """
    numbers = head.made_by
    if head.kind == gaussian.KIND:
        gda = Gaussian.of(pictures)
        return None if gda is None else gda.at(numbers["shrinkage"], (numbers["weight"],)).head(0)
    found = _regression(pictures, head.kind)
    return None if found is None else found.at(numbers["penalty"], (numbers["base"],)).head(0)


def _regression(pictures: Pictures, kind: str) -> Regression | None:
    """The kernel head where it fits and is wanted, otherwise the linear one."""
    found = None if kind in (ridge.KIND, OF_SUMS) else Kernel.of(pictures)
    return found or Ridge.of(pictures)


def _groups(pictures: Pictures, kind: str, before_each: Callable[[], None]) -> Iterator[Group]:
    """The candidates. Only one of them is in memory, when whoever takes one lets it go before the next."""
    if kind != gaussian.KIND:
        before_each()
        if found := _regression(pictures, kind):
            for group in found.groups():
                before_each()
                yield group
                del group
        del found
    if kind in (AUTO, OF_SUMS, gaussian.KIND):
        before_each()
        if fitted := Gaussian.of(pictures):
            for shrunk in fitted.groups():
                before_each()
                yield shrunk
                del shrunk


def peak_bytes(n_classes: int, embed_dim: int, n_pictures: int) -> int:
    """The most memory in bytes while a head is fitted and chosen, the head included, features aside."""
    kinds = ridge.peak_bytes(n_classes, embed_dim), gaussian.peak_bytes(n_classes, embed_dim)
    return BLOCK_BYTES + max(*kinds, kernel.peak_bytes(n_classes, embed_dim, n_pictures))
