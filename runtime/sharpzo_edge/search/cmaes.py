"""Stage 1: sharpness-aware CMA-ES, by ask and tell (SharpZO, arXiv 2506.20990, sec. 3.1, eq. 3).

A generation has two parts. First the gradient g at the mean gives eps = rho g / ||g|| (with rho = 0 this part
is left out). Then S candidates x_i ~ N(mean, sigma^2 C) are evaluated at x_i + eps, and CMA-ES is told the
x_i with those losses. So the mean moves towards the minimum of L(mean + eps); eps itself is never added to
the mean.

The paper computes g by a CGE sweep: 2 d queries. Our sketch asks for the class features at the mean and for
their derivatives along r random directions: g is then the gradient's projection on these, and rho is
relative: eps = rho omega(mean) g / ||g||.

CMA-ES is N. Hansen, "The CMA Evolution Strategy: A Tutorial", arXiv 1604.00772. "eq." without a paper's name
is an equation of it. Where pycma 4.5 differs from the tutorial we follow pycma, and the docstring says so.
Two of pycma's late repairs are left out: it changes coordinates when the variances of C differ by 1e8, and
when C's condition passes 1e12. Here stop_reasons reports a condition above 1e14 instead. Mirrored samples,
which pycma has for populations below 6, are left out too.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from ..errors import NumericsError, UsageError
from ..types import Doubles, Floats
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
from .cmaes_rates import Rates, rates
from .estimators import (
    CoordinateWise,
    orthonormal_rows,
    projected_gradient,
    reach,
    refuse_non_finite,
)

# Class features (K, E), columns (n, K, E) -> the loss's derivatives along them (n,)
FeatureDerivatives = Callable[[Floats, Floats], Doubles]
EIGEN_MATRICES = 11  # d x d doubles in use while a full C is decomposed, states included


@dataclass(frozen=True)
class Settings:
    """What stays constant during a search. Raises UsageError for a value that cannot be used.

    dim:        d, coordinates of w
    population: S, candidates a generation
    sigma0:     first step size, in units of w
    rho:        length of the sharpness step, in units of w, or omega(mean) with a sketch; 0: plain CMA-ES
    mu_cge:     finite-difference step of the sweep, in units of w
    bounds:     None, or b: all points that are evaluated or told lie in [-b, b]^d
    covariance: "full" d x d; "diagonal" d variances; "identity" step size alone
    sketch_rank: None: a coordinate sweep gives the gradient for the sharpness step. A number r: a feature
                sketch with r directions gives it

    Queries a generation: S, and when rho > 0, 2 d more with a sweep, 1 + r with a sketch (and one more where
    tangents share a primal pass).
    """

    dim: int = 512
    population: int = 40
    sigma0: float = 0.4
    rho: float = 0.1
    mu_cge: float = 1e-3
    bounds: float | None = None
    covariance: Literal["full", "diagonal", "identity"] = "full"
    sketch_rank: int | None = None

    def __post_init__(self) -> None:
        require(self.dim >= 1, "--dim", self.dim, "at least 1", "512")
        require(self.population >= 4, "--population", self.population, "at least 4", "40")
        require(0 < self.sigma0 < math.inf, "--sigma0", self.sigma0, "a positive number", "0.4")
        require(0 <= self.rho < math.inf, "--rho", self.rho, "0 or a positive number", "0.1")
        require(0 < self.mu_cge < math.inf, "--mu-cge", self.mu_cge, "a positive number", "1e-3")
        require(
            self.bounds is None or self.mu_cge <= self.bounds < math.inf,
            "--bounds", self.bounds, f"a number of at least --mu-cge ({self.mu_cge})", "5",
        )  # fmt: skip
        require(
            self.covariance in ("full", "diagonal", "identity"),
            "--covariance", self.covariance, "full, diagonal or identity", "full",
        )  # fmt: skip
        if self.sketch_rank is not None and not (self.bounds is None and 1 <= self.sketch_rank <= self.dim):
            raise ValueError(
                f"a sketch takes 1 to {self.dim} directions, not {self.sketch_rank}, and no bounds"
            )


@dataclass(frozen=True, eq=False)
class State:
    """All that changes during a search: the checkpoint. Its arrays are never written to again.

    generation:    updates made so far
    mean, sigma:   of the search distribution; (d,) float64, float
    p_sigma:       (d,) path of the step size
    p_c:           (d,) path of the covariance; None for "identity"
    C:             (d, d) for "full"; (d,) variances for "diagonal"; None for "identity"
    eigenvectors:  (d, d) of the C decomposed last, one a row; None unless "full". It is the tutorial's B
                   transposed, and C-ordered both in memory and in a file, so that resuming keeps the bits
    D:             (d,) square roots of its eigenvalues, ascending; None unless "full"
    decomposed_at: generation of that C
    candidates:    (S, d) this generation's x_i, inside the bounds, without the sharpness step
    directions:    (r, d) orthonormal rows of this generation's sketch; (0, d) without a sketch
    features:      (1, K, E) float32, class features at the mean while a sketch is told; else (0, 0, 0)
    derivatives:   (up to r,) the loss's derivatives along the directions that were told so far
    perturbation:  (d,) eps, the sharpness step; 0 until the sweep or the sketch is complete
    answers:       (2 d + S,) losses of the sweep, then of the candidates; (S,) without a sweep
    answered:      how many points of this generation were told, those of sweep or sketch included
    best_losses:   (up to 10 + 30 d / S,) the best of each recent generation, newest last
    last_losses:   (S,) of the last generation; (0,) before the first
    rng:           bit_generator.state after this generation's random numbers were drawn

    Size at d = 512, S = 40, "full": 4.4 MB, nearly all of it C and its eigenvectors.
    """

    generation: int
    mean: Doubles
    sigma: float
    p_sigma: Doubles
    p_c: Doubles | None
    C: Doubles | None
    eigenvectors: Doubles | None
    D: Doubles | None
    decomposed_at: int
    candidates: Doubles
    directions: Doubles
    features: Floats
    derivatives: Doubles
    perturbation: Doubles
    answers: Doubles
    answered: int
    best_losses: Doubles
    last_losses: Doubles
    rng: dict[str, Any]


class SharpnessAwareCMAES:
    """The optimiser: ask it for points, tell it the answers. The caller owns the loop and the checkpoints.

    >>> settings = Settings(dim=3, population=8, sigma0=0.5, rho=0.01)
    >>> search = SharpnessAwareCMAES.start(settings, np.ones(3), np.random.SeedSequence(1))
    >>> while search.state.generation < 100:
    ...     search.tell([float(w @ w) for w in search.ask(limit=4).points])
    >>> bool(np.linalg.norm(search.solution) < 0.1)
    True
    """

    def __init__(
        self, settings: Settings, state: State, derivatives: FeatureDerivatives | None = None
    ) -> None:
        """Go on from a state, also from the middle of a generation. The state is only read.

        derivatives: of the loss, by class features and along columns; needed with a sketch only
        Raises UsageError when the arrays of the state do not fit the settings.
        """
        _check_shapes(settings, state)
        self._derivatives = derivatives
        self._settings = settings
        self._rates = rates(settings.dim, settings.population, settings.covariance)
        self._state = c_ordered(state)
        self._generator = generator_of(state.rng)

    @classmethod
    def start(
        cls,
        settings: Settings,
        x0: npt.ArrayLike,
        seed_sequence: np.random.SeedSequence,
        derivatives: FeatureDerivatives | None = None,
    ) -> Self:
        """A new search with its mean at x0 (d,), which is copied.

        Raises UsageError when x0 lies outside the bounds, ValueError for a wrong shape or infinite numbers.
        """
        mean = start_point(x0, settings.dim)
        if settings.bounds is not None and np.abs(mean).max() > settings.bounds:
            raise UsageError(
                f"The start lies outside the box: an entry of it is {np.abs(mean).max():g} away "
                f"from 0. --bounds allows {settings.bounds:g}. "
                f"Give --bounds {math.ceil(np.abs(mean).max())} or leave it away."
            )
        return cls(settings, _first_state(settings, mean, new_generator(seed_sequence)), derivatives)

    @property
    def state(self) -> State:
        """The checkpoint of this moment. Later calls of tell do not change it."""
        return self._state

    @property
    def solution(self) -> Doubles:
        """The mean, where stage 2 starts: (d,) float64, a copy."""
        return self._state.mean.copy()

    @property
    def solution_features(self) -> None:
        """None: no class features are known at the present mean."""
        return None

    @property
    def n_updates(self) -> int:
        """Generations made so far."""
        return self._state.generation

    @property
    def finished(self) -> bool:
        """False: there is always a next generation. See cmaes_stopping."""
        return False

    @property
    def between_updates(self) -> bool:
        """Whether no answer of the present generation has been told yet."""
        return self._state.answered == 0

    @property
    def points_of_update(self) -> int:
        """Points of a generation: its sweep or sketch, and the candidates."""
        return self._n_sweep + self._settings.population

    @property
    def has_sketch(self) -> bool:
        """Whether a sketch gives the sharpness step."""
        return self._settings.sketch_rank is not None and self._n_sweep > 0

    def ask(self, limit: int) -> Ask:
        """The next points whose answers are wanted, at most `limit`, in the order in which they must be told.

        The answers are losses. A sketch wants the class features at the mean, then tangents. One call never
        returns points of different kinds: tangents need the mean's class features, and candidates need the
        sharpness step. Without a tell in between, the next call returns the same points.
        Raises ValueError when limit < 1.
        """
        require_limit(limit)
        state, n_sweep = self._state, self._n_sweep
        first, end = state.answered, self._end_of_phase
        last = min(first + limit, end)
        if first >= n_sweep:
            candidates = state.candidates[first - n_sweep : last - n_sweep]
            return Ask(_into_box(candidates + state.perturbation, self._settings.bounds))
        if self.has_sketch and first == 0:
            return Ask(state.mean[np.newaxis].copy(), "features")
        if self.has_sketch:
            centre = Centre(state.mean, state.features[0], is_new=first == 1)
            return Ask(state.directions[first - 1 : last - 1].copy(), "tangents", centre)
        return Ask(self._sweep.points(first, last))

    def tell(self, answers: npt.ArrayLike) -> None:
        """Take the answers to the first n points that have none yet, for any n.

        answers: losses (n,); for a sketch class features (1, K, E), then tangents (n, K, E)
        A candidate whose loss is not finite ranks last, and the mean does not use it.
        Raises NumericsError when no candidate's loss is finite, when a loss of a sweep is not, when no answer
        of a sketch is, or when C is not positive definite any more. Raises ValueError for a wrong shape or
        too many answers. After an error the state is as before.
        """
        first, end = self._state.answered, self._end_of_phase
        in_sketch = self.has_sketch and first < self._n_sweep
        n_axes = 3 if in_sketch else 1
        values = np.asarray(answers)
        end = 1 if in_sketch and first == 0 else end
        if values.ndim != n_axes or first + len(values) > end:
            raise ValueError(
                f"{'features' if in_sketch else 'losses'} have shape {values.shape}; "
                f"{end - first} are outstanding"
            )
        last = first + len(values)
        if in_sketch:
            self._state = self._sketched(np.asarray(values, np.float32), last)
        else:
            self._state = self._told(np.array(values, np.float64), first, last)

    @property
    def _n_sweep(self) -> int:
        return n_sweep(self._settings)

    @property
    def _end_of_phase(self) -> int:
        in_sweep = self._state.answered < self._n_sweep
        return self._n_sweep if in_sweep else self._n_sweep + self._settings.population

    @property
    def _sweep(self) -> CoordinateWise:
        """The sweep at the mean. With bounds the centre is shifted so that all points lie in the box."""
        settings, centre = self._settings, self._state.mean
        if settings.bounds is not None:
            centre = _into_box(centre, settings.bounds - settings.mu_cge)
        return CoordinateWise(centre, settings.mu_cge)

    def _told(self, losses: Doubles, first: int, last: int) -> State:
        """The state after the losses of points first..last-1, which are all sweep or all candidates."""
        state, n_sweep = self._state, self._n_sweep
        n_before = state.answers.size - self._settings.population  # losses of the sweep; a sketch has none
        if first < n_sweep:
            refuse_non_finite(losses, "coordinate", "--mu-cge", start=first)
        answers = state.answers.copy()
        place = first - n_sweep + n_before
        answers[place : place + losses.size] = losses
        told = replace(state, answers=answers, answered=last)
        if first < last == n_sweep:
            gradient = self._sweep.gradient(answers[:n_sweep])
            return replace(told, perturbation=sharpness_step(gradient, self._settings.rho))
        if first < last == n_sweep + self._settings.population:
            return self._updated(answers[n_before:])
        return told

    def _sketched(self, told: Floats, last: int) -> State:
        """The state after the class features (1, K, E) at the mean, or after tangents (n, K, E)."""
        state = self._state
        if not state.features.size:
            return replace(state, features=told, answered=last)
        assert self._derivatives is not None  # the caller of a sketch gives it
        new = self._derivatives(state.features[0], told)
        state = replace(state, derivatives=np.concatenate((state.derivatives, new)))
        state = replace(state, answered=last)
        if last < self._n_sweep:
            return state
        gradient = projected_gradient(state.mean, state.directions, state.derivatives)
        radius = self._settings.rho * reach(state.mean)
        return replace(
            state,
            features=_NO_FEATURES,
            derivatives=np.empty(0),
            perturbation=sharpness_step(gradient, radius),
        )

    def _updated(self, losses: Doubles) -> State:
        """The next generation's state, from the losses (S,) of all candidates: eq. 41 to 47, 38 to 40."""
        old, rate = self._state, self._rates
        order, weights = ranked(losses, rate.weights)
        x = old.candidates[order]
        weights = without_negative_weights_of_clipped(x, weights, self._settings.bounds)
        mean = recombined(x, weights)
        shift = mean - old.mean
        p_sigma = step_size_path(old, shift, rate)
        h_sigma = path_is_short(p_sigma, old.generation + 1, rate)
        p_c = covariance_path(old, shift, h_sigma, rate)
        steps = (x - old.mean) / old.sigma
        C = covariance(old, p_c, steps, weights, h_sigma, rate)
        sigma = step_size(old.sigma, p_sigma, rate)
        new = replace(
            old,
            generation=old.generation + 1,
            mean=mean,
            sigma=sigma,
            p_sigma=p_sigma,
            p_c=p_c,
            C=C,
            perturbation=np.zeros_like(mean),
            answers=np.zeros_like(old.answers),
            answered=0,
            best_losses=history(old.best_losses, losses[order[0]], self._settings),
            last_losses=losses,
        )
        if decomposition_is_due(new, rate):
            new = decomposed(new)
        return sampled(new, self._settings, self._generator)


