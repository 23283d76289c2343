"""By what a later run knows a picture again: its name, its size, and a checksum of its bytes.

Times do not count. A copy, a memory card or a backup changes them, and the pictures stay the same.
"""

from __future__ import annotations

import hashlib
import os
from io import BufferedReader
from itertools import chain
from pathlib import Path

from ..run.files import canonical_json
from .folder import LabelledFolder

CONTENT_BYTES = 16  # of a checksum
END_BYTES = 64 << 10


def whole_content(file: BufferedReader) -> bytes:
    """A checksum of all bytes of an open picture. The file is never in memory as a whole. Raises OSError."""
    file.seek(0)
    return hashlib.file_digest(file, new_checksum).digest()


def end_content(file: BufferedReader) -> bytes:
    """A checksum of both ends of an open file that is no readable picture. Raises OSError.

    Such a file may be a film of gigabytes. A picture whose copy was torn differs at its end.
    """
    file.seek(0)
    found = new_checksum(file.read(END_BYTES))
    file.seek(max(0, os.fstat(file.fileno()).st_size - END_BYTES))
    found.update(file.read(END_BYTES))
    return found.digest()


def content_now(path: Path, is_read: bool) -> bytes | None:
    """The content of a picture as it is now; None where it cannot be read at the moment.

    is_read: whether it could be decoded, and all of its bytes count
    """
    try:
        with path.open("rb") as file:
            return whole_content(file) if is_read else end_content(file)
    except OSError:
        return None


def new_checksum(data: bytes = b"") -> hashlib.blake2b:
    return hashlib.blake2b(data, digest_size=CONTENT_BYTES)


def state_of(file: BufferedReader) -> tuple[int, int, int]:
    """Another one when an open file was changed, as far as the file system tells. Raises OSError."""
    found = os.fstat(file.fileno())
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def listing_checksum(folder: LabelledFolder) -> str:
    """Changes when the name or the size of a file changes. No file is opened.

    Of JSON that is made piece by piece: all of it at once would take more memory than the listing.
    """
    found = hashlib.sha256(b"[[")
    separator = b""
    for path in chain.from_iterable(folder.files):
        found.update(separator + canonical_json([spelt(path.relative_to(folder.root)), _size(path)]))
        separator = b","
    found.update(b"]]")
    return found.hexdigest()


def _size(path: Path) -> int:
    """-1 for a link that leads nowhere, or a file that has just gone."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def spelt(path: Path) -> str:
    """A path as text that JSON can hold, whatever its bytes are."""
    return os.fsencode(path).decode(errors="backslashreplace")
