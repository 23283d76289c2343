"""The ridge head: linear regression, by image features, of what the words leave over.

It takes the place of the kernel head where there are too many pictures for that one.

    phi(x) = [(x - m) / sqrt(v), 1]     m, v: mean of all features, and mean squared distance from it
    R      = Y - base L(X)              Y one-hot, L: logits of the class features
    W      = (Phi^T Phi + a I)^-1 Phi^T R,  a = penalty K / N                                             (1)
    f(x)   = base L(x) + phi(x) W                                                                         (2)

Leaving picture n out, with m, v and a kept:

    f_n    = Y_n - (R_n - phi_n W) / (1 - h_n),  h_n = phi_n (Phi^T Phi + a I)^-1 phi_n^T                 (3)

Phi^T Phi is written once in its eigenvectors V, where the inverse is diagonal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..types import Doubles, Floats
from .head import Head
from .leave_one_out import Pictures

KIND = "ridge"
PENALTIES = (8.0, 4.0, 2.0, 1.0, 0.5)
BASES = (0.5, 0.2)
UNMEASURED_PENALTY, UNMEASURED_BASE = 0.5, 0.5  # where too few classes have two pictures for a choice

ROUND_OFF = 1e-10  # below this v, all pictures count as equal
DECOMPOSITION = 5  # E x E doubles in use while Phi^T Phi is decomposed: itself, V, and what LAPACK works in
FITTED_CLASSES = (
    5  # K x E doubles in use later: two sums over pictures, and a head beside the best one so far
)
MOST_LEVERAGE = 1 - 1e-9


@dataclass(frozen=True, eq=False)
class Ridge:
    """What all penalties and bases share.

    centre:  (E,) m;  spread: sqrt(v)
    vectors, values: of Phi^T Phi, (E + 1, E + 1) and (E + 1,)
    targets, words:  V^T Phi^T Y and V^T Phi^T L(X), (E + 1, K)
    unit:    K / N
    """

    centre: Doubles
    spread: float
    vectors: Doubles
    values: Doubles
    targets: Doubles
    words: Doubles
    unit: float

    @classmethod
    def of(cls, pictures: Pictures) -> Self | None:
        """None where all pictures are equal. Time: E^3 + N E (E + K). Memory: peak_bytes."""
        n, embed_dim = len(pictures.pictures), pictures.class_features.shape[1]
        centre, squares = np.zeros(embed_dim), 0.0
        for _, features, _, _ in pictures.blocks():
            centre += features.sum(axis=0, dtype=np.float64)
        centre /= n
        for _, features, _, _ in pictures.blocks():
            squares += float(np.square(features - centre).sum())
        if not squares > ROUND_OFF * n:
            return None
        spread = float(np.sqrt(squares / n))
        gram = np.zeros((embed_dim + 1, embed_dim + 1))
        for _, features, _, _ in pictures.blocks():
            phi = standardised(features, centre, spread)
            gram += phi.T @ phi
        values, vectors = np.linalg.eigh(gram)
        del gram
        targets, words = (np.zeros((pictures.n_classes, embed_dim + 1)) for _ in range(2))
        for _, features, labels, logits in pictures.blocks():
            phi = standardised(features, centre, spread) @ vectors
            np.add.at(targets, labels, phi)
            words += logits.T @ phi
        unit = pictures.n_classes / n
        return cls(centre, spread, vectors, np.maximum(values, 0), targets.T, words.T, unit)

    def at(self, penalty: float, bases: tuple[float, ...] = BASES) -> Penalised:
        """The candidates of one penalty."""
        return Penalised(self, penalty, bases)

    def unmeasured(self) -> Head:
        """Where too few classes have two pictures for a choice."""
        return self.at(UNMEASURED_PENALTY, (UNMEASURED_BASE,)).head(0)

    def groups(self) -> Iterator[Penalised]:
        """All candidates."""
        return map(self.at, PENALTIES)


def standardised(features: Floats, centre: Doubles, spread: float) -> Doubles:
    """phi: (b, E) -> (b, E + 1)."""
    phi = np.ones((len(features), len(centre) + 1))
    np.divide(features - centre, spread, out=phi[:, :-1])
    return phi


@dataclass(frozen=True, eq=False)
class Penalised:
    """The candidates of one penalty, one for each base."""

    ridge: Ridge
    penalty: float
    bases: tuple[float, ...]

    @property
    def n_options(self) -> int:
        return len(self.bases)

    def left_out(
        self, rows: slice, features: Floats, labels: NDArray[np.int64], words: Floats
    ) -> Iterator[Doubles]:
        """Equation (3), for each base."""
        own, inverse = self.ridge, self._inverse
        phi = standardised(features, own.centre, own.spread) @ own.vectors
        weighted = phi * inverse
        rest = (1 - np.minimum((phi * weighted).sum(axis=1), MOST_LEVERAGE))[:, np.newaxis]
        targets, fitted = weighted @ own.targets, weighted @ own.words
        each = np.arange(len(labels))
        for base in self.bases:
            # Y - (Y - base L - (targets - base fitted)) / rest, without an array for Y
            logits = (base * (words - fitted) + targets) / rest
            logits[each, labels] += 1 - 1 / rest[:, 0]
            yield logits

    def head(self, option: int) -> Head:
        """Equation (2) as a linear function of features."""
        own, base = self.ridge, self.bases[option]
        W = own.targets - base * own.words
        W *= self._inverse[:, np.newaxis]
        W = own.vectors @ W
        bias = W[-1] - own.centre @ W[:-1] / own.spread
        W /= own.spread
        made_by = {"penalty": self.penalty, "base": base}
        return Head(KIND, base, W[:-1].T.astype(np.float32), bias.astype(np.float32), made_by)

    @property
    def _inverse(self) -> Doubles:
        inverse: Doubles = 1 / (self.ridge.values + self.penalty * self.ridge.unit)
        return inverse


def peak_bytes(n_classes: int, embed_dim: int) -> int:
    """The most memory in bytes while a head is fitted and chosen, features and their blocks aside."""
    width = embed_dim + 1
    decomposed, fitted = DECOMPOSITION * width, width + FITTED_CLASSES * n_classes
    return 8 * width * max(decomposed, fitted)