# The formulas, in the order of a generation.


def sharpness_step(gradient: Doubles, rho: float) -> Doubles:
    """eps = rho g / ||g||_2; 0 where g is 0: (d,) -> (d,) (SharpZO eq. 3)."""
    largest = np.abs(gradient).max()
    if largest == 0:
        return np.zeros_like(gradient)
    scaled = gradient / largest  # the squares of a tiny or huge gradient would leave float64
    step: Doubles = rho * (scaled / np.linalg.norm(scaled))
    return step


def ranked(losses: Doubles, weights: Doubles) -> tuple[npt.NDArray[np.intp], Doubles]:
    """The order of the candidates, best first, and their weights: (S,), (S,). Ties are ordered by index.

    A loss that is not finite ranks last. If a positive weight falls on it, that weight becomes 0, and the
    other positive weights are scaled so that they sum to 1 again.
    Raises NumericsError when no loss is finite.
    """
    finite = np.isfinite(losses)
    n_finite = int(finite.sum())
    if n_finite == 0:
        raise NumericsError(
            f"Every candidate of a generation has a loss that is not finite, the first is "
            f"{losses[0]}. At least one of the {losses.size} must be a finite number. "
            f"Start again with a smaller --sigma0, or keep w in a box, say --bounds 5."
        )
    order = np.argsort(np.where(finite, losses, np.inf), kind="stable")
    n_positive = int((weights > 0).sum())
    if n_finite < n_positive:
        weights = weights.copy()
        weights[n_finite:n_positive] = 0
        weights[:n_finite] /= weights[:n_finite].sum()
    return order, weights


