"""Stage 2 of our own preset: descent on linear models of the class features, by ask and tell.

We know of no publication that does this for prompt tuning with forward passes alone. docs/accuracy.md has its
figures.

A round has these parts. First a sketch: the class features' derivatives along r random orthonormal
directions. Together with the columns kept from earlier rounds it gives the linear model T(w + U a) ~ T + J a,
with rows scaled to length one; U are all directions, J all columns. The model's loss, which costs no query,
is minimised in four balls |a| <= f delta omega(w), f = 1/4, 1/2, 1, 2. These four minima are the trials.
Their true losses decide which of them is the step, or that there is none. If there is a step, the true change
of the class features corrects all columns (Broyden 1965); so old columns stay useful. The newest columns are
kept for the next round, whose new directions are orthogonal to theirs.

With prune_ratio > 0 there is a mask by SharpZO's rule (arXiv 2506.20990, eq. 4 and 5). Every K_prune rounds,
the first included, the sketch ignores the mask, and its gradient scores the coordinates for a new mask. So a
coordinate that was dropped can come back. With a mask no column is kept: it would move dropped coordinates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ..types import Doubles, Floats, Halves, class_blocks
from . import gauss_newton
from .ask_tell import (
    Ask,
    Centre,
    c_ordered,
    generator_of,
    new_generator,
    require,
    require_limit,
    require_shapes,
    start_point,
)
from .estimators import (
    no_finite_features,
    orthonormal_rows,
    projected_gradient,
    reach,
)
from .gauss_newton import LinearModel, Model, minimum_in_ball
from .losses import Loss
from .pruning import Mask, is_due, keep_mask, pruning_score

FACTORS = (0.25, 0.5, 1.0, 2.0)  # f of the four balls, in delta omega(w)
FIRST_DELTA, SMALLEST_DELTA, LARGEST_DELTA = 1.0, 1e-3, 4.0
REJECTED = 0.25  # factor for delta when no step lowers the loss
SMALLEST_FALL = 1e-5  # a smaller fall of the loss is round-off in float32
TINY = 1e-300  # instead of |a|^2 = 0, to divide by
FIRST_ITERATIONS, MORE_ITERATIONS = 6, 3  # of Gauss-Newton: in the first ball, and in each larger one


# A loss, class features (K, E) and columns (r, K, E) -> the model whose minima are tried
ModelOf = Callable[[Any, Floats, Halves], Model]

DIRECTION_COPIES = 3  # more copies when a round begins: kept ones, new ones, all of them


@dataclass(frozen=True)
class Sketch:
    """The size of a round's linear model.

    rank:        new directions in a round; 0: no sketch
    kept_rounds: how many earlier rounds' columns are kept
    """

    rank: int
    kept_rounds: int

    @property
    def n_columns(self) -> int:
        """All columns of a round: new and kept."""
        return self.rank * (1 + self.kept_rounds)


NO_SKETCH = Sketch(0, 0)


@dataclass(frozen=True)
class Settings:
    """What stays constant during a descent. Raises UsageError for a value that cannot be used.

    dim:            d, coordinates of w
    rank:           r, new directions a round; fewer if the mask keeps fewer coordinates
    kept_rounds:    rounds whose columns are kept, as far as d has room for their directions
    prune_interval: K_prune, rounds between two masks
    prune_ratio:    share of the coordinates that a mask leaves out; 0: no masks

    Queries: r + 4 a round, and one more where tangents share a primal pass.
    """

    dim: int
    rank: int = 32
    kept_rounds: int = 3
    prune_interval: int = 5
    prune_ratio: float = 0.0

    def __post_init__(self) -> None:
        require(self.dim >= 1, "--dim", self.dim, "at least 1", "512")
        require(self.rank >= 1, "--rank", self.rank, "at least 1", "32")
        require(self.kept_rounds >= 0, "--kept-rounds", self.kept_rounds, "at least 0", "3")
        require(self.prune_interval >= 1, "--prune-interval", self.prune_interval, "at least 1", "5")
        require(0 <= self.prune_ratio < 1, "--prune-ratio", self.prune_ratio, "in [0, 1)", "0.5")

    @property
    def n_kept(self) -> int:
        """The most columns that a round begins with."""
        if self.prune_ratio > 0:
            return 0
        return max(0, min(self.kept_rounds * self.rank, self.dim - self.rank))


@dataclass(frozen=True, eq=False)
class State:
    """All that changes during a descent: the checkpoint. Its arrays are never written to again.

    step:       rounds made so far
    w:          (d,) float64
    delta:      radius of the trust region, in units of omega(w)
    mask:       (d,) bool: coordinates that the next directions may use
    class_features: (K, E) float32 at w
    directions: (q + r, d) orthonormal rows: q kept ones, then the r of this round
    columns:    (q + n, K, E) float16, J: along the kept directions, then the n new ones told so far
    trials:     (4, d), the points that the linear model proposes; (0, d) until the sketch is complete
    losses:     (n,) of the trials told so far
    best:       (1, K, E) float32, class features of the best trial so far; (0, K, E) before the first
    rng:        bit_generator.state after this round's random numbers were drawn

    float16 is exact enough for columns: the curvature of T makes a larger error than rounding does.
    Size at d = 2,048, r = 32, 3 rounds kept, K = 10, E = 512: at most 3.5 MB.
    """

    step: int
    w: Doubles
    delta: float
    mask: Mask
    class_features: Floats
    directions: Doubles
    columns: Halves
    trials: Doubles
    losses: Doubles
    best: Floats
    rng: dict[str, Any]


class SketchedDescent:
    """The optimiser: ask it for points, tell it their class features. The caller owns the loop.

    Memory: the columns (q + r, K, E) float16, the kept ones twice between two rounds; class features (K, E)
    float32 four times; a block of FeatureLoss.

    >>> from sharpzo_edge.types import LabelledFeatures
    >>> pictures = LabelledFeatures(np.eye(3, dtype=np.float32), np.arange(3))
    >>> def tower(points):  # a stand-in: (n, 9) -> class features (n, 3, 3) of length one
    ...     T = 0.5 + points.reshape(-1, 3, 3)
    ...     return (T / np.linalg.norm(T, axis=2, keepdims=True)).astype(np.float32)
    >>> def answers(asked):  # it has no tangents: differences are near enough
    ...     if asked.wants == "features":
    ...         return tower(asked.points)
    ...     return (tower(asked.centre.w + 0.01 * asked.points) - asked.centre.class_features) / 0.01
    >>> w, loss = np.zeros(9), FeatureLoss(pictures, logit_scale=10.0)
    >>> start = SketchedDescent.start
    >>> descent = start(Settings(dim=9, rank=4), loss, w, tower(w)[0], np.random.SeedSequence(1))
    >>> while descent.state.step < 5:
    ...     descent.tell(answers(descent.ask(limit=3)))
    >>> bool(loss.values(descent.solution_features[np.newaxis])[0] < 0.05)
    True
    """

    def __init__(self, settings: Settings, loss: Loss, state: State, model_of: ModelOf = LinearModel) -> None:
        """Go on from a state, also from the middle of a sketch. The state is only read.

        model_of: makes the model of the loss whose minima are tried
        Raises UsageError when the arrays of the state do not fit the settings.
        """
        _check_shapes(settings, state)
        self._settings = settings
        self._loss = loss
        self._model_of = model_of
        self._state = c_ordered(state)
        self._room: Halves | None = None  # all columns of a round, see _with_columns
        self._generator = generator_of(state.rng)

    @classmethod
    def start(
        cls,
        settings: Settings,
        loss: Loss,
        x0: npt.ArrayLike,
        class_features: Floats,
        seed_sequence: np.random.SeedSequence,
        model_of: ModelOf = LinearModel,
    ) -> Self:
        """A new descent from x0 (d,), which is copied. class_features: (K, E) float32 at x0.

        Raises ValueError for an x0 of a wrong shape or with infinite numbers.
        """
        w, generator = start_point(x0, settings.dim), new_generator(seed_sequence)
        everything = np.ones(settings.dim, dtype=np.bool_)
        nothing = np.empty((0, settings.dim)), np.empty((0, *class_features.shape), np.float16)
        first = _round_begun(settings, 0, w, class_features, FIRST_DELTA, everything, *nothing, generator)
        return cls(settings, loss, first, model_of)

    @property
    def state(self) -> State:
        """The checkpoint of this moment. Later calls of tell do not change it."""
        return self._state

    @property
    def solution(self) -> Doubles:
        """The present w: (d,) float64, a copy."""
        return self._state.w.copy()

    @property
    def solution_features(self) -> Floats:
        """Class features (K, E) at the present w, always known. Do not write to them."""
        return self._state.class_features

    @property
    def n_updates(self) -> int:
        """Rounds made so far."""
        return self._state.step

    @property
    def between_updates(self) -> bool:
        """Whether no answer of the present round has been told yet."""
        return self._n_told == 0 and not len(self._state.trials)

    @property
    def points_of_update(self) -> int:
        """Points of the present round: one for each new direction, and the trials."""
        return _n_new(self._settings, self._state) + len(FACTORS)

    @property
    def has_sketch(self) -> bool:
        """True: every round has a sketch."""
        return True

    @property
    def finished(self) -> bool:
        """Whether no step lowers the loss, down to the smallest trust region."""
        return self._state.delta <= SMALLEST_DELTA

    def ask(self, limit: int) -> Ask:
        """The next directions whose tangents are wanted, or trials whose class features are: at most `limit`.

        One call never returns both directions and trials: the trials need the whole sketch. Without a tell
        in between, the next call returns the same points. No points when finished. Raises ValueError when
        limit < 1.
        """
        require_limit(limit)
        state, first = self._state, self._n_told
        last = first + min(limit, self._n_outstanding)
        if len(state.trials):
            return Ask(state.trials[first:last].copy(), "features")
        directions = state.directions[self._n_kept :][first:last].copy()
        return Ask(directions, "tangents", Centre(state.w, state.class_features, first == 0, in_half=True))

    def tell(self, class_features: npt.ArrayLike) -> None:
        """Take tangents or class features (n, K, E) of the first n points that have none yet, for any n.

        Answers that are not finite are left out: a direction of the sketch then has no effect, a trial is
        rejected.
        Raises NumericsError when no answer of a sketch is finite, ValueError for a wrong shape or too many
        answers. After an error the state is as before.
        """
        state = self._state
        told = np.asarray(class_features, dtype=np.float32)
        n_outstanding, shape = self._n_outstanding, state.class_features.shape
        if told.shape[1:] != shape or len(told) > n_outstanding:
            raise ValueError(
                f"class features have shape {told.shape}; {n_outstanding} of {shape} are outstanding"
            )
        is_complete = len(told) == n_outstanding > 0
        if len(state.trials):
            state = self._tried(state, told)
            self._state = self._stepped(state) if is_complete else state
        else:
            state = replace(state, columns=self._with_columns(told))
            self._state = self._proposed(state) if is_complete else state
        if is_complete:
            self._room = None

    @property
    def _n_kept(self) -> int:
        """How many directions come from earlier rounds."""
        return len(self._state.directions) - _n_new(self._settings, self._state)

    @property
    def _n_told(self) -> int:
        """How many points of the present part of the round (sketch or trials) have an answer."""
        state = self._state
        return len(state.losses) if len(state.trials) else len(state.columns) - self._n_kept

    @property
    def _n_outstanding(self) -> int:
        if self.finished:
            return 0
        state = self._state
        return len(state.trials if len(state.trials) else state.directions[self._n_kept :]) - self._n_told

    def _with_columns(self, told: Floats) -> Halves:
        """The state's columns and new ones, tangents (n, K, E): (q + n, K, E) float16.

        All columns of a round lie in one array, so that nothing is copied as it fills. Each state holds its
        first rows, which are not written to again. The rows that are not yet filled take no memory.
        """
        state = self._state
        n_before = len(state.columns)
        if self._room is None:
            self._room = np.empty((len(state.directions), *state.class_features.shape), np.float16)
            self._room[:n_before] = state.columns
        with np.errstate(over="ignore"):
            self._room[n_before : n_before + len(told)] = told
        return self._room[: n_before + len(told)]

    def _proposed(self, told: State) -> State:
        """The state with the points to try, and a new mask if it is due. The sketch is complete."""
        T, settings = told.class_features, self._settings
        lost = [j for j, column in enumerate(told.columns) if not np.isfinite(column).all()]
        if len(lost) == len(told.columns) - self._n_kept:  # none of the new ones; the kept ones are finite
            raise no_finite_features(told.w, len(lost))
        if lost:
            columns = told.columns.copy()
            columns[lost] = 0
            told = replace(told, columns=columns)
        mask = told.mask
        if is_due(settings, told.step):
            derivatives = self._loss.derivatives(T, told.columns)
            gradient = projected_gradient(told.w, told.directions, derivatives)
            mask = keep_mask(pruning_score(told.w, gradient), settings.prune_ratio)
        radius = told.delta * reach(told.w)
        steps = proposals(self._model_of(self._loss, T, told.columns), radius) @ told.directions
        return replace(told, mask=mask, trials=told.w + steps)

    def _tried(self, state: State, told: Floats) -> State:
        """The state after class features (n, K, E) of more trials. Only those of the best trial are kept."""
        losses = self._loss.values(told)
        both = np.concatenate((state.losses, losses))
        first = best_of(both) - len(state.losses)
        best = told[first : first + 1].copy() if first >= 0 and len(told) else state.best
        return replace(state, losses=both, best=best)

    def _stepped(self, told: State) -> State:
        """The state of the next round, after all trials were told. w moves to the best, or not at all."""
        best = accepted(self._loss.values(told.class_features[np.newaxis])[0], told.losses)
        w = told.trials[best] if best is not None else told.w
        T = told.best[0] if best is not None else told.class_features
        delta = next_delta(told.delta, best)
        first_new, n_kept = self._n_kept, self._settings.n_kept
        newest = np.r_[first_new : len(told.directions), :first_new][:n_kept]
        if best is not None:
            columns = carried_over(told, newest, best, reach(told.w) / reach(w))
        else:
            columns = told.columns[newest]
        kept = told.directions[newest], columns
        return _round_begun(self._settings, told.step + 1, w, T, delta, told.mask, *kept, self._generator)


# The formulas.


def proposals(model: Model, radius: float) -> Doubles:
    """A minimum a_f of the model's loss in each ball |a| <= f radius: (4, r). Each starts from the last."""
    a, found = np.zeros(model.rank), []
    for i, factor in enumerate(FACTORS):
        a = minimum_in_ball(model, factor * radius, a, MORE_ITERATIONS if i else FIRST_ITERATIONS)
        found.append(a)
    return np.array(found)


