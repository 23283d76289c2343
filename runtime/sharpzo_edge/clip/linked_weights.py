"""A graph whose weights are a link to another folder.

onnxruntime takes weights only from the folder of their graph, and looks where links lead. Where a data file
lies elsewhere, under another name perhaps, the graph is given from memory, with the name that the file has
there, and onnxruntime is told the folder.

A graph is a protocol buffer: fields, each with a number and a wire type, some of which are messages
themselves. One field is changed and all others stay as they are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

# From the model to the entries that say where a weight lies: graph, initializer, external_data, value.
WAY_TO_LOCATIONS = (7, 5, 13, 2)
VARINT, BYTES, FIXED = 0, 2, {1: 8, 5: 4}  # wire types


def is_elsewhere(graph: Path, data: Path) -> bool:
    """Whether links lead from a graph's folder to data in another one, or under another name."""
    real = Path(os.path.realpath(data))
    is_here = real.parent == Path(os.path.realpath(graph.parent)) and real.name == data.name
    return os.path.islink(data) and not is_here


def with_data_at(model: bytes, name: str, real_name: str) -> bytes:
    """The same graph, whose weights lie in `real_name` in place of `name`. Raises ValueError for no graph."""
    old, new = name.encode(), os.fsencode(real_name)
    return _changed(model, WAY_TO_LOCATIONS, lambda value: new if value == old else value)


def _changed(message: bytes, way: tuple[int, ...], change: Callable[[bytes], bytes]) -> bytes:
    """A message in which the fields at the end of a way are changed."""
    parts = []
    for number, whole, value in _fields(message):
        if number == way[0] and value is not None:
            value = _changed(value, way[1:], change) if way[1:] else change(value)
            whole = _varint(number << 3 | BYTES) + _varint(len(value)) + value
        parts.append(whole)
    return b"".join(parts)


def _fields(message: bytes) -> Iterator[tuple[int, bytes, bytes | None]]:
    """Every field: its number, all of its bytes, and its value where that is bytes or a message."""
    place = 0
    while place < len(message):
        start = place
        tag, place = _read_varint(message, place)
        kind, value = tag & 7, None
        if kind == VARINT:
            _, place = _read_varint(message, place)
        elif kind == BYTES:
            length, place = _read_varint(message, place)
            value = message[place : place + length]
            place += length
        elif kind in FIXED:
            place += FIXED[kind]
        else:
            raise ValueError(f"wire type {kind}")
        if place > len(message):
            raise ValueError("a field ends behind its message")
        yield tag >> 3, message[start:place], value


def _read_varint(message: bytes, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and where it ends."""
    found = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            break
        byte = message[place]
        place += 1
        found |= (byte & 127) << shift
        if byte < 128:
            return found, place
    raise ValueError("a number has no end")


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])
