"""Files that survive a power cut: written beside, flushed to the disk, renamed."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from .errors import SharpzoError

BESIDE_SUFFIX = ".part"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file beside `path`; when the block ends well, `path` is replaced by it at once.

    Whoever reads `path` sees the old bytes or the new ones, never a part. When the block raises,
    the file beside is removed and `path` is as it was.
    """
    path = Path(path)
    try:
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=BESIDE_SUFFIX)
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


def remove_leftovers(folder: Path) -> None:
    """Remove what an earlier process was writing beside when it was killed."""
    for path in folder.glob(f".*{BESIDE_SUFFIX}"):
        path.unlink(missing_ok=True)


def cannot_write(path: Path, error: OSError) -> SharpzoError:
    return SharpzoError(
        f"Cannot write {path}: {error.strerror or error}. The folder must exist, be writable and "
        f"have room left. Free some space or choose another place with --output."
    )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
