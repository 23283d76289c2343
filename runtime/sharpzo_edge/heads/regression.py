"""What the two regression heads share: least squares, with a penalty, of what the words leave over.

    R = Y - base L(X)                       Y one-hot, L: logits of the class features
    C = (M + a I)^-1 B R,  a = penalty K / N                                                              (1)

M and B are the kernel's or the features' own: see kernel.py and ridge.py. M is written once in its
eigenvectors V, where the inverse is diagonal, so that all penalties and bases cost little.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..types import Doubles, Floats
from .head import Head


@dataclass(frozen=True, eq=False, kw_only=True)
class Regression(ABC):
    """What all penalties and bases share; d is the size of M.

    vectors, values: of M, (d, d) and (d,)
    targets, words:  V^T B Y and V^T B L(X), (d, K)
    unit:            K / N
    """

    PENALTIES: ClassVar[tuple[float, ...]]
    BASES: ClassVar[tuple[float, ...]]
    UNMEASURED: ClassVar[tuple[float, float]]  # penalty and base where too few classes have two pictures

    vectors: Doubles
    values: Doubles
    targets: Doubles
    words: Doubles
    unit: float

    @abstractmethod
    def left_out(
        self, found: Penalised, rows: slice, features: Floats, labels: NDArray[np.int64], words: Floats
    ) -> Iterator[Doubles]:
        """See leave_one_out.Group."""

    @abstractmethod
    def head_of(self, coefficients: Doubles, base: float, made_by: dict[str, float]) -> Head:
        """The head of C (d, K)."""

    def at(self, penalty: float, bases: tuple[float, ...] | None = None) -> Penalised:
        """The candidates of one penalty. bases: None for all of BASES."""
        inverse: Doubles = 1 / (self.values + penalty * self.unit)
        return Penalised(self, penalty, self.BASES if bases is None else bases, inverse)

    def unmeasured(self) -> Head:
        """Where there is nothing to choose by."""
        penalty, base = self.UNMEASURED
        return self.at(penalty, (base,)).head(0)

    def groups(self) -> Iterator[Penalised]:
        """All candidates."""
        return map(self.at, self.PENALTIES)


@dataclass(frozen=True, eq=False)
class Penalised:
    """The candidates of one penalty, one for each base. inverse: (d,) of M + a I, in V."""

    regression: Regression
    penalty: float
    bases: tuple[float, ...]
    inverse: Doubles

    @property
    def n_options(self) -> int:
        return len(self.bases)

    def left_out(
        self, rows: slice, features: Floats, labels: NDArray[np.int64], words: Floats
    ) -> Iterator[Doubles]:
        return self.regression.left_out(self, rows, features, labels, words)

    def head(self, option: int) -> Head:
        """Equation (1)."""
        own, base = self.regression, self.bases[option]
        C = own.targets - base * own.words
        C *= self.inverse[:, np.newaxis]
        C = own.vectors @ C
        return own.head_of(C, base, {"penalty": self.penalty, "base": base})
