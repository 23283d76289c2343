"""Stage 2 of our own preset: descent in sketched subspaces of the class features, ask and tell.

Nothing published does this for prompt tuning with forward passes alone; what it measured is in bench/.
A round: r forward differences of the class features along random orthonormal directions U give the
linear model T(w + U a) ~ T + J a, with unit rows; its loss is minimised, for nothing, in four balls
|a| <= f delta omega(w), f = 1/4, 1/2, 1, 2; the true loss decides among the four steps, or none.

Sparsity is SharpZO's rule (arXiv 2506.20990, eq. 4 and 5) on sketched gradients: every K_prune rounds,
the first included, the sketch ignores the mask, and its gradient scores the coordinates for a new one;
so a coordinate that was dropped can come back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from .arrays import Doubles, Floats
from .ask_tell import Ask, generator_of, own_copy, require, require_shapes
from .estimators import SKETCH_STEP, FeatureSketch, orthonormal_rows, reach
from .feature_loss import FeatureLoss, LinearModel, minimum_in_ball
from .stage2_sparse_zo import Mask, keep_mask, pruning_score

FACTORS = (0.25, 0.5, 1.0, 2.0)  # f of the four balls, in delta omega(w)
FIRST_DELTA, SMALLEST_DELTA, LARGEST_DELTA = 1.0, 1e-3, 4.0
REJECTED = 0.25  # factor of delta when no step lowers the loss
SMALLEST_FALL = 1e-5  # of the loss: less is round-off in float32
FIRST_ITERATIONS, MORE_ITERATIONS = 6, 3  # of Gauss-Newton: from a = 0, and from the ball before


@dataclass(frozen=True)
class Settings:
    """What stays constant. Raises UsageError for a value that cannot be used.

    dim:            d, coordinates of w
    rank:           r, directions of a sketch; fewer where the mask keeps fewer coordinates
    prune_interval: K_prune, rounds between two masks
    prune_ratio:    part of the coordinates that a mask leaves out; 0 masks nothing

    Queries: r + 4 a round.
    """

    dim: int
    rank: int = 48
    prune_interval: int = 5
    prune_ratio: float = 0.0

    def __post_init__(self) -> None:
        require(self.dim >= 1, "--dim", self.dim, "at least 1", "512")
        require(self.rank >= 1, "--rank", self.rank, "at least 1", "48")
        require(self.prune_interval >= 1, "--prune-interval", self.prune_interval, "at least 1", "5")
        require(0 <= self.prune_ratio < 1, "--prune-ratio", self.prune_ratio, "in [0, 1)", "0.5")


@dataclass(frozen=True, eq=False)
class State:
    """What evolves, and all of it: the checkpoint. Its arrays are never written to again.

    step:       rounds made so far
    w:          (d,) float64
    delta:      radius of the trust region, in units of omega(w)
    mask:       (d,) bool: coordinates that the next directions may use
    directions: (r, d) orthonormal rows, this round's U
    trials:     (4, d) the points that the linear model proposes; (0, d) until the sketch is complete
    answers:    (1 + n, K, E) float32 class features: at w; then of the n points told so far, of the sketch
                or of the trials
    rng:        bit_generator.state after this round's draws

    Size at d = 512, r = 48, K = 10, E = 512: at most 1.2 MB, nearly all of it the sketch's answers.
    """

    step: int
    w: Doubles
    delta: float
    mask: Mask
    directions: Doubles
    trials: Doubles
    answers: Floats
    rng: dict[str, Any]


class SketchedDescent:
    """Ask, evaluate, tell; the caller owns the loop, the class features and the checkpoints.

    Memory: the sketch's answers (r, K, E) float32 twice, and a block of FeatureLoss.

    >>> from .arrays import LabelledFeatures
    >>> pictures = LabelledFeatures(np.eye(3, dtype=np.float32), np.arange(3))
    >>> def tower(points):  # a stand-in: (n, 9) -> unit class features (n, 3, 3)
    ...     T = 0.5 + points.reshape(-1, 3, 3)
    ...     return (T / np.linalg.norm(T, axis=2, keepdims=True)).astype(np.float32)
    >>> w, loss = np.zeros(9), FeatureLoss(pictures, logit_scale=10.0)
    >>> start = SketchedDescent.start
    >>> descent = start(Settings(dim=9, rank=4), loss, w, tower(w)[0], np.random.SeedSequence(1))
    >>> while descent.state.step < 5:
    ...     descent.tell(tower(descent.ask(limit=3).points))
    >>> bool(loss.values(descent.solution_features[np.newaxis])[0] < 0.05)
    True
    """

    def __init__(self, settings: Settings, loss: FeatureLoss, state: State) -> None:
        """Go on from a state, also from the middle of a sketch; the state is copied.

        Raises UsageError when the state was made with other settings.
        """
        _check_shapes(settings, state)
        self._settings = settings
        self._loss = loss
        self._state = own_copy(state)
        self._generator = generator_of(state.rng)

    @classmethod
    def start(
        cls,
        settings: Settings,
        loss: FeatureLoss,
        x0: npt.ArrayLike,
        class_features: Floats,
        seed_sequence: np.random.SeedSequence,
    ) -> Self:
        """A new descent from x0 (d,), where class_features (K, E) are known; both are copied.

        Raises ValueError for a wrong shape.
        """
        w = np.array(x0, dtype=np.float64)
        if w.shape != (settings.dim,) or not np.isfinite(w).all():
            raise ValueError(f"x0 must be {settings.dim} finite numbers, has shape {w.shape}")
        generator = np.random.Generator(np.random.PCG64(seed_sequence))
        everything = np.ones(settings.dim, dtype=np.bool_)
        return cls(
            settings, loss, _round_begun(settings, 0, w, class_features, FIRST_DELTA, everything, generator)
        )

    @property
    def state(self) -> State:
        """The checkpoint of this moment. A value: later calls of tell do not change it."""
        return self._state

    @property
    def solution(self) -> Doubles:
        """The present w, (d,) float64, a copy."""
        return self._state.w.copy()

    @property
    def solution_features(self) -> Floats:
        """Class features (K, E) at the present w: always known."""
        T: Floats = self._state.answers[0].copy()
        return T

    @property
    def between_updates(self) -> bool:
        """No answer of the present round has been told yet."""
        return len(self._state.answers) == 1 and not len(self._state.trials)

    @property
    def finished(self) -> bool:
        """No step lowers the loss, down to the smallest trust region."""
        return self._state.delta <= SMALLEST_DELTA

    def ask(self, limit: int) -> Ask:
        """The next at most `limit` points whose class features are wanted, in the order of telling.

        Never mixes sketch and trials, since the trials need the whole sketch. Asking again without
        telling gives the same points; none when finished. Raises ValueError when limit < 1.
        """
        if limit < 1:
            raise ValueError(f"limit is {limit}; at least one point must be asked for")
        state, first = self._state, len(self._state.answers)
        last = first + min(limit, self._n_outstanding)
        if len(state.trials):
            return Ask(state.trials[first - 1 : last - 1].copy(), "features")
        return Ask(self._sketch.points(first, last), "features")

    def tell(self, class_features: npt.ArrayLike) -> None:
        """Class features (n, K, E) of the first n points not yet answered, in parts of any size.

        What is not finite is left out: a direction of the sketch tells nothing, a trial is rejected.
        Raises NumericsError when nothing of a sketch is finite, ValueError for a wrong shape or too
        many. After an error the state is as before.
        """
        state = self._state
        told = np.asarray(class_features, dtype=np.float32)
        n_outstanding = self._n_outstanding
        if told.shape[1:] != state.answers.shape[1:] or len(told) > n_outstanding:
            raise ValueError(
                f"class features have shape {told.shape}; {n_outstanding} of {state.answers.shape[1:]} are "
                f"outstanding"
            )
        new = replace(state, answers=np.concatenate((state.answers, told)))
        if len(told) < n_outstanding or not len(told):
            self._state = new
        elif len(state.trials):
            self._state = self._stepped(new)
        else:
            self._state = self._proposed(new)

    @property
    def _n_outstanding(self) -> int:
        if self.finished:
            return 0
        state = self._state
        return 1 + len(state.trials if len(state.trials) else state.directions) - len(state.answers)

    @property
    def _sketch(self) -> FeatureSketch:
        state = self._state
        return FeatureSketch(state.w, state.directions, SKETCH_STEP * reach(state.w))

    def _proposed(self, told: State) -> State:
        """The sketch is complete: the points to try, and a new mask when its time has come."""
        T, settings = told.answers[0], self._settings
        columns = self._sketch.columns(told.answers)
        mask = told.mask
        if pruning_is_due(settings, told.step):
            gradient = self._sketch.gradient(columns, self._loss.gradient(T))
            mask = keep_mask(pruning_score(told.w, gradient), settings.prune_ratio)
        radius = told.delta * reach(told.w)
        steps = proposals(LinearModel(self._loss, T, columns), radius) @ told.directions
        return replace(told, mask=mask, trials=told.w + steps, answers=told.answers[:1].copy())

    def _stepped(self, told: State) -> State:
        """The trials are answered: w moves to the best of them, or not, and a new round begins."""
        losses = self._loss.values(told.answers)
        best = accepted(losses)
        w = told.trials[best] if best is not None else told.w
        T = told.answers[0 if best is None else 1 + best]
        delta = next_delta(told.delta, best)
        return _round_begun(self._settings, told.step + 1, w, T, delta, told.mask, self._generator)


# The formulas.


def proposals(model: LinearModel, radius: float) -> Doubles:
    """A minimum a_f of the model in each ball |a| <= f radius, each sought from the one before: (4, r)."""
    a, found = np.zeros(model.rank), []
    for i, factor in enumerate(FACTORS):
        a = minimum_in_ball(model, factor * radius, a, MORE_ITERATIONS if i else FIRST_ITERATIONS)
        found.append(a)
    return np.array(found)


def accepted(losses: Doubles) -> int | None:
    """Which trial is the best, when it lowers the loss: losses (5,), the first of them at w itself.

    A loss that is not finite is no candidate; of equal ones the shorter step is taken.
    """
    tried = np.where(np.isfinite(losses[1:]), losses[1:], np.inf)
    best = int(np.argmin(tried))
    return best if tried[best] < losses[0] - SMALLEST_FALL else None


def next_delta(delta: float, best: int | None) -> float:
    """The trust region follows the factor of the step that was taken, and shrinks when none was."""
    factor = REJECTED if best is None else FACTORS[best]
    return float(np.clip(delta * factor, SMALLEST_DELTA, LARGEST_DELTA))


def pruning_is_due(settings: Settings, step: int) -> bool:
    """Whether this round's sketch ignores the mask, and finds a new one."""
    return settings.prune_ratio > 0 and step % settings.prune_interval == 0


