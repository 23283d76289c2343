"""What share of strangers is called none: each class is left out in turn, and its pictures are the strangers.

They look like the other classes more than most strangers do, so of others more may be caught. Costs no query.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..heads.fit import fitted_as
from ..heads.head import Head
from ..heads.leave_one_out import Pictures
from ..types import Floats, LabelledFeatures
from .known import are_none

MOST_CLASSES = 20  # that a head is fitted without; of more classes these are spread evenly


@dataclass(frozen=True)
class Caught:
    """share: of strangers that are called none, every class alike;  classes: how many were left out."""

    share: float
    classes: int


def caught_by_head(
    head: Head, pictures: Pictures, threshold: float, before_each: Callable[[], None]
) -> Caught | None:
    """Of a head, fitted without the class to the other classes' pictures, by the same numbers.

    before_each: is called before each fit; it may raise
    Time: that of a fit for each class that is left out. None where there is no head without a class.
    """
    shares = []
    for k in _spread(pictures.n_classes):
        before_each()
        is_stranger = pictures.pictures.labels == k
        others = _without_class(pictures.some(~is_stranger), k)
        again = fitted_as(head, others) if is_stranger.any() and len(others.pictures) else None
        if again is not None:
            again = again.at(head.made_by["temperature"])
            shares.append(_share(again, pictures.some(is_stranger), others.class_features, threshold))
    return Caught(float(np.mean(shares)), len(shares)) if shares else None


def caught_by_class_features(pictures: Pictures, temperature: float, threshold: float) -> Caught | None:
    """Of words or a prompt, without the class's own features. None where there are no pictures."""
    labels = pictures.pictures.labels
    caught = np.empty(len(labels), bool)
    for rows, _, own, logits in pictures.blocks():
        logits[np.arange(len(own)), own] = -np.inf
        caught[rows] = are_none(temperature * logits, threshold)
    shares = [caught[labels == k].mean() for k in np.unique(labels)]
    return Caught(float(np.mean(shares)), len(shares)) if shares else None


def _share(head: Head, strangers: Pictures, class_features: Floats, threshold: float) -> float:
    n_caught = 0
    for _, features, _, _ in strangers.blocks():
        logits = head.logits(features, class_features, strangers.logit_scale)
        n_caught += int(are_none(logits, threshold).sum())
    return n_caught / len(strangers.pictures)


def _without_class(pictures: Pictures, k: int) -> Pictures:
    """The same pictures, where there is no class k."""
    labels = pictures.pictures.labels
    renumbered = LabelledFeatures(pictures.pictures.features, labels - (labels > k))
    return Pictures(renumbered, np.delete(pictures.class_features, k, axis=0), pictures.logit_scale)


def _spread(n_classes: int) -> Iterator[int]:
    """Up to MOST_CLASSES numbers of classes, evenly spread."""
    found: NDArray[np.int64] = np.linspace(0, n_classes - 1, min(n_classes, MOST_CLASSES)).round().astype(int)
    return map(int, found)
