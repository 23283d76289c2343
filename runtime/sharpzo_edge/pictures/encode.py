"""From crops to unit image features, pass by pass of the image tower.

For tuning the crops come from a journal, and every pass goes into another one; eval and predict stream
pictures, and keep nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..clip.bundle import Bundle
from ..clip.manifest import Preprocess
from ..clip.preprocess import UnreadablePictureError, read_crop, to_pixels, view
from ..clip.towers import ImageTower
from ..errors import NumericsError
from ..memory.plan import Plan, TowerPlan
from ..run.journal import Journal
from ..run.workplace import Workplace
from ..types import Doubles, Floats
from .few_shot import crop_of
from .folder import Skipped

ENCODED_FILE = "features.journal"


@dataclass(frozen=True)
class Rows:
    """What will be encoded, a row of features each.

    Views are parts of the crops on disk, not of the pictures: decoding once is what a board can afford.

    order: (N, 2) the record of a row in `crops`, and its view: 0 is the crop as it is
    parts: (N, 5) which part of it the other views are, see images.view
    """

    crops: Journal
    how: Preprocess
    order: NDArray[np.int64]
    parts: Doubles

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        record, i = self.order[row]
        plain = crop_of(self.crops[record], self.how)
        return view(plain, self.parts[row]) if i else plain


def encode(
    bundle: Bundle, rows: Rows, plan: TowerPlan, threads: int, encoded: Journal, at: Workplace
) -> None:
    """Encode the rows, a pass of them at a time, into records of `encoded`: float32.

    Raises NumericsError when the tower answers differently twice, which is asked before the first pass, and
    InterruptedRunError when a signal has come.
    """
    passes = _passes(len(rows), plan)
    if len(encoded) == len(passes):
        return
    with ImageTower(bundle, plan, threads) as tower:
        if not len(encoded):
            _require_one_answer(tower, to_pixels(rows[0][np.newaxis], rows.how))
        for taken in passes[len(encoded) :]:
            at.interrupt.raise_if_received(
                f"{taken.start} of {len(rows)} pictures are encoded, and kept. To go on, type the same "
                f"command again, without --restart"
            )
            at.progress.status(f"encoding picture {taken.start + 1} of {len(rows)}")
            pixels = _pixels([rows[row] for row in taken], rows.how, plan)
            encoded.append(tower.image_features(pixels).astype("<f4").tobytes())


def encoded_journal(at: Workplace, key: str, n_rows: int, plan: TowerPlan, embed_dim: int) -> Journal:
    """The features of the passes, one after another."""
    largest = 4 * embed_dim * plan.together
    return at.journal(ENCODED_FILE, key, largest, partial(_is_pass, _passes(n_rows, plan), embed_dim))


def stream_features(
    bundle: Bundle, files: Sequence[Path], skipped: Skipped, plan: Plan, threads: int = 0
) -> Iterator[tuple[list[int], Floats]]:
    """Encode pictures pass by pass: yields (their numbers in `files`, unit features (B, E))."""
    assert plan.image is not None  # whoever has pictures plans for them
    how, together = bundle.manifest.preprocess, plan.image.together
    with ImageTower(bundle, plan.image, threads) as tower:
        numbers: list[int] = []
        crops: list[NDArray[np.uint8]] = []
        for i, path in enumerate(files):
            try:
                crops.append(read_crop(path, how, plan.decoding_bytes))
                numbers.append(i)
            except UnreadablePictureError as reason:
                skipped.add(path, str(reason))
            if crops and (len(crops) == together or i == len(files) - 1):
                yield numbers, tower.image_features(_pixels(crops, how, plan.image))
                numbers, crops = [], []


def _passes(n_rows: int, plan: TowerPlan) -> list[range]:
    starts = range(0, n_rows, plan.together)
    return [range(start, min(start + plan.together, n_rows)) for start in starts]


def _is_pass(passes: list[range], embed_dim: int, number: int, record: bytes) -> bool:
    return number < len(passes) and len(record) == 4 * embed_dim * len(passes[number])


def _require_one_answer(tower: ImageTower, pixels: Floats) -> None:
    first, second = (tower.image_features([pixels]) for _ in range(2))
    if not np.array_equal(first, second):
        raise NumericsError(
            f"The image tower answers one picture differently when it is asked twice, by up to "
            f"{np.abs(first - second).max():.1e}. The same input must give the same answer, bit for bit. "
            f"Try --threads 1, and check the bundle with: sharpzo-edge doctor --bundle {tower.folder}"
        )


def _pixels(crops: list[NDArray[np.uint8]], how: Preprocess, plan: TowerPlan) -> Iterable[Floats]:
    """A pass of crops as batches of pixels, each made when its turn comes."""
    return (to_pixels(np.stack(crops[i : i + plan.group]), how) for i in range(0, len(crops), plan.group))
