"""From parsed JSON to dataclasses, by their type annotations: manifests, records, results and checkpoints.

A checkpoint's arrays do not fit in JSON. They lie beside it, and stand in it as the word "array"; their
names are the fields' names, joined by dots.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

ARRAY = "array"  # stands in the JSON where an array is
LARGEST_INT, LARGEST_FLOAT = 2**62, 1e300

Arrays = dict[str, NDArray[Any]]
D = TypeVar("D")


def read_dataclass(kind: type[D], value: Any, arrays: Arrays | None = None) -> D:
    """Build a dataclass (nested ones too) from parsed JSON.

    arrays: those that belong to it; they are taken out. Whatever is left of them belongs to nothing.
    Raises ValueError, naming the place, for a missing or unknown key and for a value of another type.
    """
    found: D = _value(kind, value, "", {} if arrays is None else arrays)
    return found


def take_arrays(value: Any, arrays: Arrays, where: str = "") -> Any:
    """A dataclass as JSON values; its arrays are put into `arrays` under dotted names."""
    if dataclasses.is_dataclass(value):
        return {
            f.name: take_arrays(getattr(value, f.name), arrays, _below(where, f.name))
            for f in dataclasses.fields(value)
        }
    if isinstance(value, np.ndarray):
        arrays[where] = np.asarray(value, order="C")  # ascontiguousarray would make 0-d ones 1-d
        return ARRAY
    return value


def _value(kind: Any, value: Any, where: str, arrays: Arrays) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind in (Any, object):
        return value
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _dataclass(kind, value, where, arrays)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _value(_alternative(arguments, value), value, where, arrays)
    if (origin or kind) in (np.ndarray, NDArray):
        return _array(kind, value, where, arrays)
    if origin is tuple and isinstance(value, list):
        if arguments[-1] is not Ellipsis and len(value) != len(arguments):
            raise ValueError(f"{where} must have {len(arguments)} entries")
        return tuple(_value(arguments[0], v, f"{where}[{i}]", arrays) for i, v in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {str(k): _value(arguments[1], v, _below(where, k), arrays) for k, v in value.items()}
    if kind is float and type(value) in (int, float) and abs(value) < LARGEST_FLOAT:
        return float(value)
    if kind in (int, str, bool) and type(value) is kind and (kind is not int or 0 <= value < LARGEST_INT):
        return value
    raise ValueError(f"{where} must be {getattr(kind, '__name__', kind)}, not {str(value)[:40]!r}")


def _dataclass(kind: type, value: Any, where: str, arrays: Arrays) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{where or 'the file'} must be an object")
    hints = typing.get_type_hints(kind)
    if odd := sorted(set(hints) ^ set(value)):
        raise ValueError(f"{where or 'the file'} lacks or does not know: {', '.join(odd)}")
    return kind(**{name: _value(h, value[name], _below(where, name), arrays) for name, h in hints.items()})


def _array(kind: Any, value: Any, where: str, arrays: Arrays) -> NDArray[Any]:
    if value != ARRAY or where not in arrays:
        raise ValueError(f"{where} is no array")
    array = arrays.pop(where)
    if typing.get_args(kind) and array.dtype != _dtype_of(kind):
        raise ValueError(f"{where} has dtype {array.dtype}")
    return array


def _alternative(kinds: tuple[Any, ...], value: Any) -> Any:
    """Which of a union's types a value has: the dataclass with its fields, otherwise the first."""
    for kind in filter(dataclasses.is_dataclass, kinds):
        if isinstance(value, dict) and {f.name for f in dataclasses.fields(kind)} == set(value):
            return kind
    return kinds[0]


def _below(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _dtype_of(annotation: Any) -> Any:
    """np.float64 of NDArray[np.float64]: an alias of its own from numpy 2.5 on, spelt out before."""
    arguments = typing.get_args(annotation)
    return arguments[0] if typing.get_origin(annotation) is NDArray else typing.get_args(arguments[1])[0]
