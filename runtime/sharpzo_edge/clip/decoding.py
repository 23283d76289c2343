"""A picture's file, decoded within a bound of memory, and whatever may be wrong with it.

What decoding takes is known from the header, and asked before. Pillow's own limits are set by what the memory
has room for, and put back.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from io import BufferedReader, BytesIO, FileIO
from pathlib import Path
from typing import Any, TypeVar

import PIL
from PIL import Image, PngImagePlugin, UnidentifiedImageError, features

from ..errors import OUT_OF
from ..run.reading import NotPlainError, plain
from .manifest import Preprocess

PICTURE_BYTES = 12 << 20  # for decoding a 12-megapixel JPEG at reduced scale, and its crop
LARGE_JPEG_PIXELS = 4_000_000
SPARE_SCALE = 2
MOST_DECODING_BYTES = 512 << 20  # where the budget does not say less
LONGEST_SHAPE = 32  # a picture's longest shape, in crops; longer ones are cut before resizing
SIXTEEN_BIT_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")
ALPHA_MODES = ("RGBA", "LA", "PA", "La", "RGBa")
ONE_BYTE_MODES = ("1", "L", "P")  # all others take four bytes a pixel in Pillow
FRUGAL_FORMATS = ("JPEG", "MPO", "PNG", "BMP", "PPM")  # decoded line by line, without a second copy
ORIENTATION = 0x0112  # the number of an EXIF field
# Formats that cameras write and not every Pillow reads: from which byte, how the file begins, its name.
NOT_EVERYWHERE = (
    *((4, b"ftyp" + brand, "HEIC") for brand in (b"heic", b"heix", b"hevc", b"mif1", b"msf1")),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    *((4, b"ftyp" + brand, "AVIF") for brand in (b"avif", b"avis")),
    (8, b"WEBP", "WebP"),
)
# In Pillow's words for a part of itself that it was built without.
LACKING = ("not available", "not installed")
HEADER_BYTES = 16
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Reading a PNG's text takes at most so often its bytes: Pillow copies, and a letter may take 4.
CHUNK_COPIES = 11
TOO_MUCH_TEXT = "megabytes of text, too many for the budget"
# In all other formats what is read before the pixels takes at most so often its bytes. WebP is read whole.
HEAD_COPIES = 4
TOO_MUCH_BEFORE = "megabytes to read before its pixels, too many for the budget"
ICONS = (b"\0\0\1\0", b"\0\0\2\0", b"icns")  # they hold PNGs, which are opened when the pixels are read
DECODER = f"Pillow {PIL.__version__}"  # what judges whether a file is a picture

M = TypeVar("M")


class UnreadablePictureError(Exception):
    """A picture cannot be used. The text is the reason, in a few words.

    is_lasting: whether the same bytes would be refused again. False for what may change without them: a
    permission, a disk that fails, too little memory.
    """

    def __init__(self, reason: str, is_lasting: bool = True):
        super().__init__(reason)
        self.is_lasting = is_lasting


class PictureFile(BufferedReader):
    """A picture's file, or its bytes, of which a decoder may read `left` more; None: all."""

    left: float | None = None

    @property
    def size(self) -> int:
        """Bytes of the file as it is now."""
        raw: Any = self.raw
        return raw.getbuffer().nbytes if isinstance(raw, BytesIO) else os.fstat(raw.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        if self.left is not None:
            rest = max(0, self.size - self.tell())
            self._take(rest if size is None or size < 0 else min(size, rest))
        return super().read(size)

    def readline(self, size: int | None = -1, /) -> bytes:
        if self.left is None:
            return super().readline(size)
        line = super().readline(int(self.left) + 1 if size is None or size < 0 else size)
        self._take(len(line))
        return line

    def _take(self, n_bytes: int) -> None:
        if self.left is not None:
            self.left -= n_bytes
            if self.left < 0:
                raise UnreadablePictureError(TOO_MUCH_BEFORE)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[PictureFile]:
    """A picture's file. Raises UnreadablePictureError when it cannot be opened."""
    with as_unreadable():
        file = PictureFile(FileIO(path, opener=plain))
    with file:
        yield file


def made_of(file: PictureFile, how: Preprocess, most_bytes: float, make: Callable[[Image.Image], M]) -> M:
    """What `make` makes of the decoded picture.

    most_bytes: the most memory that decoding may take, resizing it by `how` included
    One picture at a time is decoded in a process: Pillow has its limits once.
    Raises UnreadablePictureError with the reason, also when decoding would take more.
    """
    most = min(most_bytes, MOST_DECODING_BYTES)
    with as_unreadable(), _own_text_limit() as limit_text, warnings.catch_warnings():
        # No warning of large pictures: decoding_bytes decides. Pillow still refuses huge ones. All threads
        # have the same filters, so one puts them back before another changes them: behind that lock.
        warnings.simplefilter("ignore")
        before, behind = _largest_chunks(file)
        _require_room_for(before, most)
        _require_room_for_an_icon(file, most)
        limit_text(most, 0)
        try:
            file.left = None if before else most / HEAD_COPIES  # a PNG is judged already
            with Image.open(file) as picture:
                file.left = None
                if picture.format == "EPS":  # EPS is a program: Pillow would start Ghostscript for it
                    raise UnreadablePictureError("not a picture")
                megapixels = picture.width * picture.height / 1e6
                _decode_small(picture, how)
                for _ in range(2):  # again after decoding: only then a PNG shows that it is turned
                    left = most - decoding_bytes(picture, how)
                    if left < 0:
                        raise UnreadablePictureError(f"{megapixels:.0f} megapixels, too many for the budget")
                    _require_room_for(behind, left)
                    limit_text(left, _text_length(picture))
                    picture.load()
                    behind = 0  # it is read
                return make(picture)
        except UnidentifiedImageError as error:
            file.left = None
            raise UnreadablePictureError(_what_it_is(file)) from error


@contextlib.contextmanager
def as_unreadable() -> Iterator[None]:
    """Whatever goes wrong while a picture is read becomes UnreadablePictureError with the reason."""
    try:
        yield
    except Image.DecompressionBombError as error:
        raise UnreadablePictureError("too many pixels") from error
    except MemoryError as error:
        raise UnreadablePictureError("too large for this machine's memory", is_lasting=False) from error
    except FileNotFoundError as error:
        is_link = error.filename is not None and os.path.islink(error.filename)
        what = "a link to a file that is not there" if is_link else "no such file"
        raise UnreadablePictureError(what, is_lasting=False) from error
    except IsADirectoryError as error:
        raise UnreadablePictureError("a folder, not a picture", is_lasting=False) from error
    except PermissionError as error:
        raise UnreadablePictureError("no permission to read it", is_lasting=False) from error
    except NotPlainError as error:
        raise UnreadablePictureError("a device, a pipe or a socket", is_lasting=False) from error
    except UnreadablePictureError:
        raise
    except ValueError as error:
        if "MAX_TEXT" in str(error):  # the limit's name, in Pillow's message
            raise UnreadablePictureError(TOO_MUCH_TEXT) from error
        raise UnreadablePictureError("truncated or damaged") from error
    except Exception as error:  # on damaged files Pillow's decoders raise nearly anything
        if isinstance(error, OSError) and error.errno in OUT_OF:
            raise UnreadablePictureError(f"not read ({error.strerror})", is_lasting=False) from error
        if isinstance(error, OSError) and error.errno:  # the system's, and not a decoder's
            raise UnreadablePictureError(f"cannot be read ({error.strerror})", is_lasting=False) from error
        if isinstance(error, ImportError) or any(words in str(error) for words in LACKING):
            reason = f"Pillow is not complete here ({error})"
            raise UnreadablePictureError(reason, is_lasting=False) from error
        raise UnreadablePictureError("truncated or damaged") from error


def _what_it_is(file: BufferedReader) -> str:
    """The reason for a file that Pillow does not know. Raises OSError."""
    file.seek(0)
    header = file.read(HEADER_BYTES)
    for start, beginning, name in NOT_EVERYWHERE:
        if header[start:].startswith(beginning) and not features.check(name.lower()):
            return f"{name}, which cannot be read here"
    return "not a picture"


_text_lock = threading.Lock()


@contextlib.contextmanager
def _own_text_limit() -> Iterator[Callable[[float, int], None]]:
    """A function that limits the text of a PNG by the memory for it; Pillow's own limit is put back.

    Cameras and programs say more of a picture than Pillow's limit of 1 MiB lets pass. The function's
    arguments: how many bytes the text may take, and how long the text is that was read before.
    """
    with _text_lock:
        limits = PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY

        def limit(n_bytes: float, n_before: int) -> None:
            # Of a chunk at least 1: 0 would be no limit.
            PngImagePlugin.MAX_TEXT_CHUNK = max(1, int(n_bytes / CHUNK_COPIES))
            PngImagePlugin.MAX_TEXT_MEMORY = PngImagePlugin.MAX_TEXT_CHUNK + n_before

        try:
            yield limit
        finally:
            PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = limits


def _largest_chunks(file: PictureFile) -> tuple[int, int]:
    """Of a PNG's chunks before its pixels, and behind them: the bytes of the largest. 0, 0 for other files.

    Pillow reads each of them whole, before it looks at any limit. The file is at its beginning afterwards.
    """
    largest, behind = [0, 0], 0
    if file.read(len(PNG_SIGNATURE)) == PNG_SIGNATURE:
        size = file.size
        while len(head := file.read(8)) == 8:
            length, kind = int.from_bytes(head[:4], "big"), head[4:]
            if kind == b"IDAT":
                behind = 1
            else:
                largest[behind] = max(largest[behind], min(length, size - file.tell()))
            file.seek(length + 4, os.SEEK_CUR)
    file.seek(0)
    return largest[0], largest[1]


def _require_room_for(chunk_bytes: int, n_bytes: float) -> None:
    if CHUNK_COPIES * chunk_bytes > n_bytes:
        raise UnreadablePictureError(TOO_MUCH_TEXT)


def _require_room_for_an_icon(file: PictureFile, n_bytes: float) -> None:
    """The PNGs in an icon may hold any text, so its size counts. The file is at its beginning afterwards."""
    if file.read(4) in ICONS and CHUNK_COPIES * file.size > n_bytes:
        raise UnreadablePictureError("an icon of megabytes, too many for the budget")
    file.seek(0)


def _text_length(picture: Image.Image) -> int:
    return sum(len(value) for value in picture.info.values() if isinstance(value, str))


def decoding_bytes(picture: Image.Image, how: Preprocess) -> int:
    """The most memory that an opened picture takes until its crop is made, in bytes, known from its header.

    It is the sum of the picture's own pixels; a copy if the picture must be turned, has transparency, or its
    decoder holds the whole picture as well; the coefficients of a progressive JPEG; and the rows between the
    two passes of resizing.
    """
    n_pixels = picture.width * picture.height
    a_copy = n_pixels * (1 if picture.mode in ONE_BYTE_MODES else 4)
    copies = 1 + (picture.mode in ALPHA_MODES) + is_turned(picture)
    if picture.format not in FRUGAL_FORMATS:
        copies += 4 if picture.format == "JPEG2000" else 2
    if picture.mode in SIXTEEN_BIT_MODES:
        copies += 3
    target_h, target_w = how.size
    shape = picture.width * target_h / max(1, picture.height * target_w)
    longest = LONGEST_SHAPE if how.resize_mode == "shortest" else 1
    new_width = math.ceil(target_w * min(longest, max(1.0, shape))) + 1
    between = min(a_copy, 4 * picture.height * new_width)
    return int(copies * a_copy + between) + _coefficient_bytes(picture) + _text_bytes(picture)


def _text_bytes(picture: Image.Image) -> int:
    """What a PNG's text takes that was read with its header, in bytes; 0 for other pictures."""
    values = picture.info.values() if picture.format == "PNG" else ()
    return sum(sys.getsizeof(value) for value in values if isinstance(value, (str, bytes)))


def _coefficient_bytes(picture: Image.Image) -> int:
    """Bytes of a progressive JPEG's coefficients; 0 for other pictures.

    The decoder holds those of the full size, also when it decodes at a reduced size.
    """
    if not picture.info.get("progressive"):
        return 0
    reduced = (getattr(picture, "decoderconfig", ()) or (1,))[0] or 1
    samplings: list[int] = [across * down for _, across, down, _ in getattr(picture, "layer", ())] or [
        1,
        1,
        1,
    ]
    full_size = picture.width * picture.height * reduced**2
    return 2 * full_size * sum(samplings) // max(samplings)


def _decode_small(picture: Image.Image, how: Preprocess) -> None:
    """Let a large JPEG decode at a half, a quarter or an eighth of its size. No effect on other pictures.

    The result is still at least twice as large as the crop, so resizing has enough to work with. The crop
    differs from that of a full decode by a few levels. 12 megapixels then cost a fraction of the memory and
    time.
    """
    if picture.width * picture.height > LARGE_JPEG_PIXELS:
        target = SPARE_SCALE * max(how.size)
        picture.draft(None, (target, target))


def is_turned(picture: Image.Image) -> bool:
    """Whether the picture must be turned, as far as that is known before decoding.

    For a PNG, EXIF may stand behind the pixels, and Pillow would decode the whole picture to find it. So an
    undecoded PNG counts as not turned.
    """
    is_unread = picture.format == "PNG" and bool(getattr(picture, "tile", ())) and "exif" not in picture.info
    return not is_unread and picture.getexif().get(ORIENTATION, 1) != 1
