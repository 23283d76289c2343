"""From labelled pictures to unit image features: each picture is decoded and encoded once.

For tuning, crops go to disk before a session opens, and features before the image tower closes: so decoding,
the image tower and the text tower are never in memory together. eval and predict go picture by picture.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import Floats, LabelledFeatures
from .bundle import Bundle
from .errors import ImagesError
from .files import canonical_json, replacing, write_json
from .images import LabelledFolder, Skipped, UnreadablePictureError, read_crop, to_pixels
from .interrupt import Interrupt
from .memory import IMAGES_IN_FLIGHT
from .progress import Progress
from .towers import ResidentImageTower

NOTHING_KEPT = "No picture's features are kept yet. To begin again, type the same command"
CROPS_FILE, FEATURES_FILE, PICTURES_FILE = "crops.u8", "features.npy", "pictures.json"


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
    threads: int = 0,
) -> TrainingFeatures:
    """Draw `shots` and up to `n_val` further pictures a class by seed, and encode them.

    Features in `work` that were made from the same pictures by the same bundle are used again.
    Raises ImagesError for a class without a readable picture, InterruptedRunError when a signal has come.
    Costs no query.
    """
    key = _key(bundle, folder, shots, n_val, seed)
    drawn = _drawn_before(work, key, bundle.manifest.embed_dim)
    if drawn is None:
        # What stands there describes other features than those that are about to be written.
        (work / PICTURES_FILE).unlink(missing_ok=True)
        drawn = _draw_and_crop(bundle, folder, shots, n_val, seed, work, progress, interrupt)
        _encode_crops(bundle, len(drawn["labels"]), work, progress, interrupt, threads)
        write_json(work / PICTURES_FILE, drawn | {"key": key})
        (work / CROPS_FILE).unlink()
    else:
        progress.say(f"features of {len(drawn['labels'])} pictures are there from before")
    for line in drawn["said"]:
        progress.say(line)
    features = np.load(work / FEATURES_FILE, allow_pickle=False)
    labels = np.asarray(drawn["labels"], np.int64)
    is_val = np.asarray(drawn["is_val"], bool)
    return TrainingFeatures(
        LabelledFeatures(features[~is_val], labels[~is_val]),
        LabelledFeatures(features[is_val], labels[is_val]),
        hashlib.sha256(canonical_json([key, drawn["files"]])).hexdigest(),
    )


def stream_features(
    bundle: Bundle, files: Sequence[Path], skipped: Skipped, threads: int = 0
) -> Iterator[tuple[list[int], Floats]]:
    """Encode pictures batch by batch: yields (their numbers in `files`, unit features (B, E))."""
    how = bundle.manifest.preprocess
    with ResidentImageTower(bundle, threads) as tower:
        numbers: list[int] = []
        crops: list[NDArray[np.uint8]] = []
        for i, path in enumerate(files):
            try:
                crops.append(read_crop(path, how))
                numbers.append(i)
            except UnreadablePictureError as reason:
                skipped.add(path, str(reason))
            if crops and (len(crops) == IMAGES_IN_FLIGHT or i == len(files) - 1):
                yield numbers, tower.image_features(to_pixels(np.stack(crops), how))
                numbers, crops = [], []
        if crops:
            yield numbers, tower.image_features(to_pixels(np.stack(crops), how))


def _draw_and_crop(
    bundle: Bundle,
    folder: LabelledFolder,
    shots: int,
    n_val: int,
    seed: np.random.SeedSequence,
    work: Path,
    progress: Progress,
    interrupt: Interrupt,
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
                    picture = read_crop(paths[i], bundle.manifest.preprocess)
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
        said.append(f"fewer than {shots} pictures, all of them used: {', '.join(few)}")
    return {"files": files, "labels": labels, "is_val": is_val, "said": said}


def _encode_crops(
    bundle: Bundle, n: int, work: Path, progress: Progress, interrupt: Interrupt, threads: int
) -> None:
    """crops.u8 -> features.npy, a few crops at a time."""
    how = bundle.manifest.preprocess
    shape = (*how.size, 3)
    n_bytes = int(np.prod(shape))
    header = {"descr": "<f4", "fortran_order": False, "shape": (n, bundle.manifest.embed_dim)}
    with (
        (work / CROPS_FILE).open("rb") as crops,
        replacing(work / FEATURES_FILE) as out,
        ResidentImageTower(bundle, threads) as tower,
    ):
        np.lib.format.write_array_header_1_0(out, header)
        for start in range(0, n, IMAGES_IN_FLIGHT):
            interrupt.raise_if_received(NOTHING_KEPT)
            progress.status(f"encoding picture {start + 1} of {n}")
            count = min(IMAGES_IN_FLIGHT, n - start)
            batch = np.frombuffer(crops.read(count * n_bytes), np.uint8).reshape(count, *shape)
            out.write(tower.image_features(to_pixels(batch, how)).astype("<f4").tobytes())
    progress.say(f"encoded {n} pictures")


def _drawn_before(work: Path, key: str, embed_dim: int) -> dict[str, Any] | None:
    """What `_draw_and_crop` returned in an earlier run of the same pictures and bundle."""
    try:
        drawn = json.loads((work / PICTURES_FILE).read_bytes())
        features = np.load(work / FEATURES_FILE, mmap_mode="r", allow_pickle=False)
        if drawn["key"] != key or features.shape != (len(drawn["labels"]), embed_dim):
            return None
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    return dict(drawn)


def _key(bundle: Bundle, folder: LabelledFolder, shots: int, n_val: int, seed: np.random.SeedSequence) -> str:
    """Changes when the bundle, the files (name, size, time) or the draw change."""
    listing = [
        [str(p.relative_to(folder.root)), p.stat().st_size, p.stat().st_mtime_ns]
        for paths in folder.files
        for p in paths
    ]
    draw = [shots, n_val, seed.entropy, list(seed.spawn_key)]
    return hashlib.sha256(canonical_json([bundle.checksum, listing, draw])).hexdigest()
