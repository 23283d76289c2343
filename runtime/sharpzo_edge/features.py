"""From labelled pictures to unit image features: each picture is decoded and encoded once.

For tuning, crops go to disk before a session opens, and features before the image tower closes: so decoding,
the image tower and the text tower are never in memory together. eval and predict go picture by picture.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import FeatureRows, Floats, LabelledFeatures, npy_offset
from .bundle import Bundle, Preprocess
from .errors import ImagesError, NumericsError, SkippedPicturesError
from .files import (
    CHECKPOINT_SECONDS,
    canonical_json,
    checksum,
    file_checksum,
    read_checked_json,
    remove,
    replacing,
    write_checked_json,
)
from .images import LabelledFolder, Skipped, UnreadablePictureError, read_crop, to_pixels, view
from .interrupt import Interrupt
from .journal import Journal
from .memory import Plan, TowerPlan
from .progress import Progress
from .towers import ImageTower

ORDER = "shots, then validation"  # of the rows in features.npy
FEW_SHOWN = 8  # classes that a line names
# What is kept while pictures are read and encoded, and what is kept of them in the end.
CROPS_FILE, ENCODED_FILE = "crops.journal", "features.journal"
FEATURES_FILE, PICTURES_FILE = "features.npy", "pictures.json"
IS_CROP, IS_REASON = b"+", b"-"  # the first byte of a record in crops.journal
LONGEST_REASON = 1 << 10
# Of what was drawn: each is a list of these.
DRAWN = {"files": str, "labels": int, "is_val": bool, "skipped": str, "said": str}


@dataclass(frozen=True)
class FeatureFile:
    """Rows of a .npy file of float32, read where they are asked for and never mapped."""

    path: Path
    offset: int
    n_rows: int
    embed_dim: int

    def __getitem__(self, rows: slice) -> Floats:
        first, end, _ = rows.indices(self.n_rows)
        row_bytes = 4 * self.embed_dim
        with self.path.open("rb", buffering=0) as file:
            data = os.pread(file.fileno(), max(0, end - first) * row_bytes, self.offset + first * row_bytes)
        return np.frombuffer(data, "<f4").reshape(-1, self.embed_dim)


@dataclass(frozen=True)
class Views:
    """How often a shot is encoded: once as it is, n - 1 times as a random part of it, drawn by seed."""

    n: int
    seed: np.random.SeedSequence


@dataclass(frozen=True)
class TrainingFeatures:
    """The shots, the validation pictures beyond them, and a checksum of which pictures they are."""

    train: LabelledFeatures
    val: LabelledFeatures
    checksum: str


def training_features(
    bundle: Bundle,
    folder: LabelledFolder,
    shots: int,
    n_val: int,
    seed: np.random.SeedSequence,
    work: Path,
    progress: Progress,
    interrupt: Interrupt,
    plan: Plan,
    threads: int = 0,
    *,
    views: Views | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    strict: bool = False,
) -> TrainingFeatures:
    """Draw `shots` and up to `n_val` further pictures a class by seed, and encode them.

    The shots come as they are, or also in augmented views, which follow; validation pictures as they are.
    What an earlier process read or encoded for the same command lies in `work` and is used again.
    Small sets come into memory, large ones stay on disk and are read in blocks: which, the plan says.
    Raises ImagesError for a class without a readable picture, InterruptedRunError when a signal has come,
    with `strict` SkippedPicturesError when a picture could not be read. Costs no query.
    """
    views = views or Views(1, seed)
    tower_plan = _image_plan(plan)
    crops_key = _key(
        *(bundle.checksum, pictures_checksum(folder), ORDER, shots, n_val),
        *(seed.entropy, list(seed.spawn_key), str(plan.decoding_bytes)),
    )
    # A pass's size decides the last bits of its features.
    seen = [views.n, views.seed.entropy, list(views.seed.spawn_key)]
    key = _key(crops_key, asdict(tower_plan), threads, seen)
    drawn = _kept_before(work, key, views.n, len(folder.files), bundle.manifest.embed_dim)
    if drawn is not None:
        _report(folder, drawn, progress, strict)
        progress.say(f"features of {len(drawn['labels'])} pictures are there from before")
    else:
        how, embed_dim = bundle.manifest.preprocess, bundle.manifest.embed_dim
        largest_crop = max(_crop_bytes(how), LONGEST_REASON) + 1
        largest_pass = 4 * embed_dim * tower_plan.together

        def is_outcome(_: int, record: bytes) -> bool:
            return record[:1] == IS_REASON or (record[:1] == IS_CROP and len(record) == 1 + _crop_bytes(how))

        def is_pass(number: int, record: bytes) -> bool:
            n_left = len(rows) - number * tower_plan.together
            return len(record) == 4 * embed_dim * min(n_left, tower_plan.together)

        with Journal(work / CROPS_FILE, crops_key, largest_crop, checkpoint_seconds, is_outcome) as read:
            drawn, crops = _draw_and_crop(bundle, folder, shots, n_val, seed, read, progress, interrupt, plan)
            _report(folder, drawn, progress, strict)
            rows = [(crops[number], i) for number, i in _encoding_order(drawn, views.n)]
            with Journal(work / ENCODED_FILE, key, largest_pass, checkpoint_seconds, is_pass) as encoded:
                _encode_crops(bundle, read, rows, views, encoded, progress, interrupt, tower_plan, threads)
                _write_features(work / FEATURES_FILE, encoded, (len(rows), embed_dim))
        kept = {"key": key, "drawn": drawn, "features": file_checksum(work / FEATURES_FILE)}
        write_checked_json(work / PICTURES_FILE, kept)
    remove(work / CROPS_FILE)
    remove(work / ENCODED_FILE)
    labels = np.asarray(drawn["labels"], np.int64)[_encoding_order(drawn, views.n)[:, 0]]
    n_train = len(labels) - sum(drawn["is_val"])
    return TrainingFeatures(
        LabelledFeatures(_features(work, 0, n_train, bundle, plan), labels[:n_train]),
        LabelledFeatures(_features(work, n_train, len(labels), bundle, plan), labels[n_train:]),
        _key(drawn["files"]),
    )


def pictures_checksum(folder: LabelledFolder) -> str:
    """Changes when a file's name, size or time changes."""
    return _key(
        [
            [_spelt(path.relative_to(folder.root)), *_size_and_time(path)]
            for paths in folder.files
            for path in paths
        ]
    )


