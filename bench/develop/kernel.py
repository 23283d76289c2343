"""The kernel head, ProKeR (arXiv 2501.11175): ridge regression, by a kernel, of what the words leave over.

k(x, y) = exp(-sharpness (1 - x . y) / mean distance)
C       = (k(X, X) + a I)^-1 (Y - base L(X)),  a = penalty K / N
f(x)    = base L(x) + k(x, X) C
f_n     = Y_n - C_n / [(k(X, X) + a I)^-1]_nn            left out
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sharpzo_edge.types import Doubles, Floats

SHARPNESSES, PENALTIES, BASE = (1.0, 0.5), (2.0, 1.0, 0.5), 0.2


@dataclass(frozen=True, eq=False)
class Kernel:
    """One kernel head. pictures: (N, E);  coefficients: (N, K);  left_out: (N, K) answers"""

    pictures: Doubles
    scale: float
    coefficients: Doubles
    left_out: Doubles

    def logits(self, features: Floats, words: Floats) -> Doubles:
        """features (N, E), and the logits of the words there (N, K) -> (N, K)."""
        k = np.exp(-self.scale * (1 - features @ self.pictures.T))
        return np.asarray(BASE * words + k @ self.coefficients)


def kernels(features: Floats, labels: NDArray[np.int64], words: Floats) -> Iterator[Kernel]:
    """All candidates, for the pictures that they are fitted to: (N, E), (N,), and logits (N, K)."""
    X = features.astype(np.float64)
    n, n_classes = words.shape
    onehot = np.eye(n_classes)[labels]
    distance = float((1 - X @ X.T).sum() / (n * (n - 1)))
    for sharpness in SHARPNESSES:
        scale = sharpness / distance
        values, vectors = np.linalg.eigh(np.exp(-scale * (1 - X @ X.T)))
        for penalty in PENALTIES:
            inverse = 1 / (np.maximum(values, 0) + penalty * n_classes / n)
            C = vectors @ (inverse[:, np.newaxis] * (vectors.T @ (onehot - BASE * words)))
            yield Kernel(X, scale, C, onehot - C / ((vectors**2) @ inverse)[:, np.newaxis])
