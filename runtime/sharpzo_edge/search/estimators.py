"""Derivatives from function values alone: which points to ask for, and the estimate from the answers.

An estimator serves for one estimate. It calls no model and draws no random numbers, so any part of its points
can be made again at any time.

CoordinateWise and Randomised are SharpZO's (arXiv 2506.20990, eq. 1): gradients from losses by central
differences. They are exact on functions whose third derivatives vanish, up to round-off (about machine
precision of the loss / mu).

A sketch is our own: the class features' derivatives along r random directions, its columns. One query then
returns K E numbers instead of one. Columns are tangents where the model has them, or forward differences.
"""

import math

import numpy as np
import numpy.typing as npt

from ..errors import NumericsError, UsageError
from ..types import Doubles, Floats, Halves

DIFFERENCE_STEP = 0.02  # in units of reach(w): far above float32's round-off; T is nearly linear over it


def no_finite_features(w: Doubles, n_answers: int) -> NumericsError:
    """The error for a sketch without any finite answer. n_answers: how many points beside w were tried."""
    return NumericsError(
        f"The text tower gives no finite class features around a w of norm {np.linalg.norm(w):.3g}, at any "
        f"of {n_answers} points. Those at w itself and at one point beside it must be finite. Stay nearer "
        f"to the initial words: a smaller --sigma0, or --change-point 0"
    )


