"""From a picture's file to pixels, as open_clip's preprocessing does it. The only file that imports Pillow.

The steps: open, turn by the EXIF orientation, 8 bits a channel, resize, centre crop, RGB (uint8); then scale
to [0, 1] and normalise (float32). All parameters come from the bundle. We resize before the conversion to
RGB, as open_clip does: in palette and transparent pictures the order changes the result.
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

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError, features

from ..errors import OUT_OF
from ..run.reading import NotPlainError, plain
from .manifest import Preprocess

RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
PICTURE_BYTES = 12 << 20  # for decoding a 12-megapixel JPEG at reduced scale, and its crop
LARGE_JPEG_PIXELS = 4_000_000
SPARE_SCALE = 2
MOST_DECODING_BYTES = 512 << 20  # where the budget does not say less
LONGEST_SHAPE = 32  # a picture's longest shape, in crops; longer ones are cut before resizing
SMALLEST_VIEW, LONGEST_VIEW = 0.5, 4 / 3  # of a view: its least share of the crop, its longest shape
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
LACKING = (
    "not available",
    "not installed",
)  # in Pillow's words for a part of itself that it was built without
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
THUMBNAIL_QUALITIES = (78, 55, 30)  # of JPEG, the first that is short enough

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


# One picture -------------------------------------------------------------------------------------


def read_crop(path: Path, how: Preprocess, most_bytes: float = MOST_DECODING_BYTES) -> NDArray[np.uint8]:
    """A picture's crop: (height, width, 3) uint8, ready for `to_pixels`.

    most_bytes: the most memory that decoding may take
    Raises UnreadablePictureError with the reason, also when decoding would take more.
    """
    with opened(path) as file:
        return decoded(file, how, most_bytes)


def crop_of_bytes(data: bytes, how: Preprocess, most_bytes: float = MOST_DECODING_BYTES) -> NDArray[np.uint8]:
    """The same of what a picture's file would hold."""
    with PictureFile(BytesIO(data)) as file:
        return decoded(file, how, most_bytes)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[PictureFile]:
    """A picture's file. Raises UnreadablePictureError when it cannot be opened."""
    with as_unreadable():
        file = PictureFile(FileIO(path, opener=plain))
    with file:
        yield file


def decoded(file: PictureFile, how: Preprocess, most_bytes: float) -> NDArray[np.uint8]:
    """The crop of a picture whose file is open; see `read_crop`.

    Pillow maps some files that it opens itself, and a mapped file that shrinks kills the process. A file
    that is already open it reads.
    """
    return _made_of(file, how, most_bytes, lambda picture: np.asarray(crop(picture, how)))


def thumbnail(path: Path, side: int, longest: int, most_bytes: float) -> bytes:
    """A small copy of a whole picture, as a JPEG of at most `longest` bytes.

    side: the most pixels that it is wide and high; a smaller picture stays as it is
    Raises UnreadablePictureError with the reason, as `read_crop`.
    """
    how = Preprocess((side, side), "RGB", (0.0,) * 3, (1.0,) * 3, "bicubic", "longest", 0)
    with opened(path) as file:
        small = _made_of(file, how, most_bytes, lambda picture: _small(picture, how))
    for quality in THUMBNAIL_QUALITIES:
        data = BytesIO()
        small.save(data, "JPEG", quality=quality, optimize=True)
        if data.tell() <= longest:
            return data.getvalue()
    raise UnreadablePictureError("too many details for a small copy")


def _small(picture: Image.Image, how: Preprocess) -> Image.Image:
    """Within the size of `how`, in RGB; what is transparent is white."""
    picture = _eight_bits(_upright(picture))
    height, width = how.size
    if picture.width > width or picture.height > height:
        picture = _resize(picture, how)
    if picture.mode not in ALPHA_MODES and "transparency" not in picture.info:
        return picture.convert("RGB")
    layer = picture.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB")


