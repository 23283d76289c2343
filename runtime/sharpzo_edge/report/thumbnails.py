"""Small copies of a report's pictures. It decodes, so it belongs into a child process."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

from ..clip.decoding import UnreadablePictureError
from ..clip.preprocess import thumbnail
from .data import Picture, Report

SIDE = 176  # pixels of the longer side: twice what a phone shows
MOST_BYTES = 16 << 10  # of one, before base64


def with_thumbnails(report: Report, images: Path, decoding_bytes: float) -> Report:
    """The same report, whose pictures have data addresses.

    images: the folder of pictures;  decoding_bytes: the most that decoding one of them may take
    """

    def seen(picture: Picture) -> Picture:
        try:
            data = thumbnail(images / picture.image, SIDE, MOST_BYTES, decoding_bytes)
        except UnreadablePictureError as reason:
            return replace(picture, why_none=str(reason))
        return replace(picture, thumbnail=f"data:image/jpeg;base64,{base64.b64encode(data).decode()}")

    return replace(report, doubtful=tuple(map(seen, report.doubtful)), worst=tuple(map(seen, report.worst)))
