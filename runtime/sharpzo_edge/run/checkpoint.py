"""A run's state on disk: one dataclass, its arrays as safetensors, the rest as JSON in the same file.

A checksum covers both: what is read is what was written, to the last bit.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import types
import typing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SharpzoError, UsageError
from .files import OpenFile, canonical_json, replacing

METADATA_KEY, CHECKSUM_KEY = "sharpzo-edge checkpoint", "checksum"
SIZE_LIMIT_BYTES = 2 << 30
LONGEST_SHOWN = 40  # characters of a value that a message shows
SAFETENSORS_DTYPES = {"<f2": "F16", "<f4": "F32", "<f8": "F64", "<i8": "I64", "|b1": "BOOL"}
# What differs where a value is a checksum, which tells a reader nothing.
BEHIND_A_CHECKSUM = {
    "--bundle": "it is another bundle",
    "--images": "the files of the folder have changed (names, sizes or times)",
}
ARRAY = "array"  # stands in the JSON where an array is


def save_state(path: Path, state: Any, made_for: dict[str, Any]) -> None:
    """Write a dataclass (nested ones too) of arrays and JSON values, and what it was made for."""
    arrays: dict[str, np.ndarray] = {}
    tree = _take_arrays(state, "", arrays)
    text = canonical_json({"state": tree, "made_for": made_for}).decode()
    metadata = {METADATA_KEY: text, CHECKSUM_KEY: _checksum(text, arrays)}
    with replacing(path) as file:
        _write_safetensors(file, arrays, metadata)


def _write_safetensors(file: OpenFile, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
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


def _read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """What `_write_safetensors` wrote: metadata, and arrays of their own. Equal ones are one, as they were
    in the run; and no page of the file is mapped beside them.

    Raises ValueError, KeyError, TypeError or AttributeError for anything else.
    """
    arrays: dict[str, np.ndarray] = {}
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


def _is_same(a: np.ndarray, b: np.ndarray) -> bool:
    """To the last bit."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return np.array_equal(a.reshape(-1).view(np.uint8), b.reshape(-1).view(np.uint8))


def load_state(path: Path, kind: type) -> tuple[Any, dict[str, Any]] | None:
    """Read what `save_state` wrote: (the dataclass, what it was made for); None when there is no file.

    Raises SharpzoError for a file that is damaged.
    """
    if not path.exists():
        return None
    try:
        if path.stat().st_size > SIZE_LIMIT_BYTES:
            raise ValueError(f"it has more than {SIZE_LIMIT_BYTES:,} bytes")
        metadata, arrays = _read_safetensors(path)
        if metadata[CHECKSUM_KEY] != _checksum(metadata[METADATA_KEY], arrays):
            raise ValueError("its checksum is another")
        parts = json.loads(metadata[METADATA_KEY])
        state = _put_arrays(kind, parts["state"], "", arrays)
        if arrays or not isinstance(parts["made_for"], dict):
            raise ValueError(f"unknown arrays {sorted(arrays)}, or made for nothing")
        return state, parts["made_for"]
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as e:
        raise SharpzoError(
            f"The checkpoint {path} cannot be read ({e}). It must be as tune wrote it. "
            f"Start over with: --restart"
        ) from e


def refuse_another_command(what: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises UsageError, naming the first in `now`'s order, when `what` was made for something else."""
    nothing = object()
    for name in dict.fromkeys((*now, *before)):
        if before.get(name, nothing) != now.get(name, nothing):
            values = f"{_shown(before.get(name))}, now {_shown(now.get(name))}"
            raise UsageError(
                f"{what} was made with another {name}: {BEHIND_A_CHECKSUM.get(name, values)}. "
                f"It belongs to the command that began it. Repeat that command, or start over with --restart"
            )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def _checksum(text: str, arrays: dict[str, np.ndarray]) -> str:
    """Of the JSON, and of every array's name, type, shape and bytes. Copies no array."""
    found = hashlib.sha256(text.encode())
    for name, array in sorted(arrays.items()):
        found.update(canonical_json([name, array.dtype.str, array.shape]))
        found.update(array.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def _take_arrays(value: Any, where: str, arrays: dict[str, np.ndarray]) -> Any:
    """A dataclass as JSON; its arrays move into `arrays` under dotted names."""
    if dataclasses.is_dataclass(value):
        return {
            f.name: _take_arrays(getattr(value, f.name), f"{where}.{f.name}".lstrip("."), arrays)
            for f in dataclasses.fields(value)
        }
    if isinstance(value, np.ndarray):
        arrays[where] = np.asarray(value, order="C")  # ascontiguousarray would make 0-d ones 1-d
        return ARRAY
    return value


def _put_arrays(kind: Any, tree: Any, where: str, arrays: dict[str, np.ndarray]) -> Any:
    """A field of type `kind`; its arrays are taken out of `arrays`. Raises ValueError for another form."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return None if tree is None else _put_arrays(_alternative(arguments, tree), tree, where, arrays)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = typing.get_type_hints(kind)
        if not isinstance(tree, dict) or set(tree) != set(hints):
            raise ValueError(f"{where or 'the state'} has other fields")
        return kind(
            **{
                name: _put_arrays(hint, tree[name], f"{where}.{name}".lstrip("."), arrays)
                for name, hint in hints.items()
            }
        )
    if (origin or kind) in (np.ndarray, NDArray):
        if tree != ARRAY or where not in arrays:
            raise ValueError(f"{where} is no array")
        array = arrays.pop(where)
        if arguments and array.dtype != _dtype_of(kind):
            raise ValueError(f"{where} has dtype {array.dtype}")
        return array
    if kind is not Any and type(tree) is not (origin or kind):
        raise ValueError(f"{where} is {tree!r:.40}")
    return tree


def _alternative(kinds: tuple[Any, ...], tree: Any) -> Any:
    """Which of a union's types a value has: the dataclass with its fields, otherwise the first."""
    for kind in filter(dataclasses.is_dataclass, kinds):
        if isinstance(tree, dict) and {f.name for f in dataclasses.fields(kind)} == set(tree):
            return kind
    return kinds[0]


def _dtype_of(annotation: Any) -> Any:
    """np.float64 of NDArray[np.float64]: an alias of its own from numpy 2.5 on, spelt out before."""
    arguments = typing.get_args(annotation)
    return arguments[0] if typing.get_origin(annotation) is NDArray else typing.get_args(arguments[1])[0]
