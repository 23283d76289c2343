"""The best of many heads, by how well each labels pictures that were left out of its own fit.

Every candidate answers for every picture as if that picture were not among those it was fitted to. In closed
form this costs no more than the fit. The best has the highest accuracy, then the lowest loss, then the
smallest weight. Accuracy comes first: left-out answers are often too sure of themselves, right or wrong, and
that spoils the loss.

Every class weighs alike. A class of one picture has no say: left out, it is unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sharpzo_edge.search.losses import cross_entropies, logits_of, picture_block
from sharpzo_edge.types import Doubles, Floats, LabelledFeatures

from .head import Head

# By how much logits are multiplied, so that the scores mean something; the first wins among equals.
TEMPERATURES = tuple(float(t) for t in np.geomspace(0.03, 300, 25))
ENOUGH_COVERED = 0.5  # the least share of classes that must have a say


class Group(Protocol):
    """Candidates that are computed together, the smallest weight first."""

    @property
    def n_options(self) -> int: ...

    def left_out(self, features: Floats, labels: NDArray[np.int64], words: Floats) -> Iterator[Doubles]:
        """Logits (b, K) of each option for pictures of the fit, each as if it were not in it.

        features: (b, E);  labels: (b,);  words: (b, K) logits of the class features
        """

    def head(self, option: int) -> Head:
        """Fitted to all pictures."""


@dataclass(frozen=True, eq=False)
class Chosen:
    """The best head.

    accuracy: on left-out pictures, every class alike, a fraction
    margins:  (N,) of each picture, left out: the logit of its label less the largest other one, at the
              head's temperature
    """

    head: Head
    accuracy: float
    loss: float
    margins: Floats


@dataclass(frozen=True, eq=False)
class Pictures:
    """What candidates are judged on: all drawn pictures, with the logits of the words or of a prompt."""

    pictures: LabelledFeatures
    class_features: Floats
    logit_scale: float

    @property
    def n_classes(self) -> int:
        return len(self.class_features)

    @property
    def counts(self) -> NDArray[np.int64]:
        """(K,) pictures of each class."""
        return np.bincount(self.pictures.labels, minlength=self.n_classes)

    @property
    def covered(self) -> float:
        """The share of classes that have a say: two pictures or more."""
        return float((self.counts > 1).mean())

    @property
    def weights(self) -> Doubles:
        """(N,) of each picture; they sum to 1, and every class that has a say weighs alike."""
        counts = self.counts[self.pictures.labels]
        weights = np.where(counts > 1, 1 / counts, 0.0)
        return np.asarray(weights / max(weights.sum(), 1e-300))

    def blocks(self) -> Iterator[tuple[slice, Floats, NDArray[np.int64], Floats]]:
        """Yields rows, features (b, E), labels (b,), and the words' logits (b, K)."""
        start = 0
        for features, labels in self.pictures.blocks(picture_block(*self.class_features.shape)):
            words = logits_of(features, self.class_features, self.logit_scale)
            yield slice(start, start + len(labels)), features, labels, words
            start += len(labels)

    def words_accuracy(self) -> float:
        """Of the class features alone, every class alike. Nothing is left out: nothing was fitted."""
        counts, right = self.counts, np.zeros(self.n_classes)
        for _, _, labels, words in self.blocks():
            np.add.at(right, labels, words.argmax(axis=1) == labels)
        there = counts > 0
        return float((right[there] / counts[there]).mean())


def choose(pictures: Pictures, groups: Iterable[Group]) -> Chosen | None:
    """The best of all options of all groups; None without a group. Costs no query."""
    best: Chosen | None = None
    for group in groups:
        accuracies = _accuracies(pictures, group)
        top = accuracies.max()
        if best is not None and top < best.accuracy:
            continue
        tied = np.flatnonzero(accuracies == top)
        losses = _losses(pictures, group, tied)
        option, hottest = np.unravel_index(losses.argmin(), losses.shape)
        loss = float(losses[option, hottest])
        if best is None or (-top, loss) < (-best.accuracy, best.loss):
            temperature = TEMPERATURES[hottest]
            margins = _margins(pictures, group, int(tied[option])) * np.float32(temperature)
            head = group.head(int(tied[option])).at(temperature)
            best = Chosen(head, float(top), loss, margins)
    return best


def _accuracies(pictures: Pictures, group: Group) -> Doubles:
    """(options,) left-out accuracies."""
    found, weights = np.zeros(group.n_options), pictures.weights
    for rows, features, labels, words in pictures.blocks():
        for i, logits in enumerate(group.left_out(features, labels, words)):
            found[i] += weights[rows] @ (logits.argmax(axis=1) == labels)
    return found.round(12)  # so that equal ones are equal, in whatever order they were added up


def _losses(pictures: Pictures, group: Group, options: NDArray[np.int64]) -> Doubles:
    """(options, temperatures) left-out losses."""
    found, weights = np.zeros((len(options), len(TEMPERATURES))), pictures.weights
    place = {int(option): i for i, option in enumerate(options)}
    for rows, features, labels, words in pictures.blocks():
        for option, logits in enumerate(group.left_out(features, labels, words)):
            if option in place:
                for j, temperature in enumerate(TEMPERATURES):
                    losses = cross_entropies(np.asarray(temperature * logits, np.float32), labels)
                    found[place[option], j] += weights[rows] @ losses
    return found


def _margins(pictures: Pictures, group: Group, option: int) -> Floats:
    margins = np.empty(len(pictures.pictures), np.float32)
    for rows, features, labels, words in pictures.blocks():
        for number, logits in enumerate(group.left_out(features, labels, words)):
            if number == option:
                margins[rows] = margin(logits, labels)
    return margins


def margin(logits: Doubles, labels: NDArray[np.int64]) -> Doubles:
    """The logit of the label less the largest other one: (N, K), (N,) -> (N,)."""
    rows, others = np.arange(len(labels)), logits.copy()
    others[rows, labels] = -np.inf
    return np.asarray(logits[rows, labels] - others.max(axis=1))
