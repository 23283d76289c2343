"""The arrays that pass between the parts, by name."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol

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


def npy_offset(file: BinaryIO, dtype: type[np.generic], expected: tuple[int | None, ...]) -> int:
    """Where the data of a .npy file of ours begin; `file` is left there. Allocates nothing.

    Raises ValueError for another dtype, order or shape (None: any length), or another size.
    """
    try:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran_order, found = read(file)
    except Exception as error:  # numpy's parser of headers lets nearly anything out
        raise ValueError("is not a .npy file of version 1 or 2") from error
    offset = file.tell()
    fits = len(shape) == len(expected) and all(
        n >= 0 and e in (None, n) for n, e in zip(shape, expected, strict=True)
    )
    wanted = np.dtype(dtype).newbyteorder("<")
    size = os.fstat(file.fileno()).st_size
    if found != wanted or fortran_order or not fits or offset + math.prod(shape) * wanted.itemsize != size:
        raise ValueError(f"holds {found} {shape}, not {wanted} {expected}")
    return offset


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
