"""The settings of a run: what decides what it computes, apart from pictures, bundle and seed.

There are two kinds: of the paper's pair of stages (PaperSettings), and of our own (EdgeSettings). Each holds
what its stages use and nothing else, so that an option which would change nothing can be refused.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np

from ..clip.tower_plan import Tangents
from ..errors import UsageError
from ..search import cmaes, sketched_descent, sparse_zo
from ..search.sketched_descent import NO_SKETCH, Sketch
from ..types import Floats
from .objective import projection
from .stopping import Limits

AUTO = "auto"

# Tangents with products in 8 bits or float32; without tangents there are forward differences.
NO_TANGENTS = "none"
TANGENTS = ("int8", "fp32", NO_TANGENTS)
Covariance = Literal["full", "diagonal", "identity"]
# Directions of the sketch that gives stage 1 its sharpness step.
SHARPNESS_RANK = 16
# EdgeSettings: when patience ends a run: the mean over the development set, at 16 + 4 pictures a class.
LIKELY_QUERIES = 3_600
STEPS_AN_EVALUATION = 100  # PaperSettings: steps of stage 2 between two evaluations
NOT_OPTIONS = ("preset", "queries")  # fields of the settings that are not options of a command
# Ranks of stage 2 to try if memory is too small for the rank that was asked for.
SMALLER_RANKS = (32, 24, 16, 12, 8, 6, 4)


@dataclass(frozen=True, kw_only=True)
class TuneSettings(ABC):
    """What decides the numbers of a run, beside pictures, bundle and seed: the part common to both kinds.

    population, dim, sigma0, rho: of stage 1, see cmaes.Settings
    change_point: generations of stage 1, or "auto"
    prune_interval, prune_ratio: of stage 2
    patience:     evaluations without improvement that end stage 2; 0: stage 2 is not ended like this
    Raises UsageError for a value that cannot be used.
    """

    preset: str
    population: int
    dim: int = 512
    sigma0: float
    rho: float
    change_point: int | str
    prune_interval: int
    prune_ratio: float
    patience: int = 0

    @abstractmethod
    def stage1(self) -> cmaes.Settings:
        """The settings of stage 1."""

    @abstractmethod
    def projection(self, seed: np.random.SeedSequence, initial_context: Floats) -> Floats:
        """A, which turns w into a change of the context: (m D, d), or (), see objective.moved.

        initial_context: (m, D), the context at w = 0
        """

    def for_context(self, n_numbers: int) -> Self:
        """These settings for a context of n_numbers = m D numbers."""
        return self

    def is_projected(self, n_numbers: int) -> bool:
        """Whether A is a matrix, for a context of n_numbers = m D numbers."""
        return True

    @property
    def tunes(self) -> bool:
        """Whether anything is tuned; otherwise the words' one query is all."""
        return True

    @property
    def default_queries(self) -> int | None:
        """The limit of queries if the user sets none. None: the lengths of the stages end the run."""
        return None

    @property
    def n_generations(self) -> int:
        """The most generations of stage 1; sys.maxsize, so no limit, for an automatic change of stage."""
        return sys.maxsize if self.change_point == AUTO else int(self.change_point)

    @property
    def queries_a_generation(self) -> int:
        """Queries of a generation: sweep or sketch, population and evaluation.

        A sketch begins at the evaluation's point, so that query is counted once.
        """
        stage1 = self.stage1()
        n_sweep = cmaes.n_sweep(stage1)
        has_sketch = stage1.sketch_rank is not None and n_sweep > 0
        return n_sweep + self.population + 1 + has_sketch * (self.primal_queries - 1)

    @property
    def primal_queries(self) -> int:
        """Queries of a sketch for the pass that its tangents share."""
        return 0

    @property
    def tower_tangents(self) -> Tangents | None:
        """The tangents that the text tower is to compute; None: none."""
        return None

    @property
    def tangents_share(self) -> float:
        """The share of a long run's queries that are tangents."""
        return 0.0

    @property
    def expected_queries(self) -> float:
        """Queries of a run without a limit, those before stage 1 included; infinite without a fixed end."""
        return math.inf

    @property
    def likely_queries(self) -> float:
        """Queries of a run without a limit, as far as they can be told before."""
        return self.expected_queries

    @property
    def sketches(self) -> tuple[Sketch, ...]:
        """The sketches that stage 2 can use, the most wanted first. The memory plan chooses."""
        return (NO_SKETCH,)

    def with_sketch(self, sketch: Sketch) -> Self:
        """These settings with one of those sketches."""
        return self

    def with_tangents(self, choose: Callable[[str], str]) -> Self:
        """These settings with tangents chosen. choose: what was asked for -> one of TANGENTS."""
        return self