def without_negative_weights_of_clipped(x: Doubles, weights: Doubles, bounds: float | None) -> Doubles:
    """The weights (S,), with 0 in place of a negative weight of a candidate that lies on the box's wall.

    Negative weights are made for samples of N(mean, sigma^2 C), and a clipped point is not such a sample.
    pycma gives such injected points no negative weight either (CMA_active_injected = 0), and must: when it is
    told clipped points as bad samples, it runs away from a minimum in the box's corner (measured, d = 6,
    S = 8 and 40).

    x: (S, d) candidates, best first
    """
    if bounds is None:
        return weights
    clipped = (np.abs(x) >= bounds).any(axis=1)
    return np.where(clipped, np.maximum(weights, 0), weights)


def recombined(x: Doubles, weights: Doubles) -> Doubles:
    """The new mean, the weighted mean of the candidates with positive weights: (d,) (eq. 41 and 42, c_m = 1).

    x: (S, d), best first
    """
    positive = weights > 0
    mean: Doubles = weights[positive] @ x[positive]
    return mean


def step_size_path(old: State, shift: Doubles, rate: Rates) -> Doubles:
    """p_sigma <- (1 - c_s) p_sigma + sqrt(c_s (2 - c_s) mu_eff) C^(-1/2) shift / sigma (eq. 43): (d,).

    shift: (d,) new mean - old mean
    """
    gain = (rate.c_sigma * (2 - rate.c_sigma) * rate.mu_eff) ** 0.5 / old.sigma
    path: Doubles = (1 - rate.c_sigma) * old.p_sigma + gain * whitened(old, shift)
    return path


