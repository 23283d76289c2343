"""The loss as a known, smooth function of the class features, and of steps in a sketched subspace.

Only T(w) needs the network; what follows from it is arithmetic in float64, some classes at a time where
they are many, and costs no query:

    z_n(T)  = s T x_n                                        logits of a picture
    L_s(T)  = mean_n [ lse(z_n) - y_n . z_n ]                y: (1 - smoothing) one-hot + smoothing / K
    T(a)_k  = r_k / |r_k|,  r(a) = T + sum_j a_j J_j         the linear model of a sketch, rows unit again

Gauss-Newton on a -> L_s(T(a)) within a ball: its Hessian is the logits' (convex) one between derivatives
of the logits. Pictures are read in blocks, so that they need not be in memory; the results depend on the
blocks' size by round-off only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..types import CLASS_BLOCK_BYTES, Doubles, Floats, Halves, LabelledFeatures, class_blocks
from .estimators import slopes

SCORING_BYTES = 12 << 20  # of a block of features, and of logits in three precisions
BLOCK_BYTES = 6 << 20  # of a block of pictures: features, logits, derivatives
COLUMNS_IN_MEMORY = 4 << 20  # bytes of a sketch's columns in float32: more stay in half precision
SMALLEST_LENGTH = 1e-3  # of a row of the linear model before it is made unit
STEP_HALVINGS = 6
SMALLEST_SHARE = 0.1  # of 1 / K: probabilities below it hardly bend the loss
ENOUGH_FALL = 1e-3  # of the loss: below it Gauss-Newton stops


class FeatureLoss:
    """Cross-entropy with label smoothing on fixed pictures, as a function of class features.

    pictures:    (N, E) unit features, of which only slices are ever taken; one or more
    logit_scale: s, the model's own
    smoothing:   share of the target that is spread over all classes, in [0, 1)
    block_bytes: memory of a block of pictures, about

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
        self._pictures = pictures
        self._scale = float(logit_scale)
        self._smoothing = smoothing
        self._block_bytes = block_bytes

    def values(self, class_features: Floats | Doubles) -> Doubles:
        """L_s of each of (B, K, E): (B,) float64; not finite where the features are not.

        Time: B N K E. Memory: a block of pictures and one of classes, whatever N and K.
        """
        totals = np.zeros(len(class_features))
        with np.errstate(invalid="ignore", over="ignore"):
            for X, Y in self._blocks(class_features.shape[1:]):
                for i, T in enumerate(class_features):
                    totals[i] -= np.vdot(Y, log_softmax(self._logits(X, T)))
        return totals / len(self._pictures)

    def gradient(self, class_features: Floats | Doubles) -> Floats | Doubles:
        """dL_s/dT at (K, E): (K, E), float32 where classes are many. Time: N K E."""
        total = empty_gradient(class_features)
        for X, Y in self._blocks(class_features.shape):
            p = np.exp(log_softmax(self._logits(X, class_features)))
            self._add_gradient(total, p, X, Y)
        return total

    def gauss_newton(self, T: Floats | Doubles, changes: RowChanges) -> tuple[Doubles, Doubles]:
        """Gradient (r,) and Gauss-Newton matrix (r, r) of the loss at T(a), by a.

        D_nk = s (x_n . dT_k/da_j)_j;  g = sum_k dL_s/dT_k . dT_k/da
        H = mean_n [ sum_k p_nk D_nk D_nk^T - (sum_k p_nk D_nk)(...)^T ],  positive semidefinite
        H leaves out the p_nk below SMALLEST_SHARE / K, and is computed in float32: it only shapes a step
        that the loss itself has to confirm. Without them it is still positive semidefinite.
        Time: K r E for each block of pictures, and r (E + r) for each p_nk that counts: N K of them at most.
        Memory: a block and a class's (r, E), never (N, K, r) or (K, E, r) doubles.
        """
        n, r, n_classes = len(self._pictures), changes.rank, len(T)
        H, total = np.zeros((r, r)), empty_gradient(T)
        least = SMALLEST_SHARE / n_classes
        for X, Y in self._blocks(T.shape, r):
            p = np.exp(log_softmax(self._logits(X, T)))
            self._add_gradient(total, p, X, Y)
            X32, mean = X.astype(np.float32), np.zeros((len(X), r), np.float32)
            for k in range(n_classes):
                seen = np.flatnonzero(p[:, k] >= least)
                if len(seen):
                    D = X32[seen] @ (np.float32(self._scale) * changes.of_class(k)).T
                    weighted = p[seen, k, np.newaxis].astype(np.float32) * D
                    H += weighted.T @ D
                    mean[seen] += weighted
            H -= mean.T @ mean
        return changes.slopes(total), (H + H.T) / (2 * n)

    def _add_gradient(self, total: Floats | Doubles, p: Doubles, X: Doubles, Y: Doubles) -> None:
        """A block's part of dL_s/dT: probabilities and targets (b, K), features (b, E)."""
        factor = self._scale / len(self._pictures)
        for block in class_blocks(total.shape):
            total[block] += factor * ((p[:, block] - Y[:, block]).T @ X)

    def _logits(self, X: Doubles, class_features: Floats | Doubles) -> Doubles:
        """s X T^T of features (b, E): (b, K) float64; of T only a block of classes becomes doubles."""
        logits = np.empty((len(X), len(class_features)))
        for block in class_blocks(class_features.shape):
            T = class_features[block].astype(np.float64, copy=False)
            np.multiply(self._scale, X @ T.T, out=logits[:, block])
        return logits

    def _blocks(self, shape: tuple[int, ...], rank: int = 0) -> Iterator[tuple[Doubles, Doubles]]:
        """Features (b, E) and targets (b, K) of some pictures at a time, all of them once; shape: (K, E)."""
        n_classes, embed_dim = shape
        step = max(1, self._block_bytes // (8 * (2 * embed_dim + 5 * n_classes + 3 * rank)))
        for start in range(0, len(self._pictures), step):
            rows = slice(start, start + step)
            labels = self._pictures.labels[rows]
            Y = np.full((len(labels), n_classes), self._smoothing / n_classes)
            Y[np.arange(len(labels)), labels] += 1 - self._smoothing
            yield self._pictures.features[rows].astype(np.float64), Y


@dataclass(frozen=True, eq=False)
class RowChanges:
    """dT_k/da_j of the linear model at one a, made class by class.

    T:       (K, E) unit rows T(a)_k
    lengths: (K,) |r_k| before they were made unit
    columns: (r, K, E), J in any precision
    """

    T: Floats | Doubles
    lengths: Doubles
    columns: Floats | Halves

    @property
    def rank(self) -> int:
        return len(self.columns)

    def of_class(self, k: int) -> Floats:
        """(r, E): (J_jk - T_k (T_k . J_jk)) / |r_k|, the derivative of a unit vector."""
        J, T = self.columns[:, k].astype(np.float32), self.T[k].astype(np.float32)
        J -= np.outer(J @ T, T)
        J /= np.float32(self.lengths[k])
        return J

    def slopes(self, gradient: Floats | Doubles) -> Doubles:
        """Of the loss whose gradient by T is (K, E): (r,), by a. Time: K r E. Memory: a block of classes."""
        total = np.zeros(self.rank)
        for block in class_blocks(gradient.shape):
            G, T = gradient[block].astype(np.float64), self.T[block].astype(np.float64)
            G -= np.sum(G * T, axis=1, keepdims=True) * T  # T stays unit
            G /= self.lengths[block, np.newaxis]
            total += slopes(self.columns[:, block], G)
        return total


class LinearModel:
    """a -> L_s(T(a)), the loss in the subspace of a sketch. Costs no query.

    Memory: J (r, K, E), which is the caller's, float16 where it is large; T(a) (K, E), float32 where it is
    large; a block of pictures and a few of classes.
    loss:           of class features
    class_features: (K, E), T(w)
    columns:        (r, K, E), J in any precision; kept where they are many, copied to float32 where few
    """

    def __init__(self, loss: FeatureLoss, class_features: Floats, columns: Floats | Halves) -> None:
        self._loss = loss
        self._T = class_features
        # numpy converts half precision slowly, and every look at the model reads all columns.
        is_small = 4 * columns.size <= COLUMNS_IN_MEMORY
        self._columns = columns.astype(np.float32) if is_small else columns

    @property
    def rank(self) -> int:
        return len(self._columns)

    def value(self, a: Doubles) -> float:
        """Time: K E (r + N)."""
        return float(self._loss.values(self._features(a)[0][np.newaxis])[0])

    def gauss_newton(self, a: Doubles) -> tuple[Doubles, Doubles]:
        """Gradient (r,) and Gauss-Newton matrix (r, r) at a."""
        T, lengths = self._features(a)
        return self._loss.gauss_newton(T, RowChanges(T, lengths, self._columns))

    def _features(self, a: Doubles) -> tuple[Floats | Doubles, Doubles]:
        """T(a) (K, E), and the rows' lengths (K,) before they were made unit."""
        shape = self._T.shape
        result: Floats | Doubles = np.empty(shape, kept_dtype(shape))
        lengths = np.empty(len(self._T))
        for block in class_blocks(shape):
            rows = self._T[block].astype(np.float64)
            for a_j, column in zip(a, self._columns[:, block], strict=True):
                rows += a_j * column
            lengths[block] = np.maximum(np.linalg.norm(rows, axis=1), SMALLEST_LENGTH)
            np.divide(rows, lengths[block, np.newaxis], out=result[block], casting="same_kind")
        return result, lengths


def empty_gradient(T: Floats | Doubles) -> Floats | Doubles:
    """Zeros for what is summed by block of pictures: (K, E)."""
    return np.zeros(T.shape, kept_dtype(T.shape))


def kept_dtype(shape: tuple[int, ...]) -> np.dtype[Any]:
    """Of what is as large as the class features (K, E): double precision where one block holds them all;
    else that of the towers' own answers.
    """
    return np.dtype(np.float64 if 8 * shape[0] * shape[1] <= CLASS_BLOCK_BYTES else np.float32)


def log_softmax(logits: Doubles) -> Doubles:
    """Along the last axis: (N, K) -> (N, K). Written over its argument."""
    logits -= logits.max(axis=-1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return logits


def ball_minimum(gradient: Doubles, hessian: Doubles, radius: float) -> Doubles:
    """argmin over |a| <= radius of g . a + a^T H a / 2, for a positive semidefinite H: (r,).

    a = -(H + mu I)^-1 g with the smallest mu >= 0 that keeps it in the ball (More & Sorensen 1983);
    along axes of H without curvature a singular H gets a tiny one. Time: r^3.
    """
    curvatures, axes = np.linalg.eigh(hessian)
    slopes = axes.T @ gradient
    curvatures = np.maximum(curvatures, 1e-10 * max(curvatures[-1], 0.0))
    largest = float(np.linalg.norm(slopes))
    if largest == 0:
        return np.zeros_like(gradient)

    def at(mu: float) -> Doubles:
        with np.errstate(divide="ignore", invalid="ignore"):
            a: Doubles = np.where(slopes == 0, 0.0, -slopes / (curvatures + mu))
        return a

    inside = 0.0
    if not np.linalg.norm(at(0.0)) <= radius:
        inside = largest / radius  # |a| <= |g| / mu
        outside = inside * 1e-16
        while inside > outside * (1 + 1e-12):
            middle = (inside * outside) ** 0.5
            if np.linalg.norm(at(middle)) > radius:
                outside = middle
            else:
                inside = middle
    a: Doubles = axes @ at(inside)
    return a


def minimum_in_ball(model: LinearModel, radius: float, start: Doubles, iterations: int) -> Doubles:
    """A minimum of the model on |a| <= radius by damped Gauss-Newton from `start` (r,), inside the ball.

    Each iteration minimises the quadratic model exactly on the ball, and halves the way there until the
    loss falls. The loss at the result is never above that at `start`.
    Time: `iterations` times gauss_newton and one to seven values.
    """
    a, loss = start, model.value(start)
    for _ in range(iterations):
        gradient, hessian = model.gauss_newton(a)
        way = ball_minimum(gradient - hessian @ a, hessian, radius) - a
        for halving in range(STEP_HALVINGS):
            tried = a + 0.5**halving * way
            value = model.value(tried)
            if value < loss:
                break
        else:
            break
        fall, a, loss = loss - value, tried, value
        if fall < ENOUGH_FALL * abs(loss):
            break
    return a


@dataclass(frozen=True)
class Score:
    """loss: mean cross-entropy at the model's logit scale; accuracy: a fraction."""

    loss: float
    accuracy: float


def scores(class_features: Floats, pictures: LabelledFeatures, logit_scale: float) -> list[Score]:
    """Loss and accuracy of each of (B, K, E) on one or more pictures, which are read once. Costs no query."""
    totals, right = np.zeros(len(class_features)), np.zeros(len(class_features), int)
    step = picture_block(*class_features.shape[1:])
    for start in range(0, len(pictures), step):
        rows = slice(start, start + step)
        features, labels = pictures.features[rows], pictures.labels[rows]
        for i, T in enumerate(class_features):
            logits = logits_of(features, T, logit_scale)
            totals[i] += cross_entropies(logits, labels).sum()
            right[i] += (logits.argmax(axis=1) == labels).sum()
    n = len(pictures)
    return [Score(float(t / n), float(r / n)) for t, r in zip(totals, right, strict=True)]


def logits_of(features: Floats, class_features: Floats, logit_scale: float) -> Floats:
    """s F T^T: (N, K) float32."""
    return np.float32(logit_scale) * (features @ class_features.T)


def cross_entropies(logits: Floats, labels: NDArray[np.int64]) -> Doubles:
    """-log softmax(logits)[label], a row each: (N,) float64."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    picked = shifted[np.arange(len(labels)), labels]
    losses: Doubles = np.log(np.exp(shifted, out=shifted).sum(axis=1)) - picked
    return losses


def softmax(logits: Floats) -> Doubles:
    """Probabilities along the last axis: (N, K) float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    probabilities: Doubles = shifted / shifted.sum(axis=-1, keepdims=True)
    return probabilities


def picture_block(n_classes: int, embed_dim: int) -> int:
    """How many pictures are scored at once: their features and logits stay within SCORING_BYTES."""
    return max(1, SCORING_BYTES // (4 * embed_dim + 24 * n_classes))
