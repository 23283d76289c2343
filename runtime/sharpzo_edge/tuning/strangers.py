"""What share of strangers is called none: each class is left out in turn, and its pictures are the strangers.

Other strangers may be caught more or less often: it depends on how strange they are. Costs no query.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..heads.fit import fitted_as
from ..heads.head import Head
from ..heads.leave_one_out import Pictures
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
        found = _caught_without(head, pictures, is_known, threshold)
        if found is not None:
            strangers = ~is_known[labels]
            caught[strangers] = found
            is_asked |= strangers
    return Caught.of(caught[is_asked], labels[is_asked])


def caught_by_class_features(pictures: Pictures, temperature: float, threshold: float) -> Caught | None:
    """Of words or a prompt, without the class's own features. None where there are no pictures."""
    caught = np.zeros(len(pictures.pictures), bool)
    for rows, _, labels, logits in pictures.blocks():
        logits[np.arange(len(labels)), labels] = -np.inf
        caught[rows] = are_none(temperature * logits, threshold)
    return Caught.of(caught, pictures.pictures.labels)


def _caught_without(
    head: Head, pictures: Pictures, is_known: NDArray[np.bool_], threshold: float
) -> NDArray[np.bool_] | None:
    """Whether each picture of the other classes is called none by a head of those of `is_known` (K,).

    None where there can be no such head.
    """
    strangers = pictures.some(~is_known[pictures.pictures.labels])
    others = pictures.some(is_known[pictures.pictures.labels])
    again = fitted_as(head, others) if len(others.pictures) else None
    if again is None:
        return None
    again = again.at(head.made_by["temperature"])
    caught = np.zeros(len(strangers.pictures), bool)
    for rows, features, _, _ in strangers.blocks():
        logits = again.logits(features, pictures.class_features, pictures.logit_scale)
        logits[:, ~is_known] = -np.inf
        caught[rows] = are_none(logits, threshold)
    return caught
