"""A run's state on disk: one dataclass, its arrays as safetensors, the rest as JSON in the same file.

A checksum covers both: what is read is what was written, to the last bit.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import SharpzoError
from .files import OpenFile, cannot, canonical_json, is_there, replacing
from .typed_json import Arrays, read_dataclass, take_arrays

METADATA_KEY, CHECKSUM_KEY = "sharpzo-edge checkpoint", "checksum"
SIZE_LIMIT_BYTES = 2 << 30
SAFETENSORS_DTYPES = {"<f2": "F16", "<f4": "F32", "<f8": "F64", "<i8": "I64", "|b1": "BOOL"}

S = TypeVar("S")


def save_state(path: Path, state: Any, made_for: dict[str, Any]) -> None:
    """Write a dataclass (nested ones too) of arrays and JSON values, and what it was made for."""
    arrays: Arrays = {}
    tree = take_arrays(state, arrays)
    text = canonical_json({"state": tree, "made_for": made_for}).decode()
    metadata = {METADATA_KEY: text, CHECKSUM_KEY: _checksum(text, arrays)}
    with replacing(path) as file:
        _write_safetensors(file, arrays, metadata)


def _write_safetensors(file: OpenFile, arrays: Arrays, metadata: dict[str, str]) -> None:
    """As the safetensors library would, which makes two copies of all arrays on the way; here none is made.

    A header's length (8 bytes), the header, filled up with spaces to a multiple of 8, and the arrays.
    """
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, array in arrays.items():
        start, end = end, end + array.nbytes
        header[name] = {
            "dtype": SAFETENSORS_DTYPES[array.dtype.str],
            "shape": array.shape,
            "data_offsets": [start, end],
        }
    text = canonical_json(header)
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for array in arrays.values():
        file.write(array.reshape(-1).view(np.uint8).data)


def _read_safetensors(path: Path) -> tuple[dict[str, str], Arrays]:
    """What `_write_safetensors` wrote: metadata, and arrays of their own. Equal ones are one, as they were
    in the run; and no page of the file is mapped beside them.

    Raises ValueError, KeyError, TypeError or AttributeError for anything else.
    """
    arrays: Arrays = {}
    with path.open("rb") as file:
        n_left = os.fstat(file.fileno()).st_size - 8
        length = int.from_bytes(file.read(8), "little")
        if length > n_left:
            raise ValueError("its header is longer than the file")
        header = json.loads(file.read(length))
        n_left -= length
        metadata = header.pop("__metadata__")
        dtypes = {name: np.dtype(dtype) for dtype, name in SAFETENSORS_DTYPES.items()}
        end = 0
        for name, place in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            dtype, shape = dtypes[place["dtype"]], tuple(place["shape"])
            start, end = end, end + math.prod(shape) * dtype.itemsize
            if place["data_offsets"] != [start, end] or not start <= end <= n_left:
                raise ValueError(f"{name} is not where it should be")
            array = np.empty(shape, dtype)
            file.readinto(array.reshape(-1).view(np.uint8).data)
            arrays[name] = next((a for a in arrays.values() if _is_same(a, array)), array)
    if end != n_left:
        raise ValueError("it is longer or shorter than its header says")
    return metadata, arrays


def _is_same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """To the last bit."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return np.array_equal(a.reshape(-1).view(np.uint8), b.reshape(-1).view(np.uint8))


def load_state(path: Path, kind: type[S]) -> tuple[S, dict[str, Any]] | None:
    """Read what `save_state` wrote: (the dataclass, what it was made for); None when there is no file.

    Raises SharpzoError for a file that is damaged, or cannot be read.
    """
    if not is_there(path):
        return None
    try:
        if path.stat().st_size > SIZE_LIMIT_BYTES:
            raise ValueError(f"it has more than {SIZE_LIMIT_BYTES:,} bytes")
        metadata, arrays = _read_safetensors(path)
        if metadata[CHECKSUM_KEY] != _checksum(metadata[METADATA_KEY], arrays):
            raise ValueError("its checksum is another")
        parts = json.loads(metadata[METADATA_KEY])
        state = read_dataclass(kind, parts["state"], arrays)
        if arrays or not isinstance(parts["made_for"], dict):
            raise ValueError(f"unknown arrays {sorted(arrays)}, or made for nothing")
        return state, parts["made_for"]
    except OSError as error:  # the disk's: the checkpoint itself may be whole
        raise cannot("read", path, error) from error
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as e:
        raise SharpzoError(
            f"The checkpoint {path} cannot be read ({e}). It must be as tune wrote it. "
            f"Start over with: --restart"
        ) from e


def _checksum(text: str, arrays: Arrays) -> str:
    """Of the JSON, and of every array's name, type, shape and bytes. Copies no array."""
    found = hashlib.sha256(text.encode())
    for name, array in sorted(arrays.items()):
        found.update(canonical_json([name, array.dtype.str, array.shape]))
        found.update(array.reshape(-1).view(np.uint8).data)
    return found.hexdigest()
