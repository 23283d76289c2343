"""Stage 2 of the paper: sparse zeroth-order SGD with Z-pruning, by ask and tell (SharpZO, arXiv 2506.20990,
sec. 3.2, eq. 4 and 5, algorithm 1).

Every K_prune steps, the first step included, a CGE sweep at w estimates the gradient. It scores the
coordinates by w^2 z(g^2), and a mask Omega keeps the best. Every step uses masked random directions Omega u
only, both for the finite difference and for the update: w <- w - eta g. There is no momentum. (The released
code never clears its gradient buffer, which acts as momentum; the paper has none, so it is not here.)
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ..errors import NumericsError
from ..types import Doubles
from .ask_tell import (
    Ask,
    c_ordered,
    generator_of,
    new_generator,
    require,
    require_limit,
    require_shapes,
    start_point,
)
from .estimators import CoordinateWise, Randomised, refuse_non_finite
from .pruning import Mask, is_due, keep_mask, pruning_score


@dataclass(frozen=True)
class Settings:
    """What stays constant during a descent. Raises UsageError for a value that cannot be used.

    dim:            d, coordinates of w
    steps:          updates of w to make
    eta:            learning rate, w per unit of gradient
    mu_rge:         finite-difference step along a random direction, in units of w per unit of u
    mu_cge:         finite-difference step of the sweep, in units of w
    prune_interval: K_prune, steps between two masks
    prune_ratio:    share of the coordinates that a mask leaves out; 0: no masks and no sweeps
    directions:     q, random directions a step

    Queries: 2 q a step, and 2 d more at every K_prune-th when prune_ratio > 0.
    """

    dim: int
    steps: int
    eta: float = 1e-3
    mu_rge: float = 1e-3
    mu_cge: float = 1e-3
    prune_interval: int = 200
    prune_ratio: float = 0.5
    directions: int = 1

    def __post_init__(self) -> None:
        require(self.dim >= 1, "--dim", self.dim, "at least 1", "512")
        require(self.steps >= 0, "--steps", self.steps, "0 or more", "20000")
        for option, value in (
            ("--eta", self.eta),
            ("--mu-rge", self.mu_rge),
            ("--mu-cge", self.mu_cge),
        ):
            require(0 < value < math.inf, option, value, "a positive number", "1e-3")
        require(self.prune_interval >= 1, "--prune-interval", self.prune_interval, "at least 1", "200")
        require(0 <= self.prune_ratio < 1, "--prune-ratio", self.prune_ratio, "in [0, 1)", "0.5")
        require(self.directions >= 1, "directions", self.directions, "at least 1", "1")


@dataclass(frozen=True, eq=False)
class State:
    """All that changes during a descent: the checkpoint. Its arrays are never written to again.

    step:       updates made so far
    w:          (d,) float64
    mask:       (d,) bool, Omega; all True before the first sweep is complete
    directions: (q, d) u of this step, before masking
    answers:    losses told in this step: (2 d + 2 q,), the sweep's and then the directions'; (2 q,) in a step
                without a sweep
    answered:   how many of the answers have been told
    rng:        bit_generator.state after this step's directions were drawn

    Size at d = 512, q = 1: 17 kB.
    """

    step: int
    w: Doubles
    mask: Mask
    directions: Doubles
    answers: Doubles
    answered: int
    rng: dict[str, Any]


class SparseZOSGD:
    """The optimiser: ask it for points, tell it their losses. The caller owns the loop and the checkpoints.

    >>> settings = Settings(dim=4, steps=200, eta=0.05, prune_interval=20, prune_ratio=0.25)
    >>> descent = SparseZOSGD.start(settings, np.ones(4), np.random.SeedSequence(1))
    >>> while not descent.finished:
    ...     descent.tell([float(w @ w) for w in descent.ask(limit=3).points])
    >>> bool(np.linalg.norm(descent.solution) < 0.1)
    True
    """

    def __init__(self, settings: Settings, state: State) -> None:
        """Go on from a state, also from the middle of a sweep. The state is only read.

        If the settings have more steps than those that made the state, the same random sequence continues.
        Raises UsageError when the arrays of the state do not fit the settings.
        """
        _check_shapes(settings, state)
        self._settings = settings
        self._state = c_ordered(state)
        self._generator = generator_of(state.rng)

    @classmethod
    def start(cls, settings: Settings, x0: npt.ArrayLike, seed_sequence: np.random.SeedSequence) -> Self:
        """A new descent from x0 (d,), which is copied. Raises ValueError for a wrong or infinite x0."""
        w, mask = start_point(x0, settings.dim), np.ones(settings.dim, dtype=np.bool_)
        return cls(settings, _step_begun(settings, 0, w, mask, new_generator(seed_sequence)))

    @property
    def state(self) -> State:
        """The checkpoint of this moment. Later calls of tell do not change it."""
        return self._state

    @property
    def solution(self) -> Doubles:
        """The present w: (d,) float64, a copy."""
        return self._state.w.copy()

    @property
    def solution_features(self) -> None:
        """None: this optimiser is told losses, so it knows no class features."""
        return None

    @property
    def n_updates(self) -> int:
        """Steps made so far."""
        return self._state.step

    @property
    def between_updates(self) -> bool:
        """Whether no answer of the present step has been told yet."""
        return self._state.answered == 0

    @property
    def has_sketch(self) -> bool:
        """False: it asks for losses alone."""
        return False

    @property
    def points_of_update(self) -> int:
        """Points of the present step: two for each direction, and the sweep's if this step has a sweep."""
        return self._state.answers.size

    @property
    def finished(self) -> bool:
        """Whether all steps have been made."""
        return self._state.step >= self._settings.steps

    def ask(self, limit: int) -> Ask:
        """The next points whose losses are wanted, at most `limit`, in the order in which they must be told.

        One call never returns both sweep and direction points: the latter need the mask, so the whole sweep.
        Without a tell in between, the next call returns the same points. No points when finished.
        Raises ValueError when limit < 1.
        """
        require_limit(limit)
        n_sweep, first = self._n_sweep, self._state.answered
        last = min(first + limit, self._end_of_phase)
        if first < n_sweep:
            return Ask(self._sweep.points(first, last))
        return Ask(self._probe.points(first - n_sweep, last - n_sweep))

    def tell(self, losses: npt.ArrayLike) -> None:
        """Take the losses (n,) of the first n points that have none yet, for any n.

        Raises NumericsError when a loss is not finite, or w would not be finite; ValueError for too many
        losses. After an error the state is as before.
        """
        state, n_sweep = self._state, self._n_sweep
        values = np.array(losses, dtype=np.float64)
        first, last = state.answered, state.answered + values.size
        if values.ndim != 1 or last > self._end_of_phase:
            raise ValueError(
                f"losses have shape {values.shape}; {self._end_of_phase - first} are outstanding"
            )
        if first < n_sweep:
            refuse_non_finite(values, "coordinate", "--mu-cge", start=first)
        else:
            refuse_non_finite(values, "direction", "--mu-rge", start=first - n_sweep)
        answers = state.answers.copy()
        answers[first:last] = values
        told = replace(state, answers=answers, answered=last)
        if first < last == n_sweep:
            self._state = self._pruned(told)
        elif first < last == answers.size:
            self._state = self._stepped(told)
        else:
            self._state = told

    @property
    def _n_sweep(self) -> int:
        return n_sweep(self._settings, self._state.step)

    @property
    def _end_of_phase(self) -> int:
        if self.finished:
            return self._state.answered
        in_sweep = self._state.answered < self._n_sweep
        return self._n_sweep if in_sweep else self._state.answers.size

    @property
    def _sweep(self) -> CoordinateWise:
        return CoordinateWise(self._state.w, self._settings.mu_cge)

    @property
    def _probe(self) -> Randomised:
        directions = masked(self._state.directions, self._state.mask)
        return Randomised(self._state.w, directions, self._settings.mu_rge)

    def _pruned(self, told: State) -> State:
        """The state with a new mask. All losses of the sweep have been told (algorithm 1)."""
        gradient = self._sweep.gradient(told.answers[: self._n_sweep])
        scores = pruning_score(told.w, gradient)
        return replace(told, mask=keep_mask(scores, self._settings.prune_ratio))

    def _stepped(self, told: State) -> State:
        """The state with a new w and the next step's directions. All losses were told (algorithm 1)."""
        gradient = self._probe.gradient(told.answers[self._n_sweep :])
        w = sgd_step(told.w, gradient, self._settings.eta)
        return _step_begun(self._settings, told.step + 1, w, told.mask, self._generator)


