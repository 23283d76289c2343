"""What a file is, by its first bytes. What a browser says of it, its name or its type, does not count."""

from __future__ import annotations

HEAD_BYTES = 16
BY_START = (
    (b"\xff\xd8\xff", ".jpg"),
    (b"\x89PNG\r\n\x1a\n", ".png"),
    (b"GIF87a", ".gif"),
    (b"GIF89a", ".gif"),
    (b"BM", ".bmp"),
    (b"II*\0", ".tif"),
    (b"MM\0*", ".tif"),
)
HEIC = tuple(b"ftyp" + brand for brand in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"))
NO_PICTURE = "not a picture: JPEG, PNG, WebP, GIF, BMP and TIFF can be added"
IS_HEIC = "HEIC cannot be read here: let the phone send JPEG (iPhone: Camera, Formats, Most Compatible)"


def ending_of(head: bytes) -> str | None:
    """The file name's ending for a picture that begins so; None for what is no picture."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return ".webp"
    return next((ending for start, ending in BY_START if head.startswith(start)), None)


def why_refused(head: bytes) -> str:
    """Why a file that begins so is not taken."""
    return IS_HEIC if head[4:12] in HEIC else NO_PICTURE
