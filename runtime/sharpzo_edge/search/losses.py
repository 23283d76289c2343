"""Losses of class features T on pictures whose image features are known.

Only T(w) needs the text tower. The loss of a known T is arithmetic and costs no query:

    z_n(T)  = s T x_n                            logits of picture n; s is the model's logit scale
    L(T)    = mean_n [ lse(z_n) - z_n[y_n] ]     cross-entropy; lse is log-sum-exp, y_n the picture's class
    L_s(T)  = mean_n [ lse(z_n) - t_n . z_n ]    the same with label smoothing: t_n is
                                                 (1 - smoothing) one-hot(y_n) + smoothing / K

Pictures are read in blocks, so they need not all be in memory. The size of a block changes the results by
round-off only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..types import CLASS_BLOCK_BYTES, Doubles, Floats, Halves, LabelledFeatures, class_blocks
from .estimators import directional_derivatives

SCORING_BYTES = 12 << 20  # for a block of features, and its logits in three precisions
BLOCK_BYTES = 6 << 20  # for a block of pictures: features, logits, derivatives


class Loss(Protocol):
    """What the optimisers ask of a loss of class features. See FeatureLoss, which has the pictures itself."""

    def values(self, class_features: Floats | Doubles, /) -> Doubles:
        """Class features (B, K, E) -> their losses (B,)."""

    def derivatives(self, class_features: Floats, columns: Floats | Halves, /) -> Doubles:
        """At class features (K, E), along columns (n, K, E): (n,)."""


class FeatureLoss:
    """Cross-entropy with label smoothing on fixed pictures, as a function of class features.

    pictures:    features (N, E) of length one, at least one picture; only slices of rows are read
    logit_scale: s, the model's own
    smoothing:   share of the target that is spread over all classes, in [0, 1)
    block_bytes: about what a block of pictures takes in memory

    >>> pictures = LabelledFeatures(np.eye(2, dtype=np.float32), np.array([0, 1]))
    >>> loss = FeatureLoss(pictures, logit_scale=1.0)
    >>> bool(np.isclose(loss.values(np.eye(2)[np.newaxis])[0], np.log(1 + np.exp(-1))))
    True
    """

    def __init__(
        self,
        pictures: LabelledFeatures,
        logit_scale: float,
        smoothing: float = 0.0,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        self.pictures = pictures
        self.logit_scale = float(logit_scale)
        self._smoothing = smoothing
        self._block_bytes = block_bytes

    def values(self, class_features: Floats | Doubles) -> Doubles:
        """L_s of each of B class features: (B, K, E) -> (B,) float64. Not finite where the features are not.

        Time: B N K E. Memory: a block of pictures and one of classes, whatever N and K.
        """
        totals = np.zeros(len(class_features))
        with np.errstate(invalid="ignore", over="ignore"):
            for X, Y in self.blocks(class_features.shape[1:]):
                for i, T in enumerate(class_features):
                    totals[i] -= np.vdot(Y, log_softmax(self.logits(X, T)))
        return totals / len(self.pictures)

    def gradient(self, class_features: Floats | Doubles) -> Floats | Doubles:
        """dL_s/dT at class features (K, E): (K, E), in kept_dtype's precision. Time: N K E."""
        total = empty_gradient(class_features)
        for X, Y in self.blocks(class_features.shape):
            p = np.exp(log_softmax(self.logits(X, class_features)))
            self.add_gradient(total, p, X, Y)
        return total

    def derivatives(self, class_features: Floats, columns: Floats | Halves) -> Doubles:
        """dL_s/dT . J_j at class features (K, E), along each of the columns J (n, K, E): (n,) float64.

        One by one: the last bits of a product depend on how many rows it has. Time: K E (N + n).
        """
        gradient = self.gradient(class_features)
        return np.array([directional_derivatives(column[np.newaxis], gradient)[0] for column in columns])

    def add_gradient(self, total: Floats | Doubles, p: Doubles, X: Doubles, Y: Doubles) -> None:
        """Add one block of pictures' part of dL_s/dT to `total` (K, E), in place.

        p: (b, K) probabilities;  X: (b, E) image features;  Y: (b, K) targets
        """
        factor = self.logit_scale / len(self.pictures)
        for block in class_blocks(total.shape):
            total[block] += factor * ((p[:, block] - Y[:, block]).T @ X)

    def logits(self, X: Doubles, class_features: Floats | Doubles) -> Doubles:
        """s X T^T for image features X (b, E) and class features T (K, E): (b, K) float64.

        Only one block of classes of T is converted to doubles at a time.
        """
        logits = np.empty((len(X), len(class_features)))
        for block in class_blocks(class_features.shape):
            T = class_features[block].astype(np.float64, copy=False)
            np.multiply(self.logit_scale, X @ T.T, out=logits[:, block])
        return logits

    def blocks(self, shape: tuple[int, ...], rank: int = 0) -> Iterator[tuple[Doubles, Doubles]]:
        """Yields image features X (b, E) and targets Y (b, K) float64, until all pictures were read once.

        shape: (K, E) of the class features
        rank:  directions for which the caller needs memory too, as gauss_newton does; 0: none
        """
        n_classes, embed_dim = shape
        step = max(1, self._block_bytes // (8 * (2 * embed_dim + 5 * n_classes + 3 * rank)))
        for features, labels in self.pictures.blocks(step):
            Y = np.full((len(labels), n_classes), self._smoothing / n_classes)
            Y[np.arange(len(labels)), labels] += 1 - self._smoothing
            yield features.astype(np.float64), Y


def empty_gradient(T: Floats | Doubles) -> Floats | Doubles:
    """Zeros (K, E) to sum a gradient in, in the precision of kept_dtype. T: class features (K, E)."""
    return np.zeros(T.shape, kept_dtype(T.shape))


def kept_dtype(shape: tuple[int, ...]) -> np.dtype[Any]:
    """The precision of an array as large as the class features; shape: (K, E).

    float64 if one class block holds all of it, otherwise float32, the precision of the towers.
    """
    return np.dtype(np.float64 if 8 * shape[0] * shape[1] <= CLASS_BLOCK_BYTES else np.float32)


def log_softmax(logits: Doubles) -> Doubles:
    """Log-probabilities along the last axis: (N, K) -> (N, K). It overwrites its argument."""
    logits -= logits.max(axis=-1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return logits


@dataclass(frozen=True)
class Score:
    """How good class features are on some pictures.

    loss:     mean cross-entropy at the model's logit scale
    accuracy: a fraction, 0 to 1
    """

    loss: float
    accuracy: float


def scores(class_features: Floats, pictures: LabelledFeatures, logit_scale: float) -> list[Score]:
    """Loss and accuracy of each of the class features (B, K, E), on one or more pictures. Costs no query."""

    def answers(features: Floats) -> Iterator[Floats]:
        for T in class_features:
            yield logits_of(features, T, logit_scale)

    return scores_of(answers, len(class_features), pictures, picture_block(*class_features.shape[1:]))


def scores_of(
    answers: Callable[[Floats], Iterable[Floats]], n_answers: int, pictures: LabelledFeatures, block_rows: int
) -> list[Score]:
    """Loss and accuracy of several classifiers on one or more pictures. The pictures are read once.

    answers:    image features (b, E) -> logits (b, K) of each of the n_answers classifiers, one at a time
    block_rows: how many pictures are read at a time
    """
    totals, right = np.zeros(n_answers), np.zeros(n_answers, int)
    for features, labels in pictures.blocks(block_rows):
        for i, logits in enumerate(answers(features)):
            totals[i] += cross_entropies(logits, labels).sum()
            right[i] += (logits.argmax(axis=1) == labels).sum()
    n = len(pictures)
    return [Score(float(t / n), float(r / n)) for t, r in zip(totals, right, strict=True)]


def logits_of(features: Floats, class_features: Floats, logit_scale: float) -> Floats:
    """Logits s F T^T of image features F (N, E) and class features T (K, E): (N, K) float32."""
    return np.float32(logit_scale) * (features @ class_features.T)


def cross_entropies(logits: Floats, labels: NDArray[np.int64]) -> Doubles:
    """-log softmax(logits)[label] of each row: logits (N, K), labels (N,) -> (N,) float64."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    picked = shifted[np.arange(len(labels)), labels]
    losses: Doubles = np.log(np.exp(shifted, out=shifted).sum(axis=1)) - picked
    return losses


def softmax(logits: Floats | Doubles) -> Doubles:
    """Probabilities along the last axis: (N, K) -> (N, K) float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    probabilities: Doubles = shifted / shifted.sum(axis=-1, keepdims=True)
    return probabilities


def picture_block(n_classes: int, embed_dim: int) -> int:
    """How many pictures to score at once, so that features and logits stay within SCORING_BYTES."""
    return max(1, SCORING_BYTES // (4 * embed_dim + 24 * n_classes))
