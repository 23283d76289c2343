"""Pictures of one size in bytes, so that nothing but their content tells one from another."""

from __future__ import annotations

import os
from pathlib import Path


def of_one_size(images: Path) -> Path:
    """Fill every picture up with zeros, which decoders pass over."""
    paths = sorted(images.glob("*/*"))
    size = max(path.stat().st_size for path in paths)
    for path in paths:
        os.truncate(path, size)
    return images


def swap(one: Path, other: Path) -> None:
    """Each gets the bytes of the other one. Their times stay."""
    bytes_of = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (one, other)}
    for path, source in ((one, other), (other, one)):
        path.write_bytes(bytes_of[source][0])
        os.utime(path, ns=(bytes_of[path][1],) * 2)