def best_of(losses: Doubles) -> int:
    """Index of the lowest loss; of equal losses the first, which has the shorter step. 0 without any loss.

    A loss that is not finite counts as the highest.
    """
    return int(np.argmin(np.where(np.isfinite(losses), losses, np.inf))) if len(losses) else 0


def accepted(here: float, losses: Doubles) -> int | None:
    """Index of the best trial if it lowers the loss, otherwise None.

    here: the loss at w;  losses: (4,) at the trials
    """
    best = best_of(losses)
    return best if losses[best] < here - SMALLEST_FALL else None


def carried_over(told: State, kept: npt.NDArray[np.intp], best: int, shrinkage: float) -> Halves:
    """The kept columns, corrected for the next round: J + (dT - J a) a^T / |a|^2 (Broyden 1965).

    a = U s for the step s that was taken, and dT is the true change of the class features. So along a the
    columns now say what the step really did. Nothing else changes.
    kept:      indices of the columns to keep
    best:      index of the trial that was taken
    shrinkage: factor for all columns. Far from 0, T hardly depends on the length of w, so its derivatives
               shrink as omega(w) grows
    """
    a = told.directions @ (told.trials[best] - told.w)
    length = max(float(a @ a), TINY)
    result = np.empty((len(kept), *told.class_features.shape), np.float16)
    for block in class_blocks(result.shape):
        missed = (told.best[0, block] - told.class_features[block]).astype(np.float64)
        for a_j, column in zip(a, told.columns[:, block], strict=True):
            missed -= a_j * column
        for j, column in zip(kept, result[:, block], strict=True):
            column[:] = (told.columns[j, block] + (a[j] / length) * missed) * shrinkage
    return result