def _made_of(file: PictureFile, how: Preprocess, most_bytes: float, make: Callable[[Image.Image], M]) -> M:
    """What `make` makes of the decoded picture; `how` bounds what that takes."""
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
    copies = 1 + (picture.mode in ALPHA_MODES) + _is_turned(picture)
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


def crop(picture: Image.Image, how: Preprocess) -> Image.Image:
    """The crop of a picture, in RGB: open_clip's evaluation transform without the scaling of numbers."""
    return _centre_crop(_resize(_shortened(_eight_bits(_upright(picture)), how), how), how).convert("RGB")


def crop_of_image(picture: Image.Image, how: Preprocess) -> NDArray[np.uint8]:
    """The same of a Pillow image, as (height, width, 3) uint8. Raises UnreadablePictureError."""
    with as_unreadable():
        return np.asarray(crop(picture, how))


def crop_of_array(levels: NDArray[Any], how: Preprocess) -> NDArray[np.uint8]:
    """The same of an array in RGB. Raises UnreadablePictureError unless it is (H, W, 3) uint8."""
    if levels.dtype != np.uint8 or levels.ndim != 3 or levels.shape[2] != 3 or not levels.size:
        raise UnreadablePictureError(f"an array {levels.shape} of {levels.dtype}, not (H, W, 3) of uint8")
    return crop_of_image(Image.fromarray(np.ascontiguousarray(levels)), how)


def is_image(picture: object) -> bool:
    """Whether it is one of Pillow's."""
    return isinstance(picture, Image.Image)


