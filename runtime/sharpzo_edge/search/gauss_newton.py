"""A linear model of the class features, and the minimum of its loss in a ball. Costs no query.

The model is made of T = T(w) and a sketch. A sketch is a few columns J_j of the Jacobian of T(w), one for
each of r directions. The vector a (r,) says how far to go along each direction:

    T(a)_k  = r_k / |r_k|,  r(a) = T + sum_j a_j J_j         class k; each row is scaled to length one

L_s(T(a)) is minimised over a by damped Gauss-Newton. Its matrix H comes from the loss's Hessian by the
logits, which is convex, and the logits' first derivatives by a.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..types import CLASS_BLOCK_BYTES, Doubles, Floats, Halves, class_blocks
from .estimators import directional_derivatives
from .losses import BLOCK_BYTES, FeatureLoss, empty_gradient, kept_dtype, log_softmax

COLUMNS_IN_MEMORY = 4 << 20  # bytes in float32; only sketches up to this size are copied to float32
SMALLEST_LENGTH = 1e-3  # a shorter row of the linear model is divided by this, not by its length
STEP_HALVINGS = 6  # sizes of a step that are tried: whole, half, a quarter, …
SMALLEST_SHARE = 0.1  # in units of 1 / K: smaller probabilities add hardly any curvature to the loss
ENOUGH_FALL = 1e-3  # share of the loss: an iteration that gains less is the last


@dataclass(frozen=True, eq=False)
class RowChanges:
    """The derivatives dT_k/da_j of the linear model at one a. They are computed class by class.

    T:       (K, E) rows T(a)_k, of length one
    lengths: (K,) |r_k|, the rows' lengths before they were scaled
    columns: (r, K, E), J in any precision
    """

    T: Floats | Doubles
    lengths: Doubles
    columns: Floats | Halves

    @property
    def rank(self) -> int:
        """r, the number of directions."""
        return len(self.columns)

    def of_class(self, k: int) -> Floats:
        """dT_k/da for class k: (r, E) float32. J_jk is column j's row for the class.

        Row j is (J_jk - T_k (T_k . J_jk)) / |r_k|, the derivative of a vector scaled to length one.
        """
        J, T = self.columns[:, k].astype(np.float32), self.T[k].astype(np.float32)
        J -= np.outer(J @ T, T)
        J /= np.float32(self.lengths[k])
        return J

    def directional_derivatives(self, gradient: Floats | Doubles) -> Doubles:
        """The loss's derivatives by a: (r,) float64. gradient: (K, E), the loss's gradient by T.

        Time: K r E. Memory: a block of classes.
        """
        total = np.zeros(self.rank)
        for block in class_blocks(gradient.shape):
            G, T = gradient[block].astype(np.float64), self.T[block].astype(np.float64)
            G -= np.sum(G * T, axis=1, keepdims=True) * T  # T's rows keep length one
            G /= self.lengths[block, np.newaxis]
            total += directional_derivatives(self.columns[:, block], G)
        return total


def gauss_newton(loss: FeatureLoss, T: Floats | Doubles, changes: RowChanges) -> tuple[Doubles, Doubles]:
    """Gradient (r,) and Gauss-Newton matrix (r, r) of the loss at T(a), by a.

    D_nk = s (x_n . dT_k/da_j)_j;  g = sum_k dL_s/dT_k . dT_k/da
    H = mean_n [ sum_k p_nk D_nk D_nk^T - (sum_k p_nk D_nk)(...)^T ],  positive semidefinite

    p_nk is the probability of class k for picture n. H leaves out those below SMALLEST_SHARE / K, and is
    computed in float32. That is enough: H only shapes a step, and the loss itself decides whether it is
    taken. H stays positive semidefinite.
    Time: K r E for each block of pictures, and r (E + r) for each p_nk that counts: N K of them at most.
    Memory: a block of pictures and one class's (r, E), never (N, K, r) or (K, E, r) doubles.
    """
    n, r, n_classes = len(loss.pictures), changes.rank, len(T)
    H, total = np.zeros((r, r)), empty_gradient(T)
    least = SMALLEST_SHARE / n_classes
    for X, Y in loss.blocks(T.shape, r):
        p = np.exp(log_softmax(loss.logits(X, T)))
        loss.add_gradient(total, p, X, Y)
        X32, mean = X.astype(np.float32), np.zeros((len(X), r), np.float32)
        for k in range(n_classes):
            seen = np.flatnonzero(p[:, k] >= least)
            if len(seen):
                D = X32[seen] @ (np.float32(loss.logit_scale) * changes.of_class(k)).T
                weighted = p[seen, k, np.newaxis].astype(np.float32) * D
                H += weighted.T @ D
                mean[seen] += weighted
        H -= mean.T @ mean
    return changes.directional_derivatives(total), (H + H.T) / (2 * n)


class Model(Protocol):
    """A model of the loss on a few directions, as `minimum_in_ball` needs it."""

    @property
    def rank(self) -> int:
        """r, the number of directions."""

    def value(self, a: Doubles, /) -> float:
        """The model's loss at a (r,)."""

    def gauss_newton(self, a: Doubles, /) -> tuple[Doubles, Doubles]:
        """Gradient (r,) and a positive semidefinite curvature (r, r) at a (r,)."""


