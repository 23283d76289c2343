"""Files that survive a power cut: written beside, flushed to the disk, renamed.

A checkpoint is one dataclass: its arrays are safetensors, the rest is JSON in the same file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import tempfile
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from .errors import SharpzoError

METADATA_KEY = "sharpzo-edge checkpoint"
ARRAY = "array"  # stands in the JSON where an array is


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file beside `path`; when the block ends well, `path` is replaced by it at once.

    Whoever reads `path` sees the old bytes or the new ones, never a part. When the block raises,
    the file beside is removed and `path` is as it was.
    """
    path = Path(path)
    try:
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(beside, 0o666 & ~_umask())
        os.replace(beside, path)
        sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        if isinstance(error, OSError):
            raise cannot_write(path, error) from error
        raise


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries: a rename is only then safe from a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    with replacing(path) as file:
        file.write(canonical_json(value))


def canonical_json(value: Any) -> bytes:
    """The one spelling of a JSON value: keys sorted, no spaces, UTF-8, no NaN."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def save_state(path: Path, state: Any, made_for: dict[str, Any]) -> None:
    """Write a dataclass (nested ones too) of arrays and JSON values, and what it was made for."""
    arrays: dict[str, np.ndarray] = {}
    tree = _take_arrays(state, "", arrays)
    metadata = {METADATA_KEY: canonical_json({"state": tree, "made_for": made_for}).decode()}
    with replacing(path) as file:
        file.write(safetensors.numpy.save(arrays, metadata))


def load_state(path: Path, kind: type) -> tuple[Any, dict[str, Any]] | None:
    """Read what `save_state` wrote: (the dataclass, what it was made for); None when there is no file.

    Raises SharpzoError for a file that is damaged.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, "numpy") as file:
            parts = json.loads((file.metadata() or {})[METADATA_KEY])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        state = _put_arrays(kind, parts["state"], "", arrays)
        if arrays or not isinstance(parts["made_for"], dict):
            raise ValueError(f"unknown arrays {sorted(arrays)}, or made for nothing")
        return state, parts["made_for"]
    except (OSError, SafetensorError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as e:
        raise SharpzoError(
            f"The checkpoint {path} cannot be read ({e}). It must be as tune wrote it. "
            f"Start over with: --restart"
        ) from e


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
        return None if tree is None else _put_arrays(arguments[0], tree, where, arrays)
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
    if (origin or kind) is np.ndarray:
        if tree != ARRAY or where not in arrays:
            raise ValueError(f"{where} is no array")
        array = arrays.pop(where)
        if arguments and array.dtype != typing.get_args(arguments[1])[0]:
            raise ValueError(f"{where} has dtype {array.dtype}")
        return array
    if kind is not Any and type(tree) is not (origin or kind):
        raise ValueError(f"{where} is {tree!r:.40}")
    return tree


def cannot_write(path: Path, error: OSError) -> SharpzoError:
    return SharpzoError(
        f"Cannot write {path}: {error.strerror or error}. The folder must exist, be writable and "
        f"have room left. Free some space or choose another place with --output."
    )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