class CoordinateWise:
    """Coordinate-wise gradient estimate, CGE (SharpZO eq. 1): 2 d queries.

    g_i = [L(w + mu e_i) - L(w - mu e_i)] / (2 mu),  i = 0..d-1

    centre: (d,) float64, w; copied
    mu:     half the distance between the two points of a coordinate, in units of w
    Raises UsageError when mu is not a positive number.

    >>> import numpy as np
    >>> cge = CoordinateWise(np.zeros(2), mu=0.5)
    >>> cge.points(0, cge.n_points)
    array([[ 0.5,  0. ],
           [-0.5,  0. ],
           [ 0. ,  0.5],
           [ 0. , -0.5]])
    >>> cge.gradient(cge.points(0, 4) @ [3.0, 4.0])
    array([3., 4.])
    """

    def __init__(self, centre: npt.ArrayLike, mu: float) -> None:
        self._centre = np.array(centre, dtype=np.float64)
        self._mu = _positive(mu, "--mu-cge")

    @property
    def n_points(self) -> int:
        """Queries for one estimate: 2 d."""
        return 2 * self._centre.size

    def points(self, start: int, stop: int) -> Doubles:
        """Points start..stop-1: (stop - start, d) float64. No other rows are made.

        Point 2i is centre + mu e_i, point 2i + 1 is centre - mu e_i.
        Raises ValueError when the range leaves 0..n_points.
        """
        which = _range(start, stop, self.n_points)
        rows = np.repeat(self._centre[np.newaxis], which.size, axis=0)
        rows[np.arange(which.size), which // 2] += np.where(which % 2 == 0, self._mu, -self._mu)
        return rows

    def gradient(self, losses: npt.ArrayLike) -> Doubles:
        """The gradient estimate (d,) float64, from the losses (2 d,) at all points in their order.

        Raises NumericsError when a loss is not finite, ValueError when their number is wrong.
        """
        answers = _all_answers(losses, self.n_points)
        refuse_non_finite(answers, "coordinate", "--mu-cge")
        return central_differences(answers, self._mu)


class Randomised:
    """Randomised gradient estimate, RGE (SharpZO eq. 1): 2 q queries.

    g = mean over the q directions u of  u [L(w + mu u) - L(w - mu u)] / (2 mu)

    centre:     (d,) float64, w; copied
    directions: (q, d) float64, one u a row; copied. The caller draws and masks them
    mu:         step along u, in units of w per unit of u
    Raises UsageError when mu is not a positive number, ValueError when shapes do not fit.
    """

    def __init__(self, centre: npt.ArrayLike, directions: npt.ArrayLike, mu: float) -> None:
        self._centre = np.array(centre, dtype=np.float64)
        self._directions = np.array(directions, dtype=np.float64)
        self._mu = _positive(mu, "--mu-rge")
        if self._directions.ndim != 2 or self._directions.shape[1:] != self._centre.shape:
            raise ValueError(
                f"directions have shape {self._directions.shape}; "
                f"with a centre of {self._centre.shape} it must be (q, {self._centre.size})"
            )

    @property
    def n_points(self) -> int:
        """Queries for one estimate: 2 q."""
        return 2 * len(self._directions)

    def points(self, start: int, stop: int) -> Doubles:
        """Points start..stop-1 as (stop - start, d) float64.

        Point 2j is centre + mu u_j, point 2j + 1 is centre - mu u_j.
        Raises ValueError when the range leaves 0..n_points.
        """
        which = _range(start, stop, self.n_points)
        steps = np.where(which % 2 == 0, self._mu, -self._mu)[:, np.newaxis]
        return self._centre + steps * self._directions[which // 2]

    def gradient(self, losses: npt.ArrayLike) -> Doubles:
        """The gradient estimate (d,) float64, from the losses (2 q,) at all points in their order.

        Raises NumericsError when a loss is not finite, ValueError when their number is wrong.
        """
        answers = _all_answers(losses, self.n_points)
        refuse_non_finite(answers, "direction", "--mu-rge")
        total = np.zeros_like(self._centre)
        for derivative, direction in zip(
            central_differences(answers, self._mu), self._directions, strict=True
        ):
            total += derivative * direction
        return total / len(self._directions)


def difference_step(w: Doubles) -> float:
    """h, the step of forward differences of the class features at w (d,), in units of w."""
    return DIFFERENCE_STEP * reach(w)


def forward_differences(class_features: Floats, answers: Floats, step: float) -> Floats:
    """[T(w + h u) - T(w)] / h for several directions u: (n, K, E) float32.

    class_features: (K, E), T(w)
    answers:        (n, K, E), T(w + h u). Where an answer is not finite, its difference is not
    step:           h. Exact on linear T, up to round-off: float32's, about 1e-7, divided by h
    Memory: the answers are written over.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        answers -= class_features
        answers /= np.float32(step)
    return answers


def projected_gradient(w: Doubles, directions: Doubles, derivatives: Doubles) -> Doubles:
    """U^T derivatives: (d,), the gradient's projection on the directions.

    w:           (d,), where it is, for the message
    directions:  (r, d) orthonormal rows u
    derivatives: (r,), the loss's derivatives along them. One that is not finite counts as 0.
    For random directions, the expected cosine between the projection and the gradient is sqrt(r / d).
    Raises NumericsError when no derivative is finite.
    """
    if not np.isfinite(derivatives).any():
        raise no_finite_features(w, len(derivatives))
    gradient: Doubles = np.where(np.isfinite(derivatives), derivatives, 0.0) @ directions
    return gradient


def directional_derivatives(columns: Floats | Halves, by_features: Floats | Doubles) -> Doubles:
    """dL/dT . J_j, the loss's derivative along each direction: (n,) float64.

    columns: (n, K, E), J_j;  by_features: (K, E), dL/dT
    Memory: the columns of one class in doubles. So little fits a processor's cache, which is much faster.
    """
    total = np.zeros(len(columns))
    with np.errstate(invalid="ignore"):
        for k, gradient in enumerate(by_features):
            total += columns[:, k].astype(np.float64) @ gradient.astype(np.float64)
    return total


def orthonormal_rows(normal: Doubles) -> Doubles:
    """An orthonormal basis of the rows' span: (r, d) of full rank, r <= d -> (r, d) float64.

    If the given rows are standard normal, the result's directions are uniformly random.
    """
    return np.ascontiguousarray(np.linalg.qr(normal.T)[0].T)


def reach(w: Doubles) -> float:
    """omega(w) = sqrt(1 + |w|^2), the unit for the length of steps of w.

    Far from 0 the loss hardly depends on the scale of w, so steps must grow with |w|. When A is scaled to the
    initial context, A w is as long as that context at |w| = 1.
    """
    return math.sqrt(1 + float(w @ w))


def central_differences(losses: Doubles, mu: float) -> Doubles:
    """[L(+) - L(-)] / (2 mu) for every pair of losses: (2 n,) -> (n,) (SharpZO eq. 1)."""
    return (losses[0::2] - losses[1::2]) / (2 * mu)


def refuse_non_finite(losses: Doubles, kind: str, option: str, start: int = 0) -> None:
    """Raise NumericsError for the first loss of a finite difference that is not finite.

    losses: (n,) answers to the points start..start+n-1
    kind:   what the two points of a pair differ in, for the message: "coordinate" or "direction"
    option: the command's option for mu, named in the advice
    """
    bad = np.flatnonzero(~np.isfinite(losses))
    if bad.size:
        point = start + int(bad[0])
        raise NumericsError(
            f"A finite difference met a loss that is not finite: {losses[bad[0]]} at the "
            f"{'minus' if point % 2 else 'plus'} point of {kind} {point // 2}. "
            f"Every loss of a difference must be a finite number. "
            f"Try a larger {option} if the model overflows at random, or keep w smaller: "
            f"a smaller --sigma0 in stage 1, a smaller --eta in stage 2."
        )


def _positive(mu: float, option: str) -> float:
    if not (math.isfinite(mu) and mu > 0):
        raise UsageError(
            f"The finite difference's step is not usable: {option} is {mu}. "
            f"It must be a positive number. Try {option} 1e-3."
        )
    return float(mu)


def _range(start: int, stop: int, n_points: int) -> npt.NDArray[np.intp]:
    if not 0 <= start <= stop <= n_points:
        raise ValueError(f"points {start}..{stop} asked for; there are 0..{n_points}")
    return np.arange(start, stop)


def _all_answers(losses: npt.ArrayLike, n_points: int) -> Doubles:
    answers = np.asarray(losses, dtype=np.float64)
    if answers.shape != (n_points,):
        raise ValueError(f"losses have shape {answers.shape}; {n_points} points were to be answered")
    return answers