def path_is_short(p_sigma: Doubles, generation: int, rate: Rates) -> bool:
    """h_sigma: the mean makes no sudden large move, so p_c may learn (pycma's, on squared lengths).

    ||p_sigma||^2 / (1 - (1 - c_s)^(2 generation)) / d < 2 + 4 / (d + 1)
    """
    unbiased = float(np.sum(p_sigma**2)) / (1 - (1 - rate.c_sigma) ** (2 * generation))
    return unbiased / p_sigma.size - 1 < 1 + 4 / (p_sigma.size + 1)


def covariance_path(old: State, shift: Doubles, h_sigma: bool, rate: Rates) -> Doubles | None:
    """p_c <- (1 - c_c) p_c + h_sigma sqrt(c_c (2 - c_c) mu_eff) shift / sigma (eq. 45), or None."""
    if old.p_c is None:
        return None
    gain = (rate.c_c * (2 - rate.c_c) * rate.mu_eff) ** 0.5 / old.sigma
    path: Doubles = (1 - rate.c_c) * old.p_c + h_sigma * gain * shift
    return path


def covariance(
    old: State, p_c: Doubles | None, steps: Doubles, weights: Doubles, h_sigma: bool, rate: Rates
) -> Doubles | None:
    """C <- decay C + c_1 p_c p_c^T + c_mu sum w_i y_i y_i^T (eq. 46 and 47), its diagonal, or None.

    steps: (S, d) y_i = (x_i - mean) / sigma, best first
    Extra memory for "full": one (d, d) array.
    """
    if old.C is None or p_c is None:
        return None
    vectors = np.vstack((p_c, steps))
    c_1 = rate.c_1 * (1 - (1 - h_sigma) * rate.c_c * (2 - rate.c_c))
    decay = 1 - c_1 - rate.c_mu * np.sum(weights)
    bounded = bounded_negative_weights(weights, steps, mahalanobis_lengths(old, steps))
    gains = np.concatenate(([rate.c_1], rate.c_mu * bounded))
    if old.C.ndim == 1:
        return decay * old.C + gains @ vectors**2  # Ros & Hansen 2008: the diagonal alone
    C = decay * old.C
    C += (gains * vectors.T) @ vectors  # never S matrices of (d, d)
    return C


