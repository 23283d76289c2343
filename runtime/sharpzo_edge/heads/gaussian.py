"""The Gaussian head: each class is a Gaussian with a mean of its own, and all share one precision.

(Wang et al., ICLR 2024, arXiv 2402.04087. The shrinkage is free here, and 1 there.)

    mu_k   = mean of the class's features                            (E,)
    S      = sum_n (x_n - mu_y)(x_n - mu_y)^T                        scatter within the classes   (E, E)
    P      = E (S + a I)^-1,  a = shrinkage tr(S) / (N - 1)          precision                            (1)
    z_k(x) = x . P mu_k - mu_k . P mu_k / 2                          all classes equally likely           (2)

Leaving picture n of class y out, with n_y pictures in that class, changes two things, a being kept:

    mu_y   -> mu_y - d / (n_y - 1),  d = x_n - mu_y                                                       (3)
    S      -> S - c d d^T,  c = n_y / (n_y - 1)
    S^-1   -> A + g A d d^T A,  A = (S + a I)^-1,  g = c / (1 - c d.Ad)     Sherman and Morrison          (4)

So all left-out z cost what one fit costs. S is written once in its eigenvectors V, where A is diagonal.
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

KIND = "gda"
SHRINKAGES = (3.0, 1.0, 0.3, 0.1)
WEIGHTS = (0.1, 0.3, 1.0, 3.0)
UNMEASURED_SHRINKAGE, UNMEASURED_WEIGHT = 1.0, 0.1
# Below this mean squared distance of features from their class's mean, the pictures count as equal.
ROUND_OFF = 1e-10
DECOMPOSITION = 5  # E x E doubles in use while S is decomposed: S, V, and what LAPACK works in
FITTED_CLASSES = 4  # K x E doubles in use later: means, A times them, and a head beside the best one so far


@dataclass(frozen=True, eq=False)
class Gaussian:
    """What all shrinkages share.

    counts:  (K,) pictures of each class, one or more
    means:   (K, E) mu V, in S's eigenvectors
    vectors: (E, E) V;  values: (E,) eigenvalues of S
    unit:    tr(S) / (N - 1)
    """

    counts: NDArray[np.int64]
    means: Doubles
    vectors: Doubles
    values: Doubles
    unit: float

    @classmethod
    def of(cls, pictures: Pictures) -> Self | None:
        """None where no two pictures of a class differ. Time: E^3 + N E^2. Memory: peak_bytes."""
        n, counts, embed_dim = len(pictures.pictures), pictures.counts, pictures.class_features.shape[1]
        scatter = np.zeros((embed_dim, embed_dim))
        means = _means(pictures, np.eye(embed_dim))
        for _, features, labels, _ in pictures.blocks():
            X = features - means[labels]
            scatter += X.T @ X
        del means  # the most memory is taken while S is decomposed
        trace = float(np.trace(scatter))
        if not trace > ROUND_OFF * n:
            return None
        values, vectors = np.linalg.eigh(scatter)
        del scatter
        return cls(counts, _means(pictures, vectors), vectors, np.maximum(values, 0), trace / (n - 1))

    def unmeasured(self) -> Head:
        """Where too few classes have two pictures for a choice."""
        return self.at(UNMEASURED_SHRINKAGE, (UNMEASURED_WEIGHT,)).head(0)

    def groups(self) -> Iterator[Shrunk]:
        """All candidates."""
        return map(self.at, SHRINKAGES)

    def at(self, shrinkage: float, weights: tuple[float, ...] = WEIGHTS) -> Shrunk:
        """The candidates of one shrinkage."""
        A = 1 / (self.values + shrinkage * self.unit)
        weighted = self.means * A
        return Shrunk(self, shrinkage, weights, A, weighted, weighted @ self.means.T)


def _means(pictures: Pictures, vectors: Doubles) -> Doubles:
    """The mean of each class, in the basis of `vectors` (E, E): (K, E)."""
    means = np.zeros((pictures.n_classes, len(vectors)))
    for _, features, labels, _ in pictures.blocks():
        np.add.at(means, labels, features.astype(np.float64) @ vectors)
    means /= np.maximum(pictures.counts, 1)[:, np.newaxis]
    return means


@dataclass(frozen=True, eq=False)
class Shrunk:
    """The candidates of one shrinkage, one for each weight.

    inverse:  (E,) A in S's eigenvectors;  weighted: (K, E) means times A
    between:  (K, K) mu_j . A mu_k
    """

    gaussian: Gaussian
    shrinkage: float
    weights: tuple[float, ...]
    inverse: Doubles
    weighted: Doubles
    between: Doubles

    @property
    def n_options(self) -> int:
        return len(self.weights)

    def left_out(
        self, rows: slice, features: Floats, labels: NDArray[np.int64], words: Floats
    ) -> Iterator[Doubles]:
        """The words' logits and z, times each weight."""
        z = self.z_left_out(features, labels)
        for weight in self.weights:
            yield words + weight * z

    def head(self, option: int) -> Head:
        """Equations (1) and (2) as a linear function of features."""
        weight = self.weights[option]
        factor = weight * self._scale
        weights = self.weighted @ self.gaussian.vectors.T
        weights *= factor
        bias = -0.5 * factor * self.between.diagonal()
        made_by = {"shrinkage": self.shrinkage, "weight": weight}
        return Head(KIND, 1.0, weights.astype(np.float32), bias.astype(np.float32), made_by)

    def z_left_out(self, features: Floats, labels: NDArray[np.int64]) -> Doubles:
        """z of pictures that are among the fitted ones, each as if it were not: (b, K) float64.

        A class of one picture stays as it is: without it, it would be unknown.
        features: (b, E);  labels: (b,)
        """
        rows, own = np.arange(len(labels)), self.between.diagonal()
        X = features.astype(np.float64) @ self.gaussian.vectors
        z = X @ self.weighted.T  # x . A mu_k
        dm = z - self.between[labels]  # d . A mu_k
        xm = z[rows, labels]
        xd = (X * X * self.inverse).sum(axis=1) - xm  # x . A d
        dd = xd - xm + own[labels]  # d . A d
        n = self.gaussian.counts[labels].astype(np.float64)
        shift = np.where(n > 1, 1 / np.maximum(n - 1, 1), 0)
        c = n * shift
        g = c / (1 - np.minimum(c * dd, MOST_LEVERAGE))  # (4)
        # The picture's own class, whose mean m moves as well (3): d . A m, x . A m, m . A m
        dy, xy = dm[rows, labels] - shift * dd, xm - shift * xd
        my = own[labels] - 2 * shift * dm[rows, labels] + shift**2 * dd
        z += (g * xd)[:, np.newaxis] * dm
        z -= 0.5 * (own + g[:, np.newaxis] * dm**2)
        z[rows, labels] = xy + g * xd * dy - 0.5 * (my + g * dy**2)
        return np.asarray(self._scale * z, np.float64)

    @property
    def _scale(self) -> int:
        return len(self.inverse)


def peak_bytes(n_classes: int, embed_dim: int) -> int:
    """The most memory in bytes while a head is fitted and chosen, features and their blocks aside."""
    decomposed = DECOMPOSITION * embed_dim**2
    fitted = embed_dim**2 + FITTED_CLASSES * embed_dim * n_classes + n_classes**2
    return 8 * max(decomposed, fitted)
