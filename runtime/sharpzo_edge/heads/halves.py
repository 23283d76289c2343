"""Whether more pictures are likely to help: how well a head of half of the pictures labels the others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .fit import fitted_as
from .head import Head
from .leave_one_out import Pictures


def accuracy_by_halves(head: Head, pictures: Pictures) -> float | None:
    """Accuracy on all pictures, each labelled by a head of the half that it is not in; every class alike.

    The pictures of every class are dealt to two halves in turn. A class of one picture is in both halves, and
    has no say. The kind of head and its numbers stay. None where a half can have no head. Costs no query.
    """
    place, alone = _place_in_class(pictures.pictures.labels), pictures.counts[pictures.pictures.labels] < 2
    accuracy, weights = 0.0, pictures.weights
    for half in (0, 1):
        is_in = (place % 2 == half) | alone
        again = fitted_as(head, pictures.some(is_in))
        if again is None:
            return None
        others = pictures.some(~is_in)
        right = np.zeros(len(others.pictures), bool)
        for rows, features, labels, _ in others.blocks():
            logits = again.logits(features, pictures.class_features, pictures.logit_scale)
            right[rows] = logits.argmax(axis=1) == labels
        accuracy += float(weights[~is_in] @ right)
    return accuracy


def _place_in_class(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of each picture, how many of its class come before it: (N,)."""
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], labels[order])
    place = np.empty(len(labels), np.int64)
    place[order] = np.arange(len(labels)) - starts
    return place
