"""From crops to unit image features, batch by batch of the image tower.

For tuning the crops come from a journal, and every batch goes into another one; eval and predict stream
pictures, and keep nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..clip.bundle import Bundle
from ..clip.decoding import UnreadablePictureError
from ..clip.manifest import Preprocess
from ..clip.preprocess import read_crop, to_pixels, view
from ..clip.tower_plan import ImagePlan
from ..clip.towers import ImageTower
from ..errors import NumericsError
from ..run.folder import WorkFolder
from ..run.journal import Journal
from ..run.progress import Caller
from ..types import Doubles, Floats
from ..wording import counted
from .feature_file import FeatureRow
from .few_shot import crop_of


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
    bundle: Bundle,
    rows: Rows,
    plan: ImagePlan,
    encoded: Journal,
    caller: Caller,
    known: Sequence[FeatureRow | None] = (),
) -> None:
    """Encode the rows, a batch of them at a time, into records of `encoded`: float32.

    known: for every row, the feature that an earlier run has of the same picture, if any. A batch whose rows
    are all known is copied. The first batch is encoded in any case, and every feature that is encoded must be
    what is known of it, bit for bit: if one is not, its place in a batch counts on this machine, and all are
    encoded anew.
    Raises NumericsError when the tower answers differently twice, which is asked before the first batch, and
    InterruptedRunError when the caller wants to stop.
    """
    batches = _batches(len(rows), plan)
    if len(encoded) == len(batches):
        return
    with ImageTower(bundle, plan) as tower:
        if not len(encoded):
            _require_one_answer(tower, to_pixels(rows[0][np.newaxis], rows.how))
        for taken in batches[len(encoded) :]:
            before = [known[row] for row in taken] if known else []
            if taken.start and before and all(before):
                copied = np.stack([each.read() for each in before if each])
                encoded.append(copied.astype("<f4").tobytes())
                continue
            caller.raise_if_stopped(
                f"{taken.start:,} of {counted(len(rows), 'picture')} encoded, and kept. To go on, type the "
                f"same command again, without --restart"
            )
            caller.status(f"encoding picture {taken.start + 1} of {len(rows)}")
            pixels = _pixels([rows[row] for row in taken], rows.how, plan)
            features = tower.image_features(pixels).astype("<f4")
            if not _are_the_same(before, features):
                encoded.cut(0)
                break
            encoded.append(features.tobytes())
    encode(bundle, rows, plan, encoded, caller)  # what is left, if anything


def _are_the_same(before: Sequence[FeatureRow | None], features: Floats) -> bool:
    """Whether features are what is known of them."""
    pairs = zip(before, features, strict=False)
    return all(each is None or np.array_equal(each.read(), now) for each, now in pairs)


def encoded_journal(work: WorkFolder, key: str, n_rows: int, plan: ImagePlan, embed_dim: int) -> Journal:
    """The features of the batches, one after another."""
    largest = 4 * embed_dim * plan.tower.batch
    fits = partial(_is_batch, _batches(n_rows, plan), embed_dim)
    return work.journal(work.encoded, key, largest, fits)


class Encoder:
    """An open image tower that encodes pictures, and keeps nothing. A context manager.

    Several threads may use it; one batch at a time goes through the tower.
    """

    def __init__(self, bundle: Bundle, plan: ImagePlan):
        self._how, self._plan = bundle.manifest.preprocess, plan
        self._tower = ImageTower(bundle, plan)
        self._lock = threading.Lock()

    def files(
        self, files: Iterable[Path], on_skipped: Callable[[Path, str], None]
    ) -> Iterator[tuple[list[int], Floats]]:
        """Encode files batch by batch: yields (their numbers in `files`, unit features (B, E)).

        on_skipped: is told every picture that cannot be read, and why
        """
        numbers: list[int] = []
        crops: list[NDArray[np.uint8]] = []
        for i, path in enumerate(files):
            try:
                crops.append(read_crop(path, self._how, self._plan.decoding_bytes))
                numbers.append(i)
            except UnreadablePictureError as reason:
                on_skipped(path, str(reason))
            if len(crops) == self._plan.tower.batch:
                yield numbers, self._features(crops)
                numbers, crops = [], []
        if crops:
            yield numbers, self._features(crops)

    def crops(self, crops: Iterable[NDArray[np.uint8]]) -> Floats:
        """Crops (N > 0 of them, see preprocess.crop) -> unit features (N, E), in the same batches as files.

        Each batch of crops is taken when its turn comes.
        """
        rest, size = iter(crops), self._plan.tower.batch
        batches = iter(lambda: list(islice(rest, size)), [])
        return np.concatenate([self._features(batch) for batch in batches])

    def _features(self, crops: Sequence[NDArray[np.uint8]]) -> Floats:
        with self._lock:
            return self._tower.image_features(_pixels(crops, self._how, self._plan))

    def close(self) -> None:
        """Free the tower's memory."""
        self._tower.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def encode_files(
    bundle: Bundle, files: Iterable[Path], on_skipped: Callable[[Path, str], None], plan: ImagePlan
) -> Iterator[tuple[list[int], Floats]]:
    """As Encoder.files, with a tower that is open only meanwhile."""
    with Encoder(bundle, plan) as encoder:
        yield from encoder.files(files, on_skipped)


def _batches(n_rows: int, plan: ImagePlan) -> list[range]:
    size = plan.tower.batch
    return [range(start, min(start + size, n_rows)) for start in range(0, n_rows, size)]


def _is_batch(batches: list[range], embed_dim: int, number: int, record: bytes) -> bool:
    return number < len(batches) and len(record) == 4 * embed_dim * len(batches[number])


def _require_one_answer(tower: ImageTower, pixels: Floats) -> None:
    first, second = (tower.image_features([pixels]) for _ in range(2))
    if not np.array_equal(first, second):
        raise NumericsError(
            f"The image tower answers one picture differently when it is asked twice, by up to "
            f"{np.abs(first - second).max():.1e}. The same input must give the same answer, bit for bit. "
            f"Try --threads 1, and check the bundle with: sharpzo-edge doctor --bundle {tower.folder}"
        )


def _pixels(crops: Sequence[NDArray[np.uint8]], how: Preprocess, plan: ImagePlan) -> Iterable[Floats]:
    """A batch of crops as micro-batches of pixels, each made when its turn comes."""
    size = plan.tower.micro_batch
    return (to_pixels(np.stack(crops[i : i + size]), how) for i in range(0, len(crops), size))