def bounded_negative_weights(weights: Doubles, steps: Doubles, lengths: Doubles) -> Doubles:
    """w_i d / ||C^(-1/2) y_i||^2 for negative w_i, so that C stays definite; else w_i (eq. 46): (S,).

    steps: (S, d) y_i;  lengths: (S,) their Mahalanobis lengths ||C^(-1/2) y_i||
    """
    dim = steps.shape[1]
    return np.where(weights < 0, weights * (dim / (lengths + 1e-9) ** 2), weights)


def step_size(sigma: float, p_sigma: Doubles, rate: Rates) -> float:
    """sigma <- sigma exp((||p_sigma|| / chi_d - 1) c_s / d_s) (eq. 44), at most by a factor e."""
    log_change = (np.linalg.norm(p_sigma) / rate.chi_d - 1) * (rate.c_sigma / rate.d_sigma)
    return float(sigma * np.exp(np.clip(log_change, -1, 1)))


def history(best_losses: Doubles, best: float, settings: Settings) -> Doubles:
    """The best losses of the last 10 + 30 d / S generations, newest last (pycma's length)."""
    kept = int(10 + 30 * settings.dim / settings.population)
    return np.append(best_losses, best)[-kept:]


def decomposition_is_due(state: State, rate: Rates) -> bool:
    """Whether C is due for an O(d^3) eigendecomposition (pycma's lazy gap). Only "full" has one."""
    return state.eigenvectors is not None and state.generation >= state.decomposed_at + rate.lazy_gap


