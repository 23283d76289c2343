"""The arrays that pass between the parts, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]  # what towers take and give
Doubles = NDArray[np.float64]  # what optimisers compute with
Halves = NDArray[np.float16]  # columns of a Jacobian, of which there are many


class FeatureRows(Protocol):
    """Rows of features that can be taken in slices: an array, or a file that is read in blocks."""

    def __getitem__(self, rows: slice, /) -> Floats: ...


@dataclass(frozen=True)
class LabelledFeatures:
    """Unit image features (N, E) float32 and their classes (N,) int64."""

    features: FeatureRows
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)