def next_delta(delta: float, best: int | None) -> float:
    """The next trust region: delta times the f of the trial that was taken, or REJECTED without a step.

    best: index of the trial taken, or None
    """
    factor = REJECTED if best is None else FACTORS[best]
    return float(np.clip(delta * factor, SMALLEST_DELTA, LARGEST_DELTA))


def drawn_directions(normal: Doubles, mask: Mask, kept: Doubles) -> Doubles:
    """Random orthonormal rows: (r, d), r = min(rank, coordinates that the mask keeps).

    They are 0 where the mask is False, and orthogonal to the kept directions.
    normal: (rank, d) standard normal numbers
    kept:   (q, d) orthonormal rows; none (q = 0) if there is a mask
    """
    rows = normal[: mask.sum(), mask]
    rows = rows - (rows @ kept[:, mask].T) @ kept[:, mask]
    directions = np.zeros((len(rows), mask.size))
    directions[:, mask] = orthonormal_rows(rows)
    return directions


# States.


def _round_begun(
    settings: Settings,
    step: int,
    w: Doubles,
    class_features: Floats,
    delta: float,
    mask: Mask,
    directions: Doubles,
    columns: Halves,
    generator: np.random.Generator,
) -> State:
    """A state with this round's new directions. directions (q, d), columns (q, K, E): the kept ones."""
    # Always d numbers, whatever the mask: so the random sequence does not depend on pruning.
    normal = generator.standard_normal((settings.rank, settings.dim))
    used = np.ones_like(mask) if is_due(settings, step) else mask
    return State(
        step=step,
        w=w,
        delta=delta,
        mask=mask,
        class_features=np.asarray(class_features, dtype=np.float32),
        directions=np.concatenate((directions, drawn_directions(normal, used, directions))),
        columns=columns,
        trials=np.empty((0, settings.dim)),
        losses=np.empty(0),
        best=np.empty((0, *class_features.shape), np.float32),
        rng=dict(generator.bit_generator.state),
    )


