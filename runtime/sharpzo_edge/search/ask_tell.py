"""What every optimiser here has in common: it asks for points, and is told the answers.

The caller owns the loop, the losses and the checkpoints. `ask(limit)` returns the next points not yet
answered, the same ones until they are; `tell` takes the answers in parts of any size. Settings stay,
a State is a value that holds all that evolves, and randomness is a Generator whose state lies in it.
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
class Ask:
    """Points that an optimiser wants to know about.

    points: (n, d) float64, one point a row; n is 0 when there is nothing left to ask
    wants:  "losses", one number a point; "features", the class features of every point
    """

    points: Doubles
    wants: Literal["losses", "features"] = "losses"


class Optimiser(Protocol):
    """What the loop over the stages knows of an optimiser."""

    @property
    def state(self) -> Any:
        """The checkpoint of this moment: a dataclass, and a value."""

    @property
    def solution(self) -> Doubles:
        """(d,) float64: the point that an end at this moment would return."""

    @property
    def solution_features(self) -> Floats | None:
        """Its class features (K, E), when they are known already; the state's own, not to be written to."""

    @property
    def n_updates(self) -> int:
        """How many updates were made: generations, steps or rounds."""

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to ask."""

    @property
    def between_updates(self) -> bool:
        """Whether no answer has been told since the last update."""

    @property
    def points_of_update(self) -> int:
        """How many answers the next update takes, those that were told already included."""

    def ask(self, limit: int) -> Ask:
        """The next at most `limit` points."""

    def tell(self, answers: npt.ArrayLike, /) -> None:
        """Losses (n,) or class features (n, K, E) of the first n points not yet answered."""


def c_ordered(state: S) -> S:
    """A state with C-ordered arrays: their order in memory decides a product's last bits.

    Those that are so already are shared with the given one: nobody ever writes to a state's arrays.
    """
    own: dict[str, Any] = {
        name: np.asarray(value, order="C") if isinstance(value, np.ndarray) else deepcopy(value)
        for name, value in vars(state).items()
    }
    return type(state)(**own)


def generator_of(rng: dict[str, Any]) -> np.random.Generator:
    """The Generator that a State's `rng` describes."""
    generator = np.random.Generator(np.random.PCG64(0))
    generator.bit_generator.state = rng
    return generator


def require(fits: bool, option: str, value: object, allowed: str, example: str) -> None:
    """Raises UsageError unless a setting fits."""
    if not fits:
        raise UsageError(
            f"A setting cannot be used: {option} is {value}. It must be {allowed}. Try {option} {example}."
        )


def require_shapes(state: object, expected: Mapping[str, tuple[int, ...] | None], options: str) -> None:
    """Raises UsageError when a state's arrays were made with other settings than `options` say now."""
    for name, shape in expected.items():
        value = getattr(state, name)
        found = None if value is None else value.shape
        if found != shape:
            raise UsageError(
                f"The checkpoint was made with other settings: its {name} has shape {found}. These settings "
                f"need {shape}. Repeat {options} as they were, or start over with --restart."
            )
