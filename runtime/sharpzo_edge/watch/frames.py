"""From a stream of bytes to the JPEGs in it (ISO/IEC 10918-1, annex B).

A JPEG begins with SOI and ends with EOI. Between them lie segments that say their length. So what looks like
a marker inside of one, as in the thumbnail that EXIF holds, is none. The pixels after SOS have no length:
they end at the first marker that is neither a restart nor a stuffed zero.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator

SOI, EOI, SOS = 0xD8, 0xD9, 0xDA
WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD8))  # TEM, and the restarts RST0 to RST7
BEGINNING = b"\xff\xd8\xff"
MARKER_AFTER_PIXELS = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")

Waiting = Generator[None, None, None]  # it yields where it takes more of the stream


class Frames:
    """Takes a stream piece by piece, and gives its JPEGs. What lies between them is passed over.

    The same stream gives the same JPEGs, however it is cut into pieces. At most `most_bytes` and one piece
    are held.

    broken: how many JPEGs broke off, or were longer than most_bytes
    """

    def __init__(self, most_bytes: int):
        self.broken = 0
        self._most = most_bytes
        self._data = bytearray()
        self._at = 0  # where in the data to go on; behind its end where a segment is not all there
        self._let_go = 0  # bytes of this JPEG that are no longer held: it is too long
        self._is_between = True
        self._found = self._jpegs()

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The JPEGs that end in this piece."""
        self._data += piece
        for jpeg in self._found:
            if jpeg is None:
                break
            yield jpeg
        if not self._is_between and self._let_go + len(self._data) > self._most:
            self._let_go += self._drop(self._at)

    def _jpegs(self) -> Iterator[bytes | None]:
        """One after another, without an end; None where it takes more of the stream."""
        while True:
            yield from self._beginning()
            is_whole = yield from self._segments()
            if is_whole and self._let_go + self._at <= self._most:
                yield bytes(memoryview(self._data)[: self._at])
            else:
                self.broken += 1
            self._drop(self._at)

    def _beginning(self) -> Waiting:
        """Go to the next SOI."""
        self._is_between = True
        while (start := self._data.find(BEGINNING)) < 0:
            self._drop(len(self._data) - len(BEGINNING) + 1)
            yield
        self._drop(start)
        self._at, self._let_go, self._is_between = 2, 0, False

    def _segments(self) -> Generator[None, None, bool]:
        """Go behind EOI. False: what should be a segment is none."""
        while True:
            yield from self._until_there(2)
            mark, kind = self._data[self._at : self._at + 2]
            if mark != 0xFF or kind in (0x00, SOI):
                return False
            if kind == 0xFF:  # a fill byte
                self._at += 1
                continue
            self._at += 2
            if kind == EOI:
                return True
            if kind in WITHOUT_LENGTH:
                continue
            yield from self._until_there(2)
            length = int.from_bytes(self._data[self._at : self._at + 2])
            if length < 2:
                return False
            self._at += length
            if kind == SOS:
                yield from self._pixels()

    def _pixels(self) -> Waiting:
        """Go to the first marker behind them."""
        while (found := MARKER_AFTER_PIXELS.search(self._data, self._at)) is None:
            self._at = max(self._at, len(self._data) - 1)  # the last byte may be half a marker
            yield
        self._at = found.start()

    def _until_there(self, n_bytes: int) -> Waiting:
        while len(self._data) < self._at + n_bytes:
            yield

    def _drop(self, n_bytes: int) -> int:
        """Let go of the beginning of the data; returns of how many bytes."""
        n = min(max(n_bytes, 0), len(self._data))
        del self._data[:n]
        self._at -= n
        return n
