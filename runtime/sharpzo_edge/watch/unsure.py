"""The pictures of a day whose answers were least sure, in a folder, to be labelled.

The names of the files hold what a restart has to know: the day, the time, the score.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import SharpzoError
from ..run.files import make_folder, remove, replacing
from ..run.reading import plain
from .reader import PIECE_BYTES, Arrival, said

APART_SECONDS = 10.0  # of pictures nearer than that, one is kept: they show the same
NAME = re.compile(r"(\d{4}-\d\d-\d\d)_\d{6}_([01]\.\d{3})\.\w+")


@dataclass(frozen=True)
class Kept:
    """score: of the likeliest label;  moment: by the monotonic clock, or None from before a restart"""

    score: float
    path: Path
    moment: float | None = None


class Unsure:
    """A folder of the least sure pictures, at most so many of each day."""

    def __init__(self, folder: Path, per_day: int):
        self._folder, self._per_day = folder, per_day
        self._day = ""
        self._kept: list[Kept] = []

    def offer(self, candidate: tuple[Arrival, float]) -> None:
        """Keep a picture, if it is among the least sure of today. Another one may go for it.

        candidate: the picture, and the score of its likeliest label
        Raises SharpzoError where it cannot be written; then none has gone.
        """
        arrival, score = candidate
        day, hour = time.strftime("%Y-%m-%d %H%M%S").split()
        moment = time.monotonic()
        if day != self._day:
            self._kept = list(self._of_day(day))
            self._day = day
        gives_way = self._one_that_gives_way(moment)
        if gives_way and gives_way.score <= score:
            return
        ending = Path(arrival.image).suffix or ".jpg"
        kept = Kept(score, self._folder / f"{day}_{hour}_{score:.3f}{ending}", moment)
        self._write(kept.path, arrival)
        self._kept.append(kept)
        if gives_way:
            self._kept.remove(gives_way)
            if gives_way.path != kept.path:
                remove(gives_way.path)

    def _one_that_gives_way(self, moment: float) -> Kept | None:
        """The picture of this same moment, or the surest one where there is no more room."""
        for kept in self._kept:
            if kept.moment is not None and moment - kept.moment < APART_SECONDS:
                return kept
        is_full = len(self._kept) >= self._per_day
        return max(self._kept, key=lambda kept: kept.score) if is_full else None

    def _of_day(self, day: str) -> Iterator[Kept]:
        """What is there already."""
        try:
            for above in reversed(self._folder.parents):
                make_folder(above)
            make_folder(self._folder)
            for name in os.listdir(self._folder):
                if (found := NAME.fullmatch(name)) and found[1] == day:
                    yield Kept(float(found[2]), self._folder / name)
        except OSError as error:
            raise _not_saved(self._folder, error) from error

    def _write(self, path: Path, arrival: Arrival) -> None:
        try:
            with replacing(path, is_lasting=False) as file:
                if arrival.data is not None:
                    file.write(arrival.data)
                    return
                with open(arrival.image, "rb", opener=plain) as picture:
                    while piece := picture.read(PIECE_BYTES):
                        file.write(piece)
        except SharpzoError as error:
            cause = error.__cause__
            raise _not_saved(self._folder, cause if isinstance(cause, OSError) else OSError()) from error


def _not_saved(folder: Path, error: OSError) -> SharpzoError:
    return SharpzoError(
        f"An unsure picture is not saved in {folder} ({said(error)}). The folder must be writable and have "
        f"room. Make room, or choose another --save-unsure; watching goes on meanwhile"
    )