def drawn_directions(normal: Doubles, mask: Mask) -> Doubles:
    """Random orthonormal rows among the coordinates that the mask keeps, 0 elsewhere: (r, d).

    normal: (rank, d) standard normal numbers;  r = min(rank, coordinates kept)
    """
    rows = normal[: mask.sum(), mask]
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
    generator: np.random.Generator,
) -> State:
    # All d are drawn whatever the mask, so that the stream does not depend on pruning.
    normal = generator.standard_normal((settings.rank, settings.dim))
    used = np.ones_like(mask) if pruning_is_due(settings, step) else mask
    return State(
        step=step,
        w=w,
        delta=delta,
        mask=mask,
        directions=drawn_directions(normal, used),
        trials=np.empty((0, settings.dim)),
        answers=np.array(class_features[np.newaxis], dtype=np.float32),
        rng=dict(generator.bit_generator.state),
    )


def _check_shapes(settings: Settings, state: State) -> None:
    kept = settings.dim if pruning_is_due(settings, state.step) else int(state.mask.sum())
    n_directions = len(state.directions) if len(state.trials) else min(settings.rank, kept)
    expected = {
        "w": (settings.dim,),
        "mask": (settings.dim,),
        "directions": (n_directions, settings.dim),
        "trials": (len(state.trials), settings.dim),
    }
    require_shapes(state, expected, "--dim, --rank, --prune-interval and --prune-ratio")