def eigensystem(C: Doubles) -> tuple[Doubles, Doubles]:
    """Eigenvalues (d,), ascending, and eigenvectors, the columns of a (d, d) array, of a symmetric C.

    LAPACK leaves the sign of an eigenvector to chance. Here its largest entry is made positive, so that a
    seed gives the same search on another machine, up to round-off. About 20 MiB of workspace at d = 512.
    """
    variances, B = np.linalg.eigh(C)
    largest = np.take_along_axis(B, np.abs(B).argmax(axis=0)[np.newaxis], axis=0)
    return variances, B * np.where(largest < 0, -1.0, 1.0)


def decomposed(state: State) -> State:
    """The state with C made symmetric, and with its decomposition C = B D^2 B^T.

    It writes to the C of the given state, which must not be used again. This saves a matrix at the peak of
    memory.
    Raises NumericsError when C is not positive definite any more.
    """
    C = state.C
    assert C is not None
    C += C.T.copy()
    C /= 2
    if not np.isfinite(C).all():
        raise _indefinite(state.generation, np.nan)
    variances, B = eigensystem(C)
    if not variances[0] > 0:
        raise _indefinite(state.generation, variances[0])
    return replace(
        state,
        C=C,
        eigenvectors=np.ascontiguousarray(B.T),
        D=np.sqrt(variances),
        decomposed_at=state.generation,
    )


def _indefinite(generation: int, variance: float) -> NumericsError:
    return NumericsError(
        f"The covariance of the search is not positive definite in generation {generation}: its "
        f"smallest variance is {variance:g}. All must be positive. "
        f"Change to stage 2 earlier, or use --covariance diagonal."
    )


def sampled(state: State, settings: Settings, generator: np.random.Generator) -> State:
    """The state with new candidates, and with the directions of the next sketch.

    x_i = mean + sigma B D z_i, z_i ~ N(0, I) (eq. 38 to 40), clipped to the box. A point outside is not drawn
    again: the clipped point is both evaluated and told.
    """
    z = generator.standard_normal((settings.population, settings.dim))
    x = state.mean + state.sigma * coloured(state, z)
    n_directions = 0 if settings.sketch_rank is None or settings.rho == 0 else settings.sketch_rank
    return replace(
        state,
        candidates=_into_box(x, settings.bounds),
        directions=orthonormal_rows(generator.standard_normal((n_directions, settings.dim))),
        rng=dict(generator.bit_generator.state),
    )


