"""Work that is kept piece by piece: records appended to one file, each with a checksum.

Whatever ends the process, the records that were whole before are there for the next one; a torn end, or
what was written for another purpose, counts for nothing and is cut off.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from ..errors import SharpzoError
from .files import Appended, cannot

LENGTH_BYTES, CHECKSUM_BYTES = 8, 16
HEAD_BYTES = LENGTH_BYTES + CHECKSUM_BYTES


def _any(number: int, record: bytes) -> bool:
    return True


class Journal:
    """Records of bytes, in the order in which they were appended; a context manager.

    key:     a SHA-256 in hexadecimal of what the records are made of; under another key they are none
    largest: bytes of the largest record; longer ones are damage
    fits:    whether bytes can be the record of that number; others are damage, whatever their checksum
    seconds: the most that a power cut may take

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "journal"
    >>> with Journal(path, "a" * 64, largest=9, seconds=30) as journal:
    ...     journal.append(b"one")
    >>> with Journal(path, "a" * 64, largest=9, seconds=30) as journal:
    ...     len(journal), journal[0]
    (1, b'one')
    >>> with Journal(path, "b" * 64, largest=9, seconds=30) as journal:
    ...     len(journal)
    0
    """

    def __init__(
        self, path: Path, key: str, largest: int, seconds: float, fits: Callable[[int, bytes], bool] = _any
    ):
        """Raises SharpzoError when the file cannot be read or written."""
        self._key = key
        self._seconds = seconds
        self._records = list(_whole_records(path, key, largest, fits))
        self._end = sum(self._records[-1]) if self._records else 0
        self._file = Appended(path, keep=self._end)
        self._synced = time.monotonic()

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, number: int) -> bytes:
        return self._file.read(*self._records[number])

    def append(self, data: bytes) -> None:
        """Raises SharpzoError when the disk does not take it; the journal must then be opened anew."""
        self._file.append(
            len(data).to_bytes(LENGTH_BYTES, "little") + _seal(self._key, self._end, data) + data
        )
        self._records.append((self._end + HEAD_BYTES, len(data)))
        self._end = sum(self._records[-1])
        if time.monotonic() - self._synced >= self._seconds:
            self.sync()

    def cut(self, number: int) -> None:
        """Take the record of that number away, and all that follow. Raises SharpzoError."""
        del self._records[number:]
        self._end = sum(self._records[-1]) if self._records else 0
        self._file.truncate(self._end)

    def sync(self) -> None:
        self._file.sync()
        self._synced = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.sync()
        except SharpzoError:
            if kind is None:  # the error that ends the block is the one to tell
                raise
        finally:
            self._file.close()


def _whole_records(
    path: Path, key: str, largest: int, fits: Callable[[int, bytes], bool]
) -> Iterator[tuple[int, int]]:
    """Start and length of every record up to the first that is not whole."""
    try:
        with path.open("rb") as file:
            number, place = 0, 0
            while len(head := file.read(HEAD_BYTES)) == HEAD_BYTES:
                length = int.from_bytes(head[:LENGTH_BYTES], "little")
                if length > largest:
                    return
                data = file.read(length)
                if len(data) < length or _seal(key, place, data) != head[LENGTH_BYTES:]:
                    return
                if not fits(number, data):
                    return
                yield place + HEAD_BYTES, length
                number += 1
                place += HEAD_BYTES + length
    except FileNotFoundError:
        return
    except OSError as error:  # what it holds is not known, and must not be cut off
        raise cannot("read", path, error) from error


def _seal(key: str, place: int, data: bytes) -> bytes:
    """A checksum of a record's bytes, its place, and what it is for."""
    seal = hashlib.blake2b(place.to_bytes(8, "little"), key=key.encode(), digest_size=CHECKSUM_BYTES)
    seal.update(data)
    return seal.digest()