def view(plain: NDArray[np.uint8], draw: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Another view of a crop (H, W, 3) uint8: a part of it, resized to the full size and perhaps mirrored.

    draw: (5,) uniform in [0, 1): the part's area, its shape, its place across and down; mirrored if the last
          is below a half
    """
    height, width, _ = plain.shape
    area, shape, across, down, mirror = map(float, draw)
    share = SMALLEST_VIEW + (1 - SMALLEST_VIEW) * area
    aspect = LONGEST_VIEW ** (2 * shape - 1)
    part_w, part_h = min(1.0, (share * aspect) ** 0.5) * width, min(1.0, (share / aspect) ** 0.5) * height
    left, top = across * (width - part_w), down * (height - part_h)
    box = (left, top, left + part_w, top + part_h)
    seen = Image.fromarray(plain).resize((width, height), RESAMPLING["bicubic"], box=box)
    return np.asarray(ImageOps.mirror(seen) if mirror < 0.5 else seen)


def to_pixels(crops: NDArray[np.uint8], how: Preprocess) -> NDArray[np.float32]:
    """Pixels of crops: (B, H, W, 3) uint8 -> (B, 3, H, W) float32, scaled to [0, 1], then mean and std."""
    scaled = crops.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    mean, std = (np.asarray(v, np.float32)[:, None, None] for v in (how.mean, how.std))
    return np.ascontiguousarray((scaled - mean) / std)


def _decode_small(picture: Image.Image, how: Preprocess) -> None:
    """Let a large JPEG decode at a half, a quarter or an eighth of its size. No effect on other pictures.

    The result is still at least twice as large as the crop, so resizing has enough to work with. The crop
    differs from that of a full decode by a few levels. 12 megapixels then cost a fraction of the memory and
    time.
    """
    if picture.width * picture.height > LARGE_JPEG_PIXELS:
        target = SPARE_SCALE * max(how.size)
        picture.draft(None, (target, target))


def _upright(picture: Image.Image) -> Image.Image:
    """The picture, turned as its EXIF orientation says. Without one, nothing is copied."""
    return ImageOps.exif_transpose(picture) if _is_turned(picture) else picture


def _is_turned(picture: Image.Image) -> bool:
    """Whether the picture must be turned, as far as that is known before decoding.

    For a PNG, EXIF may stand behind the pixels, and Pillow would decode the whole picture to find it. So an
    undecoded PNG counts as not turned.
    """
    is_unread = picture.format == "PNG" and bool(getattr(picture, "tile", ())) and "exif" not in picture.info
    return not is_unread and picture.getexif().get(ORIENTATION, 1) != 1


def _eight_bits(picture: Image.Image) -> Image.Image:
    """A picture with 8 bits a channel. 16-bit grey is scaled; Pillow would cut all levels above 255.

    Raises UnreadablePictureError for floating-point levels, and integers of more than 16 bits.
    """
    if picture.mode == "F":
        raise UnreadablePictureError("floating-point levels, whose scale is not known")
    if picture.mode not in SIXTEEN_BIT_MODES:
        return picture
    levels = np.asarray(picture).astype(np.float32)
    if levels.min() < 0 or levels.max() > 65535:
        raise UnreadablePictureError("32-bit levels, whose scale is not known")
    if picture.mode == "I" and levels.max() <= 255:
        levels *= 257  # a 32-bit picture with 8-bit levels
    return Image.fromarray((levels / 257 + 0.5).astype(np.uint8))


def _shortened(picture: Image.Image, how: Preprocess) -> Image.Image:
    """The middle part of a very long picture; other pictures as they are.

    Resizing 1 x 30,000 pixels as a whole would take gigabytes. open_clip does not cut. The crop is the same
    up to half a source pixel, and only shapes that no camera makes are cut.
    """
    if how.resize_mode != "shortest":
        return picture
    target_h, target_w = how.size
    width, height = picture.size
    scale = min(width / target_w, height / target_h)
    longest_w, longest_h = (max(1, int(LONGEST_SHAPE * t * scale)) for t in (target_w, target_h))
    if width <= longest_w and height <= longest_h:
        return picture
    left, top = max(0, (width - longest_w) // 2), max(0, (height - longest_h) // 2)
    return picture.crop((left, top, min(width, left + longest_w), min(height, top + longest_h)))


def _resize(picture: Image.Image, how: Preprocess) -> Image.Image:
    """The picture, resized as torchvision and open_clip do for this resize mode and target size."""
    target_h, target_w = how.size
    width, height = picture.size
    resampling = RESAMPLING[how.interpolation]
    if how.resize_mode == "squash":
        new_h, new_w = target_h, target_w
    elif how.resize_mode == "longest":
        ratio = max(height / target_h, width / target_w)
        new_h, new_w = round(height / ratio), round(width / ratio)
    elif target_h == target_w:  # as torchvision's shortest edge: the longer side is rounded down
        short, long = sorted((width, height))
        longer = int(target_h * long / short)
        new_h, new_w = (target_h, longer) if height <= width else (longer, target_h)
    else:  # as open_clip for other shapes: always bicubic
        ratio = min(height / target_h, width / target_w)
        new_h, new_w = round(height / ratio), round(width / ratio)
        resampling = RESAMPLING["bicubic"]
    if (new_w, new_h) == picture.size:
        return picture
    return picture.resize((max(new_w, 1), max(new_h, 1)), resampling)


def _centre_crop(picture: Image.Image, how: Preprocess) -> Image.Image:
    """The middle of the picture. Where the picture is smaller than the crop, the fill colour is added."""
    target_h, target_w = how.size
    width, height = picture.size
    if width < target_w or height < target_h:
        missing_w, missing_h = max(target_w - width, 0), max(target_h - height, 0)
        border = (missing_w // 2, missing_h // 2, (missing_w + 1) // 2, (missing_h + 1) // 2)
        picture = ImageOps.expand(picture, border, _fill(picture, how.fill_color))
        width, height = picture.size
    left, top = round((width - target_w) / 2.0), round((height - target_h) / 2.0)
    return picture.crop((left, top, left + target_w, top + target_h))


def _fill(picture: Image.Image, level: int) -> int | tuple[int, ...]:
    bands = len(picture.getbands())
    return level if bands == 1 else (level,) * bands