def stream_features(
    bundle: Bundle, files: Sequence[Path], skipped: Skipped, plan: Plan, threads: int = 0
) -> Iterator[tuple[list[int], Floats]]:
    """Encode pictures pass by pass: yields (their numbers in `files`, unit features (B, E))."""
    how, together = bundle.manifest.preprocess, _image_plan(plan).together
    with ImageTower(bundle, _image_plan(plan), threads) as tower:
        numbers: list[int] = []
        crops: list[NDArray[np.uint8]] = []
        for i, path in enumerate(files):
            try:
                crops.append(read_crop(path, how, plan.decoding_bytes))
                numbers.append(i)
            except UnreadablePictureError as reason:
                skipped.add(path, str(reason))
            if crops and (len(crops) == together or i == len(files) - 1):
                yield numbers, tower.image_features(_pixels(crops, how, _image_plan(plan)))
                numbers, crops = [], []


def _draw_and_crop(
    bundle: Bundle,
    folder: LabelledFolder,
    shots: int,
    n_val: int,
    seed: np.random.SeedSequence,
    read: Journal,
    progress: Progress,
    interrupt: Interrupt,
    plan: Plan,
) -> tuple[dict[str, Any], list[int]]:
    """Read the crops of the drawn pictures; returns which they are, as JSON, and their records in `read`.

    A class's pictures are taken in an order drawn by seed; one that cannot be read is passed over, and
    the next takes its place. The first of these outcomes may be in the journal from before.
    """
    files: list[str] = []
    labels: list[int] = []
    is_val: list[bool] = []
    crops: list[int] = []
    skipped, few = Skipped(), []
    orders = seed.spawn(len(folder.files))
    n_tried = 0
    for k, (paths, order) in enumerate(zip(folder.files, orders, strict=True)):
        n_read = 0
        for i in np.random.default_rng(order).permutation(len(paths)):
            if n_read == shots + n_val:
                break
            interrupt.raise_if_received(
                f"{len(files)} pictures are read, and kept. To go on, type the same command again, without "
                f"--restart"
            )
            progress.status(f"reading picture {len(files) + 1}, class {k + 1} of {len(orders)}")
            if n_tried == len(read):
                read.append(_outcome(paths[i], bundle.manifest.preprocess, plan.decoding_bytes))
            outcome = read[n_tried]
            n_tried += 1
            if outcome[:1] == IS_REASON:
                skipped.add(paths[i], outcome[1:].decode(errors="replace"))
                continue
            crops.append(n_tried - 1)
            files.append(_spelt(paths[i].relative_to(folder.root)))
            labels.append(k)
            is_val.append(n_read >= shots)
            n_read += 1
        if n_read == 0:
            raise ImagesError(
                f"The class folder {folder.root / folder.folders[k]} has no picture that can be read "
                f"({len(paths)} files). Every class needs at least one JPEG, PNG or other picture. "
                f"Add pictures, or remove the folder"
            )
        if n_read < shots:
            few.append(f"{folder.folders[k]} ({n_read})")
    said = []
    if few:
        rest = f", and {len(few) - FEW_SHOWN} more classes" * (len(few) > FEW_SHOWN)
        said.append(f"fewer than {shots} pictures, all of them used: {', '.join(few[:FEW_SHOWN])}{rest}")
    drawn = {"files": files, "labels": labels, "is_val": is_val, "skipped": skipped.lines(), "said": said}
    return drawn, crops