def _n_new(settings: Settings, state: State) -> int:
    """How many new directions this round has. (A mask found by this round counts from the next one.)"""
    if len(state.trials) and settings.prune_ratio > 0:
        return len(state.directions)
    kept = settings.dim if is_due(settings, state.step) else int(state.mask.sum())
    return min(settings.rank, kept)


def _check_shapes(settings: Settings, state: State) -> None:
    n_kept = len(state.directions) - _n_new(settings, state)
    n_told = len(state.columns) - n_kept
    fits = 0 <= n_kept <= settings.n_kept and n_told >= 0
    expected = {
        "w": (settings.dim,),
        "mask": (settings.dim,),
        "directions": (len(state.directions) if fits else settings.rank, settings.dim),
        "trials": (len(state.trials), settings.dim),
    }
    require_shapes(state, expected, "--dim, --rank, --kept-rounds, --prune-interval and --prune-ratio")


# What a sketch takes.


def held_bytes(sketch: Sketch, dim: int, n_classes: int, embed_dim: int) -> int:
    """What a complete sketch takes in bytes: columns in float16, directions in float64.

    It is held from one update to the next.
    """
    return _columns_bytes(sketch, dim, n_classes, embed_dim) + _directions_bytes(sketch, dim)


def peak_bytes(sketch: Sketch, dim: int, n_classes: int, embed_dim: int) -> int:
    """The most memory at one moment between two batches of queries, in bytes, beside held_bytes.

    It is needed while the model's minimum is sought, or when a round begins. When an interrupted run goes on,
    its columns are copied once; this is more than the columns that a new round keeps.
    """
    n_columns = min(sketch.n_columns, dim)
    if not n_columns:
        return 0
    columns = _columns_bytes(sketch, dim, n_classes, embed_dim)
    next_round = columns + DIRECTION_COPIES * _directions_bytes(sketch, dim)
    return max(gauss_newton.peak_bytes(n_columns, n_classes, embed_dim), next_round)


def _columns_bytes(sketch: Sketch, dim: int, n_classes: int, embed_dim: int) -> int:
    return 2 * min(sketch.n_columns, dim) * n_classes * embed_dim


def _directions_bytes(sketch: Sketch, dim: int) -> int:
    return 8 * min(sketch.n_columns, dim) * dim
