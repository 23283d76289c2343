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
from .leave_one_out import MOST_LEVERAGE, Pictures
from .regression import Penalised, Regression

KIND = "ridge"
ROUND_OFF = 1e-10  # below this v, all pictures count as equal
DECOMPOSITION = 5  # E x E doubles in use while Phi^T Phi is decomposed: itself, V, and what LAPACK works in
FITTED_CLASSES = 5  # K x E doubles in use later: two sums over pictures, and a head beside the best so far


@dataclass(frozen=True, eq=False, kw_only=True)
class Ridge(Regression):
    """A regression whose M is Phi^T Phi, and B is Phi^T.

    centre: (E,) m;  spread: sqrt(v)
    """

    PENALTIES, BASES, UNMEASURED = (8.0, 4.0, 2.0, 1.0, 0.5), (0.5, 0.2), (0.5, 0.5)

    centre: Doubles
    spread: float

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
        return cls(
            centre=centre,
            spread=spread,
            vectors=vectors,
            values=np.maximum(values, 0),
            targets=targets.T,
            words=words.T,
            unit=pictures.n_present / n,
        )

    def left_out(
        self, found: Penalised, rows: slice, features: Floats, labels: NDArray[np.int64], words: Floats
    ) -> Iterator[Doubles]:
        """Equation (3), for each base."""
        phi = standardised(features, self.centre, self.spread) @ self.vectors
        weighted = phi * found.inverse
        rest = (1 - np.minimum((phi * weighted).sum(axis=1), MOST_LEVERAGE))[:, np.newaxis]
        targets, fitted = weighted @ self.targets, weighted @ self.words
        for base in found.bases:
            # Y - (Y - base L - (targets - base fitted)) / rest, without an array for Y
            logits = (base * (words - fitted) + targets) / rest
            logits[np.arange(len(labels)), labels] += 1 - 1 / rest[:, 0]
            yield logits

    def head_of(self, coefficients: Doubles, base: float, made_by: dict[str, float]) -> Head:
        """Equation (2) as a linear function of features. It overwrites the coefficients."""
        W = coefficients
        bias = W[-1] - self.centre @ W[:-1] / self.spread
        W /= self.spread
        return Head(KIND, base, W[:-1].T.astype(np.float32), bias.astype(np.float32), made_by)


def standardised(features: Floats, centre: Doubles, spread: float) -> Doubles:
    """phi: (b, E) -> (b, E + 1)."""
    phi = np.ones((len(features), len(centre) + 1))
    np.divide(features - centre, spread, out=phi[:, :-1])
    return phi


def peak_bytes(n_classes: int, embed_dim: int) -> int:
    """The most memory in bytes while a head is fitted and chosen, features and their blocks aside."""
    width = embed_dim + 1
    decomposed, fitted = DECOMPOSITION * width, width + FITTED_CLASSES * n_classes
    return 8 * width * max(decomposed, fitted)
