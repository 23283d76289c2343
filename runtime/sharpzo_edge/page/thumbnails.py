"""Thumbnails: made once by the helper, and kept below the folder of pictures."""

from __future__ import annotations

from pathlib import Path

from ..run.files import read_limited
from .labels import Labels, key_of, refused
from .worker import Worker

MOST_BYTES = 1 << 20  # of one
END = {".jpg": b"\xff\xd9", ".txt": b"\n"}  # how a whole file ends: a power cut may have torn one


class Thumbnails:
    """Those of a folder of pictures. A key (labels.key_of) is of the file, wherever it was moved."""

    def __init__(self, labels: Labels, worker: Worker):
        self._labels, self._worker = labels, worker

    def reason(self, key: str) -> str:
        """Why a picture has no thumbnail, as far as that was found before; "" where it was not."""
        return (self._kept(key, ".txt") or b"").decode(errors="replace").strip()

    async def of(self, word: str) -> bytes | str:
        """A JPEG, or the reason why there is none. Raises NotThereError, SharpzoError."""
        path = self._labels.find(word)
        try:
            key = key_of(path)
        except OSError as error:
            raise refused("read", path, error) from error
        found = self._kept(key, ".jpg")
        if found is None and not (why := self.reason(key)):
            self._labels.own_folder("thumbnails")
            answer = await self._worker.ask(
                "thumbnail",
                picture=str(path),
                to=str(self._place(key, ".jpg")),
                reason_to=str(self._place(key, ".txt")),
            )
            why = answer.get("reason", "")
            found = self._kept(key, ".jpg")
        return found or why

    def _kept(self, key: str, ending: str) -> bytes | None:
        try:
            found = read_limited(self._place(key, ending), MOST_BYTES)
        except (OSError, ValueError):
            return None
        return found if found.endswith(END[ending]) else None

    def _place(self, key: str, ending: str) -> Path:
        return self._labels.own_path("thumbnails") / f"{key}{ending}"