def _outcome(path: Path, how: Preprocess, most_bytes: float) -> bytes:
    """A record of crops.journal: the crop, or why there is none."""
    try:
        return IS_CROP + read_crop(path, how, most_bytes).tobytes()
    except UnreadablePictureError as reason:
        return IS_REASON + str(reason).encode()


def _report(folder: LabelledFolder, drawn: dict[str, Any], progress: Progress, strict: bool) -> None:
    """Say what was passed over. Raises SkippedPicturesError for it with `strict`."""
    skipped = [*folder.skipped_lines(), *drawn["skipped"]]
    if strict and skipped:
        raise skipped_pictures(skipped)
    for line in (*skipped, *drawn["said"]):
        progress.say(line)


def refuse_skipped_before(work: Path) -> None:
    """Raises SkippedPicturesError when the features in `work` were made without some pictures."""
    kept = read_checked_json(work / PICTURES_FILE)
    if isinstance(kept, dict) and kept["drawn"]["skipped"]:
        raise skipped_pictures(kept["drawn"]["skipped"])


def skipped_pictures(lines: list[str]) -> SkippedPicturesError:
    return SkippedPicturesError(
        f"Pictures cannot be read: {'; '.join(lines)}. With --strict every one must be readable. "
        f"Mend or remove them, or leave out --strict"
    )


def _encode_crops(
    bundle: Bundle,
    read: Journal,
    rows: list[tuple[int, int]],
    views: Views,
    encoded: Journal,
    progress: Progress,
    interrupt: Interrupt,
    plan: TowerPlan,
    threads: int,
) -> None:
    """Encode rows, (record of `read`, view), a pass of them at a time, into records of `encoded`: float32.

    Views are parts of the crops on disk, not of the pictures: decoding once is what a board can afford.
    Raises NumericsError when the tower answers differently twice, which is asked before the first pass.
    """
    how = bundle.manifest.preprocess
    draws = np.random.default_rng(views.seed).random((len(rows), 5))

    def crop_of(row: int) -> NDArray[np.uint8]:
        record, i = rows[row]
        plain = _crop(read[record], how)
        return view(plain, draws[row]) if i else plain

    passes = [
        range(start, min(start + plan.together, len(rows))) for start in range(0, len(rows), plan.together)
    ]
    if len(encoded) < len(passes):
        with ImageTower(bundle, plan, threads) as tower:
            if not len(encoded):
                _require_one_answer(tower, to_pixels(crop_of(0)[np.newaxis], how))
            for taken in passes[len(encoded) :]:
                interrupt.raise_if_received(
                    f"{taken.start} of {len(rows)} pictures are encoded, and kept. To go on, type the same "
                    f"command again, without --restart"
                )
                progress.status(f"encoding picture {taken.start + 1} of {len(rows)}")
                pixels = _pixels([crop_of(row) for row in taken], how, plan)
                encoded.append(tower.image_features(pixels).astype("<f4").tobytes())
    of_views = f", every shot in {views.n} views" * (views.n > 1)
    progress.say(f"encoded {len(rows)} pictures{of_views}")


