"""The arrays that pass between the parts, by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]  # what towers take and give
Doubles = NDArray[np.float64]  # what optimisers compute with
Halves = NDArray[np.float16]  # columns of a Jacobian, of which there are many

CLASS_BLOCK_BYTES = 1 << 20  # of class features in double precision


def class_blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Classes of (..., K, E) features, all of them once, as many at a time as CLASS_BLOCK_BYTES hold.

    >>> [(block.start, block.stop) for block in class_blocks((300, 1024))]
    [(0, 128), (128, 256), (256, 300)]
    """
    n_classes, embed_dim = shape[-2:]
    step = max(1, CLASS_BLOCK_BYTES // (8 * embed_dim))
    for start in range(0, n_classes, step):
        yield slice(start, min(start + step, n_classes))


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

    def blocks(self, n_rows: int) -> Iterator[tuple[Floats, NDArray[np.int64]]]:
        """Features (b, E) and labels (b,), n_rows pictures at a time."""
        for start in range(0, len(self.labels), n_rows):
            rows = slice(start, start + n_rows)
            yield self.features[rows], self.labels[rows]
