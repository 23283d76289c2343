"""Heads of a fleet: those that are made of sums over pictures, the Gaussian and the linear ridge head.

A kernel needs all pairs of pictures, so it is none of them. What is fitted here is what `heads` fits to all
pictures in one place, up to round-off.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..heads import gaussian, ridge
from ..heads.fit import AUTO, ENOUGH_COVERED
from ..heads.gaussian import Gaussian
from ..heads.leave_one_out import TEMPERATURES, Chosen, Group
from ..heads.ridge import Ridge
from ..tuning.answers import HEAD
from ..types import Doubles
from .messages import Counts, Finished, Moments, Tried, Try
from .sums import symmetric

S = TypeVar("S", Moments, Tried, Finished)
KINDS = (AUTO, ridge.KIND, gaussian.KIND)


def fitted(kind: str, moments: Moments, of: str) -> Iterator[Group]:
    """The candidates on words (HEAD) or on the prompt (BOTH), in the order of heads.fit.

    Empty where none can be made.
    """
    if kind != gaussian.KIND and (found := ridge_of(moments, of)):
        yield from found.groups()
        del found  # it is large
    if kind in (AUTO, gaussian.KIND) and (gda := gaussian_of(moments)):
        yield from gda.groups()


def group_of(kind: str, moments: Moments, of: str, option: int) -> tuple[Group, int]:
    """The candidates that an option is one of, and the number of the first of them among all options."""
    first = 0
    for group in fitted(kind, moments, of):
        if option < first + group.n_options:
            return group, first
        first += group.n_options
        del group  # it is large, and the next one is made now
    raise ValueError(f"there is no option {option}")


def weights_of(counts: Counts) -> Doubles:
    """(K,) of each picture of a class: classes that have a say weigh alike, and all pictures sum to 1."""
    has_say = counts > 1
    return np.where(has_say, 1 / np.maximum(counts, 1), 0.0) / max(1, int(has_say.sum()))


def gaussian_of(moments: Moments) -> Gaussian | None:
    """As Gaussian.of, from sums."""
    counts, n = moments.counts, int(moments.counts.sum())
    means = moments.classes / counts[:, np.newaxis]
    scatter = symmetric(moments.second, means.shape[1])
    scatter -= (means * counts[:, np.newaxis]).T @ means
    trace = float(np.trace(scatter))
    if not trace > gaussian.ROUND_OFF * n:
        return None
    values, vectors = np.linalg.eigh((scatter + scatter.T) / 2)
    return Gaussian(counts, means @ vectors, vectors, np.maximum(values, 0), trace / (n - 1))


def ridge_of(moments: Moments, of: str) -> Ridge | None:
    """As Ridge.of, from sums."""
    counts, n = moments.counts, int(moments.counts.sum())
    centre = moments.classes.sum(axis=0) / n
    second = symmetric(moments.second, len(centre))
    variance = float(np.trace(second) / n - centre @ centre)
    if not variance > ridge.ROUND_OFF:
        return None
    spread, width = np.sqrt(variance), len(centre) + 1
    gram = np.zeros((width, width))
    gram[:-1, :-1] = (second - n * np.outer(centre, centre)) / variance
    gram[-1, -1] = n
    values, vectors = np.linalg.eigh((gram + gram.T) / 2)
    by = moments.by_words if of == HEAD else moments.by_prompt

    def standardised(sums: Doubles, ones: Doubles) -> Doubles:
        """Sums of x and of 1 -> sums of phi, in V: (d, K)."""
        phi = np.column_stack(((sums - ones[:, np.newaxis] * centre) / spread, ones))
        return np.ascontiguousarray((phi @ vectors).T)

    return Ridge(
        centre=centre,
        spread=float(spread),
        vectors=vectors,
        values=np.maximum(values, 0),
        targets=standardised(moments.classes, counts.astype(np.float64)),
        words=standardised(by[:, :-1], by[:, -1]),
        unit=len(counts) / n,
    )


def total(parts: Iterable[S]) -> S:
    """The sums of all members together."""
    first, *rest = parts
    added = {name: value.copy() for name, value in vars(first).items()}
    for part in rest:
        for name, value in vars(part).items():
            added[name] += value
    return type(first)(**added)


def is_measured(moments: Moments) -> bool:
    """Whether enough classes have two pictures to choose a head by pictures that are left out."""
    return float((moments.counts > 1).mean()) >= ENOUGH_COVERED


def unmeasured(kind: str, moments: Moments, of: str) -> Chosen | None:
    """The head where there is nothing to choose by."""
    found = gaussian_of(moments) if kind == gaussian.KIND else ridge_of(moments, of)
    return None if found is None else Chosen(found.unmeasured())


@dataclass(frozen=True, eq=False)
class Choice:
    """The best head. option: its number among all;  right, tops: (2, K) and (2, 2), left out, see Tried"""

    chosen: Chosen
    option: int
    right: Counts
    tops: Doubles


def best(tried: Try, of: str, found: Tried) -> Choice | None:
    """As leave_one_out.choose. found: of all members"""
    right, tops, losses = (each[0 if of == HEAD else 1] for each in (found.right, found.tops, found.losses))
    if not len(right):
        return None
    counts = tried.moments.counts
    by_class = right.sum(axis=1)[:, counts > 1] / counts[counts > 1]
    accuracies = by_class.mean(axis=1).round(12)
    top = accuracies.max()
    among = np.where((accuracies == top)[:, np.newaxis], losses, np.inf)
    option, hottest = (int(i) for i in np.unravel_index(among.argmin(), among.shape))
    group, first = group_of(tried.kind, tried.moments, of, option)
    head = group.head(option - first).at(TEMPERATURES[hottest])
    return Choice(Chosen(head, float(top)), option, right[option], tops[option])