def _require_one_answer(tower: ImageTower, pixels: Floats) -> None:
    first, second = (tower.image_features([pixels]) for _ in range(2))
    if not np.array_equal(first, second):
        raise NumericsError(
            f"The image tower answers one picture differently when it is asked twice, by up to "
            f"{np.abs(first - second).max():.1e}. The same input must give the same answer, bit for bit. "
            f"Try --threads 1, and check the bundle with: sharpzo-edge doctor --bundle {tower.folder}"
        )


def _write_features(path: Path, encoded: Journal, shape: tuple[int, int]) -> None:
    with replacing(path) as out:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(out, header)
        for number in range(len(encoded)):
            out.write(encoded[number])


def _crop_bytes(how: Preprocess) -> int:
    return how.size[0] * how.size[1] * 3


def _crop(record: bytes, how: Preprocess) -> NDArray[np.uint8]:
    return np.frombuffer(record, np.uint8, offset=1).reshape(*how.size, 3)


def _pixels(crops: list[NDArray[np.uint8]], how: Preprocess, plan: TowerPlan) -> Iterable[Floats]:
    """A pass of crops as batches of pixels, each made when its turn comes."""
    return (to_pixels(np.stack(crops[i : i + plan.group]), how) for i in range(0, len(crops), plan.group))


def _encoding_order(drawn: dict[str, Any], n_views: int) -> NDArray[np.int64]:
    """(crop, view) of every row: the shots view by view, then the validation pictures, as they were drawn."""
    is_val = np.asarray(drawn["is_val"], bool)
    shots, val = np.flatnonzero(~is_val), np.flatnonzero(is_val)
    parts = [(shots, i) for i in range(n_views)] + [(val, 0)]
    return np.concatenate([np.column_stack((crops, np.full_like(crops, i))) for crops, i in parts])


def _features(work: Path, start: int, end: int, bundle: Bundle, plan: Plan) -> FeatureRows:
    """Rows start..end-1 of features.npy, in memory when the plan has room for them."""
    embed_dim = bundle.manifest.embed_dim
    with (work / FEATURES_FILE).open("rb") as file:
        offset = npy_offset(file, np.float32, (None, embed_dim))
    rows = FeatureFile(work / FEATURES_FILE, offset + 4 * embed_dim * start, end - start, embed_dim)
    return rows if plan.features_on_disk else rows[:]


def _image_plan(plan: Plan) -> TowerPlan:
    assert plan.image is not None  # whoever has pictures plans for them
    return plan.image


def _kept_before(work: Path, key: str, n_views: int, n_classes: int, embed_dim: int) -> dict[str, Any] | None:
    """What `_draw_and_crop` returned when the features that lie in `work` were made, for the same key."""
    kept = read_checked_json(work / PICTURES_FILE)
    if not isinstance(kept, dict) or kept.get("key") != key:
        return None
    if kept.get("features") != file_checksum(work / FEATURES_FILE):
        return None
    drawn = kept.get("drawn")
    if not isinstance(drawn, dict) or not _is_drawn(drawn, n_classes):
        return None
    try:
        with (work / FEATURES_FILE).open("rb") as file:
            npy_offset(file, np.float32, (len(_encoding_order(drawn, n_views)), embed_dim))
    except (OSError, ValueError):
        return None
    return drawn


def _is_drawn(drawn: dict[str, Any], n_classes: int) -> bool:
    """Whether it has the form of what `_draw_and_crop` returns: anyone can make a checksum that fits."""
    if drawn.keys() != DRAWN.keys():
        return False
    for name, kind in DRAWN.items():
        if type(drawn[name]) is not list or any(type(value) is not kind for value in drawn[name]):
            return False
    labels, is_val = drawn["labels"], drawn["is_val"]
    with_shots = {label for label, val in zip(labels, is_val, strict=False) if not val}
    return (
        len(drawn["files"]) == len(labels) == len(is_val)
        and with_shots == set(range(n_classes))
        and with_shots.issuperset(labels)
    )


def _size_and_time(path: Path) -> tuple[int, int]:
    """(-1, -1) for a link that leads nowhere, or a file that has just gone."""
    try:
        status = path.stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _spelt(path: Path) -> str:
    """A path as text that JSON can hold, whatever its bytes are."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _key(*parts: Any) -> str:
    """One word for JSON values: another one when any of them is another."""
    return checksum(canonical_json(list(parts)))
