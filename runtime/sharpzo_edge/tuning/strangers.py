"""What share of strangers is called none: each class is left out in turn, and its pictures are the strangers.

They look like the other classes more than most strangers do, so of others more may be caught. Costs no query.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..heads.fit import fitted_as
from ..heads.head import Head
from ..heads.leave_one_out import Pictures
from ..types import LabelledFeatures
from .known import are_none

MOST_FITS = 10  # of more classes, every tenth is left out together


@dataclass(frozen=True)
class Caught:
    """share: of strangers that are called none, every class alike;  classes: how many were left out."""

    share: float
    classes: int

    @classmethod
    def of(cls, caught: NDArray[np.bool_], labels: NDArray[np.int64]) -> Caught | None:
        """caught, labels: (N,) of pictures whose class was left out. None where there are none."""
        shares = [caught[labels == k].mean() for k in np.unique(labels)]
        return cls(float(np.mean(shares)), len(shares)) if shares else None


def caught_by_head(
    head: Head, pictures: Pictures, threshold: float, before_each: Callable[[], None]
) -> Caught | None:
    """Of a head, fitted by the same numbers to the pictures of the other classes.

    before_each: is called before each fit; it may raise
    Time: that of up to MOST_FITS fits. None where no head can be fitted to the others.
    """
    n, labels = pictures.n_classes, pictures.pictures.labels
    n_fits = min(n, MOST_FITS)
    caught, is_asked = np.zeros(len(labels), bool), np.zeros(len(labels), bool)
    for turn in range(n_fits):
        before_each()
        is_known = np.arange(n) % n_fits != turn
        others = _of_classes(pictures.some(is_known[labels]), is_known)
        again = fitted_as(head, others) if len(others.pictures) else None
        if again is not None:
            again = again.at(head.made_by["temperature"])
            strangers = ~is_known[labels]
            caught[strangers] = _are_caught(again, pictures.some(strangers), others, threshold)
            is_asked |= strangers
    return Caught.of(caught[is_asked], labels[is_asked])


def caught_by_class_features(pictures: Pictures, temperature: float, threshold: float) -> Caught | None:
    """Of words or a prompt, without the class's own features. None where there are no pictures."""
    caught = np.zeros(len(pictures.pictures), bool)
    for rows, _, labels, logits in pictures.blocks():
        logits[np.arange(len(labels)), labels] = -np.inf
        caught[rows] = are_none(temperature * logits, threshold)
    return Caught.of(caught, pictures.pictures.labels)


def _are_caught(head: Head, strangers: Pictures, known: Pictures, threshold: float) -> NDArray[np.bool_]:
    caught = np.zeros(len(strangers.pictures), bool)
    for rows, features, _, _ in strangers.blocks():
        logits = head.logits(features, known.class_features, known.logit_scale)
        caught[rows] = are_none(logits, threshold)
    return caught


def _of_classes(pictures: Pictures, which: NDArray[np.bool_]) -> Pictures:
    """Pictures of some of the K classes, where there are no others. which: (K,)"""
    numbers = np.cumsum(which) - 1
    renumbered = LabelledFeatures(pictures.pictures.features, numbers[pictures.pictures.labels])
    return Pictures(renumbered, pictures.class_features[which], pictures.logit_scale)