@dataclass(frozen=True, eq=False)
class QuadraticModel:
    """The loss near a = 0 by three sums alone: L + g . a + a^T H a / 2.

    loss: L at a = 0;  gradient: (r,) g;  curvature: (r, r) H, positive semidefinite
    """

    loss: float
    gradient: Doubles
    curvature: Doubles

    @property
    def rank(self) -> int:
        """r, the number of directions."""
        return len(self.gradient)

    def value(self, a: Doubles) -> float:
        """The model's loss at a (r,)."""
        return float(self.loss + self.gradient @ a + a @ self.curvature @ a / 2)

    def gauss_newton(self, a: Doubles) -> tuple[Doubles, Doubles]:
        """Gradient (r,) and H (r, r) at a (r,)."""
        return self.gradient + self.curvature @ a, self.curvature


class LinearModel:
    """The loss of the linear model, a -> L_s(T(a)). Costs no query.

    loss:           a function of class features
    class_features: (K, E), T(w)
    columns:        (r, K, E), J in any precision. Small ones are copied to float32, large ones are not copied

    Memory: the columns; T(a) (K, E), float32 where it is large; a block of pictures and a few of classes.
    """

    def __init__(self, loss: FeatureLoss, class_features: Floats, columns: Floats | Halves) -> None:
        self._loss = loss
        self._T = class_features
        # numpy converts half precision slowly, and each value of the model reads all columns.
        is_small = 4 * columns.size <= COLUMNS_IN_MEMORY
        self._columns = columns.astype(np.float32) if is_small else columns

    @property
    def rank(self) -> int:
        """r, the number of directions."""
        return len(self._columns)

    def value(self, a: Doubles) -> float:
        """The loss at a (r,). Time: K E (r + N)."""
        return float(self._loss.values(self._features(a)[0][np.newaxis])[0])

    def gauss_newton(self, a: Doubles) -> tuple[Doubles, Doubles]:
        """Gradient (r,) and Gauss-Newton matrix (r, r) at a (r,)."""
        T, lengths = self._features(a)
        return gauss_newton(self._loss, T, RowChanges(T, lengths, self._columns))

    def _features(self, a: Doubles) -> tuple[Floats | Doubles, Doubles]:
        """T(a) (K, E), and the lengths (K,) of its rows before they were scaled to one."""
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


def quadratic_model(loss: FeatureLoss, class_features: Floats, columns: Floats | Halves) -> QuadraticModel:
    """The linear model's loss by its value, gradient and Gauss-Newton matrix at a = 0. See LinearModel."""
    model = LinearModel(loss, class_features, columns)
    here = np.zeros(model.rank)
    return QuadraticModel(model.value(here), *model.gauss_newton(here))


def ball_minimum(gradient: Doubles, hessian: Doubles, radius: float) -> Doubles:
    """argmin over |a| <= radius of g . a + a^T H a / 2, for a positive semidefinite H: (r,).

    gradient: (r,), g;  hessian: (r, r), H
    The solution is a = -(H + mu I)^-1 g with the smallest mu >= 0 that keeps a in the ball (More & Sorensen
    1983). Where H has no curvature along an axis, a tiny one is used. Time: r^3.
    """
    curvatures, axes = np.linalg.eigh(hessian)
    along_axes = axes.T @ gradient
    curvatures = np.maximum(curvatures, 1e-10 * max(curvatures[-1], 0.0))
    largest = float(np.linalg.norm(along_axes))
    if largest == 0:
        return np.zeros_like(gradient)

    def at(mu: float) -> Doubles:
        with np.errstate(divide="ignore", invalid="ignore"):
            a: Doubles = np.where(along_axes == 0, 0.0, -along_axes / (curvatures + mu))
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


def minimum_in_ball(model: Model, radius: float, start: Doubles, iterations: int) -> Doubles:
    """A minimum of the model's loss on |a| <= radius: (r,).

    start: (r,), a point of the ball. The loss at the result is never above the loss there.
    Each iteration of damped Gauss-Newton minimises the quadratic model exactly on the ball. Then it halves
    the step to that minimum until the loss falls.
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


def peak_bytes(n_columns: int, n_classes: int, embed_dim: int) -> int:
    """The most memory while a minimum is sought, in bytes, beside the columns themselves.

    It is the columns' copy in float32 where they are small, the model's class features, the loss's gradient
    by them, a block of pictures and two of classes.
    """
    class_bytes = 4 * n_classes * embed_dim
    single = n_columns * class_bytes
    copied = single if single <= COLUMNS_IN_MEMORY else 0
    model = 2 * min(2 * class_bytes, max(CLASS_BLOCK_BYTES, class_bytes))
    return copied + model + BLOCK_BYTES + 2 * CLASS_BLOCK_BYTES
