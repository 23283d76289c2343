"""From a picture to pixels, as open_clip's preprocessing does it.

The steps: open, turn by the EXIF orientation, 8 bits a channel, resize, centre crop, RGB (uint8); then scale
to [0, 1] and normalise (float32). All parameters come from the bundle. We resize before the conversion to
RGB, as open_clip does: in palette and transparent pictures the order changes the result.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from .decoding import (
    ALPHA_MODES,
    LONGEST_SHAPE,
    MOST_DECODING_BYTES,
    SIXTEEN_BIT_MODES,
    PictureFile,
    UnreadablePictureError,
    as_unreadable,
    is_turned,
    made_of,
    opened,
)
from .manifest import Preprocess

RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
SMALLEST_VIEW, LONGEST_VIEW = 0.5, 4 / 3  # of a view: its least share of the crop, its longest shape
THUMBNAIL_QUALITIES = (78, 55, 30)  # of JPEG, the first that is short enough


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


def decoded(file: PictureFile, how: Preprocess, most_bytes: float) -> NDArray[np.uint8]:
    """The crop of a picture whose file is open; see `read_crop`.

    Pillow maps some files that it opens itself, and a mapped file that shrinks kills the process. A file
    that is already open it reads.
    """
    return made_of(file, how, most_bytes, lambda picture: np.asarray(crop(picture, how)))


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


def crop(picture: Image.Image, how: Preprocess) -> Image.Image:
    """The crop of a picture, in RGB: open_clip's evaluation transform without the scaling of numbers."""
    return _centre_crop(_resize(_shortened(_eight_bits(_upright(picture)), how), how), how).convert("RGB")


def thumbnail(path: Path, side: int, longest: int, most_bytes: float) -> bytes:
    """A small copy of a whole picture, as a JPEG of at most `longest` bytes.

    side: the most pixels that it is wide and high; a smaller picture stays as it is
    Raises UnreadablePictureError with the reason, as `read_crop`.
    """
    how = Preprocess((side, side), "RGB", (0.0,) * 3, (1.0,) * 3, "bicubic", "longest", 0)
    with opened(path) as file:
        small = made_of(file, how, most_bytes, lambda picture: _small(picture, how))
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


def _upright(picture: Image.Image) -> Image.Image:
    """The picture, turned as its EXIF orientation says. Without one, nothing is copied."""
    return ImageOps.exif_transpose(picture) if is_turned(picture) else picture


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
