"""What all optimisers of this room have in common: they ask for points, and are told the answers.

The caller owns the loop, computes the answers, and keeps the checkpoints. `ask(limit)` returns the next
points without an answer; without a `tell` in between it returns the same points again. `tell` takes the
answers in order, a few or many at a time. Settings are constant. A State holds all that changes, also the
state of the random generator; it is a value, so it can be saved and used again.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from ..types import Doubles, Floats

S = TypeVar("S")


@dataclass(frozen=True)
class Centre:
    """The point of a sketch: tangents are wanted there, along several directions.

    w:              (d,) float64
    class_features: (K, E) float32 at w
    is_new:         whether nothing of this sketch was told yet
    in_half:        whether the tangents are kept in half precision
    """

    w: Doubles
    class_features: Floats
    is_new: bool
    in_half: bool = False


@dataclass(frozen=True)
class Ask:
    """Points whose answers an optimiser wants.

    points: (n, d) float64, one a row; n is 0 when there is nothing left to ask. Directions for tangents
    wants:  "losses", one number a point; "features", the class features (K, E) of every point; or "tangents",
            the derivative of the class features (K, E) along every direction
    centre: where the tangents are wanted
    """

    points: Doubles
    wants: Literal["losses", "features", "tangents"] = "losses"
    centre: Centre | None = None


class Optimiser(Protocol):
    """What the loop over the stages (tuning/loop.py) needs of an optimiser."""

    @property
    def state(self) -> Any:
        """The checkpoint of this moment: a dataclass whose arrays are never written to again."""

    @property
    def solution(self) -> Doubles:
        """The point that is the result if the run ends now: (d,) float64."""

    @property
    def solution_features(self) -> Floats | None:
        """The class features (K, E) at `solution`, or None if they are not known. The array belongs to the
        state: do not write to it.
        """

    @property
    def n_updates(self) -> int:
        """How many updates were made: generations, steps or rounds."""

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to ask."""

    @property
    def between_updates(self) -> bool:
        """Whether no answer was told since the last update."""

    @property
    def points_of_update(self) -> int:
        """How many answers the next update needs, including those that were told already."""

    @property
    def has_sketch(self) -> bool:
        """Whether tangents are among those answers."""

    def ask(self, limit: int) -> Ask:
        """The next points without an answer, at most `limit` of them."""

    def tell(self, answers: npt.ArrayLike, /) -> None:
        """Take the answers to the first n points that have none: losses (n,), class features or tangents
        (n, K, E).
        """


def c_ordered(state: S) -> S:
    """The same state with all arrays in C order.

    The order of an array in memory decides the last bits of a matrix product. So a loaded state must have the
    same order as the saved one. Arrays that are in C order already are shared, not copied: nobody writes to a
    state's arrays.
    """
    own: dict[str, Any] = {
        name: np.asarray(value, order="C") if isinstance(value, np.ndarray) else deepcopy(value)
        for name, value in vars(state).items()
    }
    return type(state)(**own)


def start_point(x0: npt.ArrayLike, dim: int) -> Doubles:
    """A copy of x0 (d,) in float64. Raises ValueError for a wrong shape or numbers that are not finite."""
    point = np.array(x0, dtype=np.float64)
    if point.shape != (dim,) or not np.isfinite(point).all():
        raise ValueError(f"x0 must be {dim} finite numbers, has shape {point.shape}")
    return point


def require_limit(limit: int) -> None:
    """Raises ValueError unless at least one point is asked for."""
    if limit < 1:
        raise ValueError(f"limit is {limit}; at least one point must be asked for")


def new_generator(seed_sequence: np.random.SeedSequence) -> np.random.Generator:
    """The Generator (PCG64) of a new search."""
    return np.random.Generator(np.random.PCG64(seed_sequence))


def generator_of(rng: dict[str, Any]) -> np.random.Generator:
    """A Generator (PCG64) in the state that `rng`, a State's field, describes."""
    generator = np.random.Generator(np.random.PCG64(0))
    generator.bit_generator.state = rng
    return generator


def require(fits: bool, option: str, value: object, allowed: str, example: str) -> None:
    """Raises UsageError unless `fits`. The message names the option, its value and what is allowed."""
    if not fits:
        raise UsageError(
            f"A setting cannot be used: {option} is {value}. It must be {allowed}. Try {option} {example}."
        )


def require_shapes(state: object, expected: Mapping[str, tuple[int, ...] | None], options: str) -> None:
    """Raises UsageError when an array of a state has another shape than its settings need.

    expected: name of the state's field -> shape, or None if the field must be None
    options:  the options that decide these shapes, for the message
    """
    for name, shape in expected.items():
        value = getattr(state, name)
        found = None if value is None else value.shape
        if found != shape:
            raise UsageError(
                f"The checkpoint was made with other settings: its {name} has shape {found}. These settings "
                f"need {shape}. Repeat {options} as they were, or start over with --restart."
            )
