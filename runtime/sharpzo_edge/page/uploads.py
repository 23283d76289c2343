"""Pictures that a browser sends: straight to disk, bounded, judged by their bytes, renamed when whole.

Until a picture is whole it lies in a folder that nothing else looks into, so half a picture is never taken
for one, whatever ends the upload.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from ..errors import SharpzoError, UsageError
from ..run.files import OpenFile, remove
from .kinds import HEAD_BYTES, ending_of, why_refused
from .labels import open_new, refused
from .names import picture_name, shown

MOST_BYTES = 64 << 20  # of one picture
MOST_PICTURES = 500  # of one upload
TOO_LARGE = f"more than {MOST_BYTES >> 20} MiB, which is the most for a picture"
TOO_MANY = f"beyond the {MOST_PICTURES} pictures that one upload may have"
EMPTY = "empty"


@dataclass
class Sent:
    """A picture that was sent. name: as the browser called it, for people; reason: why it was not taken.

    path: where it lies, whole; ending: by what it is
    """

    name: str
    path: Path | None = None
    ending: str = ""
    reason: str = ""


@dataclass
class _Part:
    headers: dict[bytes, bytes] = field(default_factory=dict)
    header: bytes = b""
    value: bytes = b""
    sent: Sent | None = None
    file: OpenFile | None = None
    path: Path | None = None
    head: bytes = b""
    size: int = 0


class Upload:
    """Takes the parts of a form as they come in. Every picture is told to `take` as soon as it is whole."""

    def __init__(self, content_type: str, folder: Path, take: Callable[[Sent], None]):
        """Raises UsageError for what is no form with files."""
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not 1 <= len(boundary) <= 70:
            raise not_a_form()
        self._folder, self._take = folder, take
        self._part = _Part()
        self._n_pictures = 0
        self._is_whole = False
        names = (
            *("part_begin", "part_data", "part_end", "header_field", "header_value", "header_end"),
            *("headers_finished", "end"),
        )
        callbacks: Any = {f"on_{name}": getattr(self, f"_on_{name}") for name in names}
        self._parser = MultipartParser(boundary, callbacks)

    async def read(self, chunks: AsyncIterator[bytes]) -> None:
        """Raises UsageError when the form is none or ends too early, SharpzoError when the disk refuses."""
        try:
            async for chunk in chunks:
                self._parser.write(chunk)
            self._parser.finalize()
        except FormParserError as error:
            raise not_a_form() from error
        finally:
            self._drop()
        if not self._is_whole:
            raise not_a_form()

    def _on_part_begin(self) -> None:
        self._part = _Part()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._part.header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._part.value += data[start:end]

    def _on_header_end(self) -> None:
        self._part.headers[self._part.header.lower()] = self._part.value
        self._part.header = self._part.value = b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._part.headers.get(b"content-disposition", b""))
        name = options.get(b"filename")
        if not name:  # another field, or a file input that was left empty
            return
        self._part.sent = sent = Sent(name.decode(errors="replace"))
        self._n_pictures += 1
        if self._n_pictures > MOST_PICTURES:
            sent.reason = TOO_MANY

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        part, sent = self._part, self._part.sent
        if sent is None or sent.reason:
            return
        part.size += end - start
        if part.size > MOST_BYTES:
            sent.reason = TOO_LARGE
        if len(part.head) < HEAD_BYTES:
            part.head += data[start : min(end, start + HEAD_BYTES)]
            if len(part.head) >= HEAD_BYTES:
                self._judge(part, sent)
        if sent.reason:
            self._drop()
            return
        try:
            if part.file is None:
                part.path = self._folder / secrets.token_hex(16)
                part.file = open_new(part.path)
            part.file.write(memoryview(data)[start:end])
        except OSError as error:
            raise refused("write", self._folder, error) from error

    def _judge(self, part: _Part, sent: Sent) -> None:
        ending = ending_of(part.head)
        if ending is None:
            sent.reason = why_refused(part.head)
        else:
            sent.ending = ending

    def _on_part_end(self) -> None:
        part, sent = self._part, self._part.sent
        if sent is None:
            return
        if not sent.reason and not sent.ending:  # shorter than a head
            sent.reason = why_refused(part.head) if part.size else EMPTY
        if not sent.reason and part.file:
            try:
                part.file.sync()
            except OSError as error:
                raise refused("write", self._folder, error) from error
            part.file.close()
            sent.path, part.file, part.path = part.path, None, None
        self._drop()
        self._take(sent)

    def _on_end(self) -> None:
        self._is_whole = True

    def _drop(self) -> None:
        """Remove what is half there."""
        part = self._part
        if part.file:
            part.file.close()
        if part.path:
            with contextlib.suppress(SharpzoError):
                remove(part.path)
        part.file = part.path = None


def name_for(sent: Sent) -> str:
    """The name that it gets on disk."""
    return picture_name(sent.name, sent.ending)


def told(sent: Sent) -> dict[str, str]:
    """What became of it, for the browser."""
    return {"name": shown(sent.name), "reason": sent.reason}


def not_a_form() -> UsageError:
    return UsageError(
        "What was sent is no whole form with pictures. The page sends multipart/form-data, up to its end. "
        "What was whole before is kept. Load the page anew. Try again with the rest"
    )