@dataclass(frozen=True, kw_only=True)
class PaperSettings(TuneSettings):
    """Settings of the paper's stages: sharpness-aware CMA-ES, then sparse zeroth-order SGD.

    mu_cge, mu_rge, bounds, covariance, eta: see cmaes.Settings and sparse_zo.Settings
    projection_std: standard deviation of A's entries
    steps:          generations of stage 1 and steps of stage 2 together (the paper's T)
    """

    population: int = 40
    sigma0: float = 0.4
    rho: float = 0.1
    mu_cge: float = 1e-3
    mu_rge: float = 1e-3
    projection_std: float = 1.0
    bounds: float | None = None
    covariance: Covariance = "full"
    change_point: int | str = 100
    steps: int = 20_000
    prune_interval: int = 200
    prune_ratio: float = 0.5
    eta: float = 1e-3

    def __post_init__(self) -> None:
        """Refuse now what a stage would refuse later, perhaps after hours."""
        if self.steps < 1:
            raise UsageError(f"--steps {self.steps} is not a length. It takes 1 or more. Try --steps 20000")
        if not 0 < self.projection_std < math.inf:
            raise UsageError(
                f"--projection-std {self.projection_std} is not a spread. It takes a positive number. "
                f"Try --projection-std 1"
            )
        self.stage1()
        self.stage2(self.steps)

    def stage1(self) -> cmaes.Settings:
        return cmaes.Settings(
            dim=self.dim,
            population=self.population,
            sigma0=self.sigma0,
            rho=self.rho,
            mu_cge=self.mu_cge,
            bounds=self.bounds,
            covariance=self.covariance,
        )

    def stage2(self, steps: int) -> sparse_zo.Settings:
        return sparse_zo.Settings(
            dim=self.dim,
            steps=steps,
            eta=self.eta,
            mu_rge=self.mu_rge,
            mu_cge=self.mu_cge,
            prune_interval=self.prune_interval,
            prune_ratio=self.prune_ratio,
        )

    def projection(self, seed: np.random.SeedSequence, initial_context: Floats) -> Floats:
        return projection(seed, initial_context.size, self.dim, self.projection_std)

    @property
    def n_generations(self) -> int:
        return min(super().n_generations, self.steps)

    @property
    def expected_queries(self) -> float:
        steps = self.steps - self.n_generations
        sweeps = math.ceil(steps / self.prune_interval) if self.prune_ratio > 0 else 0
        stage2 = 2 * steps + sweeps * 2 * self.dim + steps // STEPS_AN_EVALUATION
        return Limits().opening_queries + self.n_generations * self.queries_a_generation + stage2


