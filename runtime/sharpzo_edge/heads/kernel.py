"""The kernel head: ridge regression, by a kernel, of what the words leave over (ProKeR, arXiv 2501.11175).

    k(x, y) = exp(-(1 - x . y) / m)      m: mean of 1 - x . y over pairs of pictures
    C       = (k(X, X) + a I)^-1 (Y - base L(X)),  a = penalty K / N                                      (1)
              Y one-hot, L: logits of the class features
    f(x)    = base L(x) + k(x, X) C                                                                       (2)

Leaving picture n out, with m and a kept:

    f_n     = Y_n - C_n / [(k(X, X) + a I)^-1]_nn                                                         (3)

k(X, X) is written once in its eigenvectors V, where the inverse is diagonal. It takes N x N numbers, and the
head keeps the features of every picture: so it is for up to a thousand pictures or so.
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
from .regression import Penalised, Regression

KIND = "kernel"
MOST_BYTES = 32 << 20  # with more pictures or classes there is no such head
DECOMPOSITION = 5  # N x N doubles in use while k(X, X) is decomposed: itself, V, and what LAPACK works in
FITTED_CLASSES = 5  # N x K doubles in use later: two sums, and a head beside the best one so far
ROUND_OFF = 1e-6  # below this m, all pictures count as equal: lengths are 1 to 1e-7 only
SMALLEST = 1e-12  # of the inverse's diagonal


@dataclass(frozen=True, eq=False, kw_only=True)
class Kernel(Regression):
    """A regression whose M is k(X, X), and B is 1.

    features: (N, E) float32, X
    scale:    1 / m
    """

    PENALTIES, BASES, UNMEASURED = (2.0, 1.0, 0.5), (0.5, 0.2), (2.0, 0.5)

    features: Floats
    scale: float

    @classmethod
    def of(cls, pictures: Pictures) -> Self | None:
        """None where all pictures are equal, or where it would take too much memory.

        Time: N^3 + N^2 (E + K). Memory: peak_bytes.
        """
        n, n_classes = len(pictures.pictures), pictures.n_classes
        if n < 2 or not fits(n_classes, pictures.class_features.shape[1], n):
            return None
        X = np.ascontiguousarray(pictures.pictures.features[:n])
        distances = 1 - X.astype(np.float64) @ X.T.astype(np.float64)
        mean = float((distances.sum() - np.trace(distances)) / (n * (n - 1)))
        if not mean > ROUND_OFF:
            return None
        distances *= -1 / mean
        np.exp(distances, out=distances)
        values, vectors = np.linalg.eigh(distances)
        del distances
        targets, words = np.zeros((n, n_classes)), np.zeros((n, n_classes))
        for rows, _, labels, logits in pictures.blocks():
            words += vectors[rows].T @ logits
            np.add.at(targets.T, labels, vectors[rows])
        return cls(
            features=X,
            scale=1 / mean,
            vectors=vectors,
            values=np.maximum(values, 0),
            targets=targets,
            words=words,
            unit=pictures.n_present / n,
        )

    def left_out(
        self, found: Penalised, rows: slice, features: Floats, labels: NDArray[np.int64], words: Floats
    ) -> Iterator[Doubles]:
        """Equation (3), for each base."""
        vectors = self.vectors[rows]
        weighted = vectors * found.inverse
        targets, fitted = weighted @ self.targets, weighted @ self.words
        rest = np.maximum((vectors * weighted).sum(axis=1), SMALLEST)[:, np.newaxis]
        for base in found.bases:
            logits = (base * fitted - targets) / rest
            logits[np.arange(len(labels)), labels] += 1
            yield logits

    def head_of(self, coefficients: Doubles, base: float, made_by: dict[str, float]) -> Head:
        """Equation (2)."""
        weights = np.ascontiguousarray(coefficients.T, np.float32)
        numbers = {**made_by, "scale": self.scale}
        return Head(KIND, base, weights, np.zeros(len(weights), np.float32), numbers, self.features)


def fits(n_classes: int, embed_dim: int, n_pictures: int) -> bool:
    """Whether there is such a head for so many pictures."""
    return _bytes(n_classes, embed_dim, n_pictures) <= MOST_BYTES


def peak_bytes(n_classes: int, embed_dim: int, n_pictures: int) -> int:
    """The most memory in bytes while a head is fitted and chosen; 0 where there is none."""
    found = _bytes(n_classes, embed_dim, n_pictures)
    return found if found <= MOST_BYTES else 0


def _bytes(n_classes: int, embed_dim: int, n_pictures: int) -> int:
    decomposed, fitted = DECOMPOSITION * n_pictures, 2 * n_pictures + FITTED_CLASSES * n_classes
    features = 3 * embed_dim  # in single and in double precision
    return 8 * n_pictures * (max(decomposed, fitted) + features)
