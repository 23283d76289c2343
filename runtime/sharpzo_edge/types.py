"""The names of the array types that pass between the rooms, and ways to read large arrays in blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]  # what the towers take and return
Doubles = NDArray[np.float64]  # what optimisers compute with
Halves = NDArray[np.float16]  # columns of a Jacobian: many, so in half precision

CLASS_BLOCK_BYTES = 1 << 20  # the most that one block of class features takes in double precision


def class_blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Slices over the classes of an array (..., K, E): each class once, in order.

    A block in double precision takes at most CLASS_BLOCK_BYTES, or is a single class.

    >>> [(block.start, block.stop) for block in class_blocks((300, 1024))]
    [(0, 128), (128, 256), (256, 300)]
    """
    n_classes, embed_dim = shape[-2:]
    step = max(1, CLASS_BLOCK_BYTES // (8 * embed_dim))
    for start in range(0, n_classes, step):
        yield slice(start, min(start + step, n_classes))


class FeatureRows(Protocol):
    """Feature vectors (N, E) that can be sliced by rows: an array, or a file that is read in blocks."""

    def __getitem__(self, rows: slice, /) -> Floats: ...


@dataclass(frozen=True)
class LabelledFeatures:
    """Image features (N, E) float32, each row of length one, and the class of each row: labels (N,) int64."""

    features: FeatureRows
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def blocks(self, n_rows: int) -> Iterator[tuple[Floats, NDArray[np.int64]]]:
        """Yields features (b, E) and labels (b,). b is n_rows; the last block may be smaller."""
        for start in range(0, len(self.labels), n_rows):
            rows = slice(start, start + n_rows)
            yield self.features[rows], self.labels[rows]


@dataclass(frozen=True)
class Picked:
    """Some rows of others, by their numbers in increasing order. A block is read from first to last."""

    features: FeatureRows
    rows: NDArray[np.int64]

    def __getitem__(self, rows: slice) -> Floats:
        numbers = self.rows[rows]
        if not len(numbers):
            return self.features[:0]
        first = int(numbers[0])
        return self.features[first : int(numbers[-1]) + 1][numbers - first]


@dataclass(frozen=True)
class Joined:
    """Rows of one set and then of another. Nothing is copied but what is asked for."""

    first: LabelledFeatures
    then: LabelledFeatures

    def __getitem__(self, rows: slice) -> Floats:
        n = len(self.first)
        start, end, _ = rows.indices(n + len(self.then))
        parts = (
            self.first.features[min(start, n) : min(end, n)],
            self.then.features[max(start - n, 0) : max(end - n, 0)],
        )
        there = [part for part in parts if len(part)]
        return there[0] if len(there) == 1 else np.concatenate(parts)


def joined(first: LabelledFeatures, then: LabelledFeatures) -> LabelledFeatures:
    """One set after another."""
    return LabelledFeatures(Joined(first, then), np.concatenate([first.labels, then.labels]))
