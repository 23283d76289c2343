"""GDA (Wang et al., ICLR 2024, arXiv 2402.04087): each class is a Gaussian, and all share one precision.

S      = sum_n (x_n - mu_y)(x_n - mu_y)^T            mu_k: the class's mean
A      = (S + tr(S) / (N - 1) I)^-1                  the published shrinkage
z_k(x) = E (x . A mu_k - mu_k . A mu_k / 2)          all classes equally likely
logits = s x . T_k + weight z_k(x)

z is fitted to the shots and the validation pictures. The weight is the best by leave-one-out on them; where
that has too little to judge, it is 1. (By validation pictures alone it was worse: they are few.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpzo_edge.errors import UsageError
from sharpzo_edge.types import Doubles, Floats

from .heads import FITTED_TO, all_pictures, judged, moment_of_head, words_of, worth
from .method import Moment, Problem

WEIGHTS = (*(a * 10.0**b for b in range(-4, 2) for a in (1, 3)), 100.0)  # its authors' range
UNMEASURED = 1.0
SETTINGS = {"weights": list(WEIGHTS), "chosen_by": "leave-one-out", **FITTED_TO}
ROUND_OFF = 1e-10  # below this mean squared distance from their class's mean, pictures count as equal


@dataclass(frozen=True, eq=False)
class Gaussians:
    """means: (K, E);  counts: (K,) pictures of each class;  inverse: (E, E) A"""

    means: Doubles
    counts: NDArray[np.int64]
    inverse: Doubles

    def z(self, features: Floats | Doubles) -> Doubles:
        """(N, E) -> (N, K)."""
        directions = self.means @ self.inverse
        scores = features @ directions.T - 0.5 * (self.means * directions).sum(axis=1)
        return np.asarray(len(self.inverse) * scores)

    def z_left_out(self, X: Doubles, labels: NDArray[np.int64]) -> Doubles:
        """z of pictures that are among the fitted ones, each as if it were not, with the same shrinkage.

        Without x of class y, the mean mu_y moves by -d / (n_y - 1), d = x - mu_y, and S loses
        n_y / (n_y - 1) d d^T: a change of rank one, so A changes by Sherman and Morrison's formula. A class
        of one picture keeps it.
        """
        found = np.empty((len(X), len(self.means)))
        directions = self.means @ self.inverse
        for n, (x, y) in enumerate(zip(X, labels, strict=True)):
            others = max(int(self.counts[y]) - 1, 1)
            d = x - self.means[y]
            Ad = self.inverse @ d
            means, AM = self.means.copy(), directions.copy()
            means[y] -= d / others
            AM[y] -= Ad / others
            share = (others + 1) / others
            growth = share / (1 - share * d @ Ad)
            along = means @ Ad
            found[n] = AM @ x + growth * (x @ Ad) * along
            found[n] -= 0.5 * ((means * AM).sum(axis=1) + growth * along**2)
        return len(self.inverse) * found


def fitted(X: Doubles, labels: NDArray[np.int64], n_classes: int) -> Gaussians | None:
    """To features (N, E) of all classes; None where no two pictures of a class differ."""
    counts = np.bincount(labels, minlength=n_classes)
    means = np.zeros((n_classes, X.shape[1]))
    np.add.at(means, labels, X)
    means /= counts[:, np.newaxis]
    rest = X - means[labels]
    scatter = rest.T @ rest
    trace = float(np.trace(scatter))
    if not trace > ROUND_OFF * len(X):
        return None
    inverse: Doubles = np.linalg.inv(scatter + trace / (len(X) - 1) * np.eye(len(scatter))).astype(np.float64)
    return Gaussians(means, counts, inverse)


def gda(problem: Problem, max_queries: int, settings: Mapping[str, Any]) -> Iterator[Moment]:
    """Costs the one query of T. Raises UsageError where no two pictures of a class differ."""
    n_classes = len(problem.class_names)
    X, labels = all_pictures(problem)
    found = fitted(X, labels, n_classes)
    if found is None:
        raise UsageError(f"{len(X)} pictures, and no two of one class differ. GDA takes two different ones")
    zero_shot = words_of(problem)
    weight = UNMEASURED
    if (of := judged(labels, n_classes)) is not None:
        weight = best_weight(zero_shot, X[of], found.z_left_out(X[of], labels[of]), labels[of])
    yield moment_of_head(problem, lambda F: zero_shot.logits(F) + weight * found.z(F), zero_shot.queries)


def best_weight(zero_shot: Moment, X: Doubles, z: Doubles, labels: NDArray[np.int64]) -> float:
    """For pictures (N, E), z (N, K) of them, and labels (N,); the smallest of equal ones."""
    words = zero_shot.logits(X.astype(np.float32))
    return max(WEIGHTS, key=lambda weight: worth(words + weight * z, labels))