def peak_bytes(settings: Settings) -> int:
    """The most memory at one moment in bytes, states included: while a full C is decomposed. Else 0."""
    return EIGEN_MATRICES * settings.dim**2 * 8 if settings.covariance == "full" else 0


# The search distribution's shape: C^(1/2) and C^(-1/2) for the three kinds of covariance.


def coloured(state: State, z: Doubles) -> Doubles:
    """B D z for every row z: (n, d) -> (n, d) (eq. 39)."""
    if state.eigenvectors is not None and state.D is not None:
        return (state.D * z) @ state.eigenvectors
    return z if state.C is None else np.sqrt(state.C) * z


def whitened(state: State, y: Doubles) -> Doubles:
    """C^(-1/2) y = B D^-1 B^T y: (d,) -> (d,), with the C decomposed last."""
    if state.eigenvectors is not None and state.D is not None:
        y = state.eigenvectors.T @ ((state.eigenvectors @ y) / state.D)
        return y
    return y if state.C is None else y / np.sqrt(state.C)


def mahalanobis_lengths(state: State, steps: Doubles) -> Doubles:
    """||C^(-1/2) y|| of every row y: (n, d) -> (n,), with the C decomposed last."""
    if state.eigenvectors is not None and state.D is not None:
        steps = (steps @ state.eigenvectors.T) / state.D
    elif state.C is not None:
        steps = steps / np.sqrt(state.C)
    lengths: Doubles = np.linalg.norm(steps, axis=1)
    return lengths


# States.

_NO_FEATURES: Floats = np.empty((0, 0, 0), np.float32)


def n_sweep(settings: Settings) -> int:
    """Queries of a generation's CGE sweep, or of its sketch; 0 when rho is 0."""
    if settings.rho == 0:
        return 0
    return 2 * settings.dim if settings.sketch_rank is None else 1 + settings.sketch_rank


def _n_answers(settings: Settings) -> int:
    """How many losses a generation is told: the sweep's and the candidates'. (A sketch is told features.)"""
    return settings.population + (n_sweep(settings) if settings.sketch_rank is None else 0)


def _first_state(settings: Settings, mean: Doubles, generator: np.random.Generator) -> State:
    d, kind = settings.dim, settings.covariance
    state = State(
        generation=0,
        mean=mean,
        sigma=float(settings.sigma0),
        p_sigma=np.zeros(d),
        p_c=None if kind == "identity" else np.zeros(d),
        C=None if kind == "identity" else np.ones(d),
        eigenvectors=None,
        D=None,
        decomposed_at=0,
        candidates=np.empty((settings.population, d)),
        directions=np.empty((0, d)),
        features=_NO_FEATURES,
        derivatives=np.empty(0),
        perturbation=np.zeros(d),
        answers=np.zeros(_n_answers(settings)),
        answered=0,
        best_losses=np.empty(0),
        last_losses=np.empty(0),
        rng={},
    )
    if kind == "full":
        # With equal eigenvalues, round-off would decide the axes. So spread them a little, as pycma does.
        state = decomposed(replace(state, C=np.diag(np.exp(1e-4 / d * np.arange(d)))))
    return sampled(state, settings, generator)


def _check_shapes(settings: Settings, state: State) -> None:
    d, square = settings.dim, (settings.dim, settings.dim)
    full, identity = settings.covariance == "full", settings.covariance == "identity"
    expected = {
        "mean": (d,),
        "p_sigma": (d,),
        "p_c": None if identity else (d,),
        "C": None if identity else square if full else (d,),
        "eigenvectors": square if full else None,
        "D": (d,) if full else None,
        "candidates": (settings.population, d),
        "answers": (_n_answers(settings),),
    }
    require_shapes(state, expected, "--dim, --population, --rho and --covariance")


def _into_box(x: Doubles, bounds: float | None) -> Doubles:
    return x if bounds is None else np.clip(x, -bounds, bounds)
