"""The best of many heads, by how well each labels pictures that were left out of its own fit.

Every candidate answers for every picture as if that picture were not among those it was fitted to. In closed
form this costs no more than the fit. The best has the highest accuracy, then the lowest loss, then the
smallest weight. Accuracy comes first: left-out answers are often too sure of themselves, right or wrong, and
that spoils the loss.

Every class weighs alike. A class of one picture has no say: left out, it is unknown.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..search.losses import cross_entropies, logits_of
from ..types import Doubles, Floats, LabelledFeatures, Picked
from .head import Head

# By how much logits are multiplied, so that the scores mean something; the first wins among equals.
TEMPERATURES = tuple(float(t) for t in np.geomspace(0.03, 300, 25))
# Of a picture in its own fit: it is 1 where nothing else lies in its direction.
MOST_LEVERAGE = 1 - 1e-9
BLOCK_BYTES = 2 << 20  # for a block of pictures, and all that is computed of it at one time
BLOCK_ROWS_OF = 6, 10  # arrays of doubles (b, E) and (b, K) in use for a block


class Group(Protocol):
    """Candidates that are computed together, the smallest weight first."""

    @property
    def n_options(self) -> int: ...

    def left_out(
        self, rows: slice, features: Floats, labels: NDArray[np.int64], words: Floats
    ) -> Iterator[Doubles]:
        """Logits (b, K) of each option for pictures of the fit, each as if it were not in it.

        rows: of these pictures, among all;  features: (b, E);  labels: (b,);  words: (b, K) logits of the
        class features
        """

    def head(self, option: int) -> Head:
        """Fitted to all pictures."""


@dataclass(frozen=True, eq=False)
class LeftOut:
    """How a head labels N pictures, each left out of its fit, (N,) each.

    answers: the class that each is given;  scores: the probability of that class
    margins: the logit of its label less the largest other one
    losses:  its cross-entropy;  tops: the largest of its logits
    """

    answers: NDArray[np.int64]
    scores: Doubles
    margins: Doubles
    losses: Doubles
    tops: Doubles


@dataclass(frozen=True, eq=False)
class Chosen:
    """The best head.

    accuracy: on pictures that were left out of its fit, every class alike, a fraction
    left_out: how it labels them
    Both are None of a head that was not chosen by leave-one-out, and left_out of one that was chosen by sums.
    """

    head: Head
    accuracy: float | None = None
    left_out: LeftOut | None = None


@dataclass(frozen=True, eq=False)
class Pictures:
    """What candidates are judged on: all drawn pictures, with the class features of the words or a prompt."""

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
    def n_present(self) -> int:
        """Classes that have pictures."""
        return int((self.counts > 0).sum())

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

    def some(self, which: NDArray[np.bool_]) -> Pictures:
        """Those of `which` (N,) alone."""
        rows = np.flatnonzero(which)
        picked = LabelledFeatures(Picked(self.pictures.features, rows), self.pictures.labels[rows])
        return Pictures(picked, self.class_features, self.logit_scale)

    def blocks(self) -> Iterator[tuple[slice, Floats, NDArray[np.int64], Floats]]:
        """Yields rows, features (b, E), labels (b,), and the logits of the class features (b, K)."""
        n_classes, embed_dim = self.class_features.shape
        of_width, of_classes = BLOCK_ROWS_OF
        n_rows = max(1, BLOCK_BYTES // (8 * (of_width * embed_dim + of_classes * n_classes)))
        start = 0
        for features, labels in self.pictures.blocks(n_rows):
            words = logits_of(features, self.class_features, self.logit_scale)
            yield slice(start, start + len(labels)), features, labels, words
            start += len(labels)


def choose(pictures: Pictures, groups: Iterable[Group]) -> Chosen | None:
    """The best of all options of all groups; None without a group. Costs no query."""
    chosen: Chosen | None = None
    least = (math.inf, math.inf)
    for group in groups:
        accuracies = _accuracies(pictures, group)
        top = float(accuracies.max())
        if -top <= least[0]:
            tied = np.flatnonzero(accuracies == top)
            losses = _losses(pictures, group, tied)
            option, hottest = np.unravel_index(losses.argmin(), losses.shape)
            found = -top, float(losses[option, hottest])
            if found < least:
                least, number, temperature = found, int(tied[option]), TEMPERATURES[hottest]
                head = group.head(number).at(temperature)
                chosen = Chosen(head, top, left_out_by(pictures, group, number, temperature))
        del group  # it is large, and the next one is made now
    return chosen


def _accuracies(pictures: Pictures, group: Group) -> Doubles:
    """(options,) left-out accuracies."""
    found, weights = np.zeros(group.n_options), pictures.weights
    for rows, features, labels, words in pictures.blocks():
        for i, logits in enumerate(group.left_out(rows, features, labels, words)):
            found[i] += weights[rows] @ (logits.argmax(axis=1) == labels)
    return found.round(12)  # so that equal ones are equal, in whatever order they were added up


def _losses(pictures: Pictures, group: Group, options: NDArray[np.int64]) -> Doubles:
    """(options, temperatures) left-out losses."""
    found, weights = np.zeros((len(options), len(TEMPERATURES))), pictures.weights
    place = {int(option): i for i, option in enumerate(options)}
    for rows, features, labels, words in pictures.blocks():
        for option, logits in enumerate(group.left_out(rows, features, labels, words)):
            if option in place:
                for j, temperature in enumerate(TEMPERATURES):
                    losses = cross_entropies(np.asarray(temperature * logits, np.float32), labels)
                    found[place[option], j] += weights[rows] @ losses
    return found


def left_out_by(pictures: Pictures, group: Group, option: int, temperature: float) -> LeftOut:
    """How an option of a group labels pictures of its fit, its logits times `temperature`."""
    n = len(pictures.pictures)
    found = LeftOut(np.empty(n, np.int64), *(np.empty(n) for _ in range(4)))
    for rows, features, labels, words in pictures.blocks():
        for number, logits in enumerate(group.left_out(rows, features, labels, words)):
            if number == option:
                logits *= temperature
                found.answers[rows], found.margins[rows] = logits.argmax(axis=1), _margin(logits, labels)
                single = np.asarray(logits, np.float32)
                found.losses[rows] = cross_entropies(single, labels)
                found.scores[rows] = np.exp(-cross_entropies(single, found.answers[rows]))
                found.tops[rows] = single.max(axis=1)
    return found


def _margin(logits: Doubles, labels: NDArray[np.int64]) -> Doubles:
    """The logit of the label less the largest other one: (N, K), (N,) -> (N,)."""
    rows, others = np.arange(len(labels)), logits.copy()
    others[rows, labels] = -np.inf
    return np.asarray(logits[rows, labels] - others.max(axis=1))
