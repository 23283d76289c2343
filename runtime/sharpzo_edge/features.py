"""From labelled pictures to unit image features: each picture is decoded and encoded once.

For tuning, crops go to disk before a session opens, and features before the image tower closes: so decoding,
the image tower and the text tower are never in memory together. eval and predict go picture by picture.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import FeatureRows, Floats, LabelledFeatures
from .bundle import Bundle, Preprocess
from .errors import ImagesError
from .files import canonical_json, replacing, write_json
from .images import LabelledFolder, Skipped, UnreadablePictureError, read_crop, to_pixels, view
from .interrupt import Interrupt
from .memory import FEATURES_IN_MEMORY, Plan, TowerPlan
from .progress import Progress
from .towers import ImageTower

NOTHING_KEPT = "No picture's features are kept yet. To begin again, type the same command"
ORDER = "shots, then validation"  # of the rows in features.npy
FEW_SHOWN = 8  # classes that a line names
CROPS_FILE, FEATURES_FILE, PICTURES_FILE = "crops.u8", "features.npy", "pictures.json"


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
    views: Views | None = None,
) -> TrainingFeatures:
    """Draw `shots` and up to `n_val` further pictures a class by seed, and encode them.

    The shots come as they are, or also in augmented views, which follow; validation pictures as they are.
    Features in `work` that were made from the same pictures by the same bundle are used again.
    Small sets come into memory, large ones stay on disk and are read in blocks.
    Raises ImagesError for a class without a readable picture, InterruptedRunError when a signal has come.
    Costs no query.
    """
    views = views or Views(1, seed)
    key = _key(bundle, folder, shots, n_val, seed, views)
    drawn = _drawn_before(work, key, bundle.manifest.embed_dim, views.n)
    if drawn is None:
        # What stands there describes other features than those that are about to be written.
        (work / PICTURES_FILE).unlink(missing_ok=True)
        drawn = _draw_and_crop(bundle, folder, shots, n_val, seed, work, progress, interrupt, plan)
        rows = _encoding_order(drawn, views.n)
        _encode_crops(bundle, rows, views, work, progress, interrupt, _image_plan(plan), threads)
        write_json(work / PICTURES_FILE, drawn | {"key": key})
        (work / CROPS_FILE).unlink()
    else:
        progress.say(f"features of {len(drawn['labels'])} pictures are there from before")
    for line in drawn["said"]:
        progress.say(line)
    labels = np.asarray(drawn["labels"], np.int64)[_encoding_order(drawn, views.n)[:, 0]]
    n_train = len(labels) - sum(drawn["is_val"])
    return TrainingFeatures(
        LabelledFeatures(_features(work, 0, n_train, bundle), labels[:n_train]),
        LabelledFeatures(_features(work, n_train, len(labels), bundle), labels[n_train:]),
        hashlib.sha256(canonical_json([key, drawn["files"]])).hexdigest(),
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
    work: Path,
    progress: Progress,
    interrupt: Interrupt,
    plan: Plan,
) -> dict[str, Any]:
    """Write the crops of the drawn pictures; returns which they are, as JSON.

    A class's pictures are taken in an order drawn by seed; one that cannot be read is passed over, and
    the next takes its place.
    """
    files: list[str] = []
    labels: list[int] = []
    is_val: list[bool] = []
    skipped, few = Skipped(), []
    orders = seed.spawn(len(folder.files))
    with replacing(work / CROPS_FILE) as out:
        for k, (paths, order) in enumerate(zip(folder.files, orders, strict=True)):
            n_read = 0
            for i in np.random.default_rng(order).permutation(len(paths)):
                if n_read == shots + n_val:
                    break
                interrupt.raise_if_received(NOTHING_KEPT)
                progress.status(f"reading picture {len(files) + 1}, class {k + 1} of {len(orders)}")
                try:
                    picture = read_crop(paths[i], bundle.manifest.preprocess, plan.decoding_bytes)
                except UnreadablePictureError as reason:
                    skipped.add(paths[i], str(reason))
                    continue
                out.write(picture.tobytes())
                files.append(str(paths[i].relative_to(folder.root)))
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
    said = skipped.lines()
    if few:
        rest = f", and {len(few) - FEW_SHOWN} more classes" * (len(few) > FEW_SHOWN)
        said.append(f"fewer than {shots} pictures, all of them used: {', '.join(few[:FEW_SHOWN])}{rest}")
    return {"files": files, "labels": labels, "is_val": is_val, "said": said}


def _encode_crops(
    bundle: Bundle,
    rows: NDArray[np.int64],
    views: Views,
    work: Path,
    progress: Progress,
    interrupt: Interrupt,
    plan: TowerPlan,
    threads: int,
) -> None:
    """crops.u8 -> features.npy, whose rows are (crop, view); a pass of crops at a time.

    Views are parts of the crops on disk, not of the pictures: decoding once is what a board can afford.
    """
    how = bundle.manifest.preprocess
    shape = (*how.size, 3)
    n_bytes = int(np.prod(shape))
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(rows), bundle.manifest.embed_dim)}

    draws = np.random.default_rng(views.seed).random((len(rows), 5))

    def crop_of(row: int) -> NDArray[np.uint8]:
        number, i = (int(n) for n in rows[row])
        plain = np.frombuffer(os.pread(crops.fileno(), n_bytes, number * n_bytes), np.uint8).reshape(shape)
        return view(plain, draws[row]) if i else plain

    with (
        (work / CROPS_FILE).open("rb") as crops,
        replacing(work / FEATURES_FILE) as out,
        ImageTower(bundle, plan, threads) as tower,
    ):
        np.lib.format.write_array_header_1_0(out, header)
        for start in range(0, len(rows), plan.together):
            interrupt.raise_if_received(NOTHING_KEPT)
            progress.status(f"encoding picture {start + 1} of {len(rows)}")
            taken = [crop_of(row) for row in range(start, min(start + plan.together, len(rows)))]
            out.write(tower.image_features(_pixels(taken, how, plan)).astype("<f4").tobytes())
    of_views = f", every shot in {views.n} views" * (views.n > 1)
    progress.say(f"encoded {len(rows)} pictures{of_views}")


def _pixels(crops: list[NDArray[np.uint8]], how: Preprocess, plan: TowerPlan) -> Iterable[Floats]:
    """A pass of crops as batches of pixels, each made when its turn comes."""
    return (to_pixels(np.stack(crops[i : i + plan.group]), how) for i in range(0, len(crops), plan.group))


def _encoding_order(drawn: dict[str, Any], n_views: int) -> NDArray[np.int64]:
    """(crop, view) of every row: the shots view by view, then the validation pictures, as they were drawn."""
    is_val = np.asarray(drawn["is_val"], bool)
    shots, val = np.flatnonzero(~is_val), np.flatnonzero(is_val)
    parts = [(shots, i) for i in range(n_views)] + [(val, 0)]
    return np.concatenate([np.column_stack((crops, np.full_like(crops, i))) for crops, i in parts])


def _features(work: Path, start: int, end: int, bundle: Bundle) -> FeatureRows:
    """Rows start..end-1 of features.npy, in memory when they are few."""
    embed_dim = bundle.manifest.embed_dim
    row_bytes = 4 * embed_dim
    size = (work / FEATURES_FILE).stat().st_size
    with (work / FEATURES_FILE).open("rb") as file:
        np.lib.format.read_magic(file)
        (n_rows, _), _, _ = np.lib.format.read_array_header_1_0(file)
    first = size - n_rows * row_bytes + start * row_bytes
    rows = FeatureFile(work / FEATURES_FILE, first, end - start, embed_dim)
    return rows[:] if size <= FEATURES_IN_MEMORY else rows


def _image_plan(plan: Plan) -> TowerPlan:
    assert plan.image is not None  # whoever has pictures plans for them
    return plan.image


def _drawn_before(work: Path, key: str, embed_dim: int, n_views: int) -> dict[str, Any] | None:
    """What `_draw_and_crop` returned in an earlier run of the same pictures and bundle."""
    try:
        drawn = json.loads((work / PICTURES_FILE).read_bytes())
        features = np.load(work / FEATURES_FILE, mmap_mode="r", allow_pickle=False)
        if drawn["key"] != key or features.shape != (len(_encoding_order(drawn, n_views)), embed_dim):
            return None
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    return dict(drawn)


def _key(
    bundle: Bundle,
    folder: LabelledFolder,
    shots: int,
    n_val: int,
    seed: np.random.SeedSequence,
    views: Views,
) -> str:
    """Changes when the bundle, the files (name, size, time), the draw or the views change."""
    listing = [
        [str(p.relative_to(folder.root)), p.stat().st_size, p.stat().st_mtime_ns]
        for paths in folder.files
        for p in paths
    ]
    draw = [ORDER, shots, n_val, seed.entropy, list(seed.spawn_key)]
    seen = [views.n, views.seed.entropy, list(views.seed.spawn_key)]
    return hashlib.sha256(canonical_json([bundle.checksum, listing, draw, seen])).hexdigest()
