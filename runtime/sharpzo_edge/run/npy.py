"""Where the data of a .npy file begin, without reading them."""

from __future__ import annotations

import math
import os
from typing import BinaryIO

import numpy as np


def npy_offset(file: BinaryIO, dtype: type[np.generic], expected: tuple[int | None, ...]) -> int:
    """Where the data of a .npy file of ours begin; `file` is left there. Allocates nothing.

    Raises ValueError for another dtype, order or shape (None: any length), or another size; OSError.
    """
    try:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran_order, found = read(file)
    except OSError:
        raise
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