# The formulas.


def masked(directions: Doubles, mask: Mask) -> Doubles:
    """Omega u for every row u: 0 where the mask is False. (q, d), (d,) -> (q, d) (algorithm 1)."""
    return np.where(mask, directions, 0.0)


def sgd_step(w: Doubles, gradient: Doubles, eta: float) -> Doubles:
    """The new w, w - eta g: (d,) (algorithm 1). Raises NumericsError when it is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        stepped = w - eta * gradient
    if not np.isfinite(stepped).all():
        raise NumericsError(
            f"The step leaves the finite numbers: --eta {eta:g} times a gradient of up to "
            f"{np.abs(gradient).max():g}. Every entry of w must stay finite. "
            f"Try --eta {eta / 10:g}."
        )
    return stepped


# States.


def n_sweep(settings: Settings, step: int) -> int:
    """Queries of the CGE sweep at the beginning of this step: 2 d, or 0 if this step has none."""
    return 2 * settings.dim if is_due(settings, step) else 0


def _step_begun(
    settings: Settings, step: int, w: Doubles, mask: Mask, generator: np.random.Generator
) -> State:
    # Always d numbers, whatever the mask: so the random sequence does not depend on pruning. Also after the
    # last step: so a later run with more steps goes on as if it had been longer from the start.
    directions = generator.standard_normal((settings.directions, settings.dim))
    return State(
        step=step,
        w=w,
        mask=mask,
        directions=directions,
        answers=np.zeros(n_sweep(settings, step) + 2 * settings.directions),
        answered=0,
        rng=dict(generator.bit_generator.state),
    )


def _check_shapes(settings: Settings, state: State) -> None:
    expected = {
        "w": (settings.dim,),
        "mask": (settings.dim,),
        "directions": (settings.directions, settings.dim),
        "answers": (n_sweep(settings, state.step) + 2 * settings.directions,),
    }
    require_shapes(state, expected, "--dim, --prune-interval and --prune-ratio")