@dataclass(frozen=True, kw_only=True)
class EdgeSettings(TuneSettings):
    """Settings of our stages: a short sharpness-aware CMA-ES, then descent on sketches of the class features.

    A is scaled to the initial context. So |w| = 1 moves the context by its own size, whatever the model. rho
    and all steps are relative to omega(w) = sqrt(1 + |w|²). A few generations are too few to learn the
    search's covariance, so C stays the identity.

    dim:             d, numbers in w. 0: w is the context itself, m D numbers; A is a multiple of the identity
    rank, kept_rounds: of the sketches in stage 2, see sketched_descent.Settings
    tangents:        how derivatives along directions are computed: TANGENTS, or AUTO before that is decided
    label_smoothing: of the loss in stage 2; stage 1, evaluations and results have none
    queries:         limit for the whole run, unless the user sets one
    """

    dim: int = 0
    population: int = 20
    sigma0: float = 1.0  # candidates move the context by about sqrt(d) times its size
    rho: float = 0.02
    change_point: int | str = 8
    rank: int = 32
    kept_rounds: int = 3
    tangents: str = AUTO
    label_smoothing: float = 0.1
    prune_interval: int = 5
    prune_ratio: float = 0.0
    patience: int = 15
    queries: int = 8_000

    def __post_init__(self) -> None:
        """Refuse now what a stage would refuse later."""
        if self.tangents not in (AUTO, *TANGENTS):
            raise UsageError(
                f"--tangents {self.tangents} is not known. It takes one of: {AUTO}, {', '.join(TANGENTS)}. "
                f"Try --tangents auto"
            )
        if not 0 <= self.label_smoothing < 1:
            raise UsageError(
                f"--label-smoothing {self.label_smoothing} is not a share. It takes a number from 0, and "
                f"below 1. Try --label-smoothing 0.1"
            )
        known = self.for_context(1)
        known.stage1()
        known.stage2()

    def for_context(self, n_numbers: int) -> Self:
        return self if self.dim else dataclasses.replace(self, dim=n_numbers)

    def is_projected(self, n_numbers: int) -> bool:
        return self.dim != n_numbers

    def stage1(self) -> cmaes.Settings:
        return cmaes.Settings(
            dim=self.dim,
            population=self.population,
            sigma0=self.sigma0,
            rho=self.rho,
            covariance="identity",
            sketch_rank=max(1, min(SHARPNESS_RANK, self.rank, self.dim)),
        )

    def stage2(self) -> sketched_descent.Settings:
        return sketched_descent.Settings(
            dim=self.dim,
            rank=self.rank,
            kept_rounds=self.kept_rounds,
            prune_interval=self.prune_interval,
            prune_ratio=self.prune_ratio,
        )

    def projection(self, seed: np.random.SeedSequence, initial_context: Floats) -> Floats:
        """A, scaled so that |A w| is about |w| times the length of the initial context.

        A random A's entries then have the spread of the context's own numbers. If w is the context itself, A
        is a single number of shape (): the length of the initial context.
        """
        n_numbers = initial_context.size
        length = math.sqrt(np.square(initial_context, dtype=np.float64).sum())
        if not self.is_projected(n_numbers):
            return np.array(length, dtype=np.float32)
        return projection(seed, n_numbers, self.dim, length / math.sqrt(n_numbers))

    @property
    def tunes(self) -> bool:
        return self.queries > 1

    @property
    def default_queries(self) -> int:
        return self.queries

    @property
    def likely_queries(self) -> int:
        return LIKELY_QUERIES if self.patience else self.queries

    @property
    def primal_queries(self) -> int:
        return int(self.tangents != NO_TANGENTS)

    @property
    def tower_tangents(self) -> Tangents | None:
        if not self.tunes or self.tangents == NO_TANGENTS:
            return None
        return "int8" if self.tangents == "int8" else "fp32"

    @property
    def queries_a_round(self) -> int:
        """Queries of a round of stage 2: its sketch, and the trials."""
        return self.primal_queries + min(self.rank, self.dim) + len(sketched_descent.FACTORS)

    @property
    def tangents_share(self) -> float:
        return 1 - len(sketched_descent.FACTORS) / self.queries_a_round

    @property
    def sketches(self) -> tuple[Sketch, ...]:
        """The sketches that stage 2 can use, the most wanted first.

        If memory is short, the rank is lowered first, because fewer kept rounds cost more accuracy. If even
        the lowest rank does not fit with kept rounds, no rounds are kept, and the rank is again as high as
        fits.
        """
        if not self.tunes:
            return (NO_SKETCH,)
        most = min(self.rank, self.dim or self.rank)  # d has room for no more directions
        ranks = (most, *(rank for rank in SMALLER_RANKS if rank < most))
        kept = 0 if self.prune_ratio > 0 else self.kept_rounds
        wanted = [(rank, self._kept_beside(rank, kept)) for rank in ranks] + [(rank, 0) for rank in ranks]
        return tuple(dict.fromkeys(Sketch(rank, rounds) for rank, rounds in wanted))

    def with_tangents(self, choose: Callable[[str], str]) -> Self:
        return dataclasses.replace(self, tangents=choose(self.tangents))

    def _kept_beside(self, rank: int, rounds: int) -> int:
        """How many rounds to keep: `rounds`, or fewer if d has no room for so many directions."""
        return min(rounds, -(-(self.dim - rank) // rank)) if self.dim else rounds

    def with_sketch(self, sketch: Sketch) -> Self:
        if not self.tunes:
            return self
        return dataclasses.replace(self, rank=sketch.rank, kept_rounds=sketch.kept_rounds)
