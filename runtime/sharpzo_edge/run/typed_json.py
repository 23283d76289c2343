"""From parsed JSON to dataclasses, by their type annotations."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any


def from_json(kind: Any, value: Any, where: str = "") -> Any:
    """Build a dataclass (or a field of one) from parsed JSON, by its type annotations.

    Raises ValueError, naming the place, for a missing or unknown key and for a value of another type.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, dict):
            raise ValueError(f"{where or 'the file'} must be an object")
        hints = typing.get_type_hints(kind)
        if odd := sorted(set(hints) ^ set(value)):
            raise ValueError(f"{where or 'the file'} lacks or does not know: {', '.join(odd)}")
        return kind(**{k: from_json(h, value[k], f"{where}.{k}".lstrip(".")) for k, h in hints.items()})
    if origin is types.UnionType:
        return None if value is None else from_json(arguments[0], value, where)
    if origin is tuple and isinstance(value, list):
        if arguments[-1] is not Ellipsis and len(value) != len(arguments):
            raise ValueError(f"{where} must have {len(arguments)} entries")
        return tuple(from_json(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {str(k): from_json(arguments[1], v, f"{where}.{k}") for k, v in value.items()}
    if kind is float and type(value) in (int, float) and abs(value) < 1e300:
        return float(value)
    if kind in (int, str, bool) and type(value) is kind and (kind is not int or 0 <= value < 2**62):
        return value
    raise ValueError(f"{where} must be {getattr(kind, '__name__', kind)}, not {str(value)[:40]!r}")
