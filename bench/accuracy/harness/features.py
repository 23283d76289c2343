"""Unit image features of a task's pictures, and the draw of shots: each picture is encoded once and kept.

Files are .npz without pickle, named by a checksum of the bundle and of the files (name, size, time). The
product's own code says in which order pictures are taken and which of them are shots, so `tune` with the
same seed sees the same pictures.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sharpzo_edge.clip.bundle import Bundle
from sharpzo_edge.clip.decoding import UnreadablePictureError
from sharpzo_edge.clip.preprocess import read_crop, to_pixels
from sharpzo_edge.clip.sessions import onnxruntime_version
from sharpzo_edge.memory.budget import budget_of
from sharpzo_edge.memory.plan import plan_images
from sharpzo_edge.pictures.encode import encode_files
from sharpzo_edge.pictures.few_shot import shots_then_validation, taking_orders
from sharpzo_edge.pictures.folder import Skipped
from sharpzo_edge.run.files import canonical_json, replacing
from sharpzo_edge.seeds import seed_stream
from sharpzo_edge.types import Floats, LabelledFeatures

from .tasks import Files, Task

MOST_SHOTS, N_VAL = 16, 4


@dataclass(frozen=True)
class Pool:
    """The pictures of one seed's draws, each class's in the order that they are drawn in.

    train, val: features of each class (n, E); val None: validation comes after the shots in train
    train_files, val_files: the same pictures
    """

    train: tuple[Floats, ...]
    val: tuple[Floats, ...] | None
    train_files: Files
    val_files: Files | None

    def draw(self, shots: int, n_val: int = N_VAL) -> tuple[LabelledFeatures, LabelledFeatures]:
        """The shots, and validation pictures beyond them."""
        train, val = chosen(self.train, self.val, shots, n_val)
        return labelled(train), labelled(val)

    def draw_files(self, shots: int, n_val: int = N_VAL) -> tuple[Files, Files]:
        """The same pictures as files of each class."""
        return chosen(self.train_files, self.val_files, shots, n_val)

    def counts(self, shots: int) -> dict[str, int]:
        """What such a draw comes to: its pictures, and the classes that any are left to validate on."""
        train, val = self.draw(shots)
        return {"train": len(train), "val": len(val), "val_classes": len(np.unique(val.labels))}


Pictures = TypeVar("Pictures", Floats, tuple[Path, ...])  # of one class: their features, or their files


def chosen(
    train: Sequence[Pictures], val: Sequence[Pictures] | None, shots: int, n_val: int
) -> tuple[tuple[Pictures, ...], tuple[Pictures, ...]]:
    """The shots and the validation pictures of every class; val None: they come after the shots in train."""
    of_shots, of_val = shots_then_validation(shots, n_val)
    later = tuple(p[of_val] for p in train) if val is None else tuple(p[:n_val] for p in val)
    return tuple(p[of_shots] for p in train), later


def pool(bundle: Bundle, task: Task, seed: int, cache: Path) -> Pool:
    """As many pictures a class as the largest draw takes."""
    n_classes = len(task.train)
    sizes = [len(paths) for paths in (*task.train, *(task.val or ()))]
    orders = list(taking_orders(seed_stream(seed, "split"), sizes))
    n_train = MOST_SHOTS + (N_VAL if task.val is None else 0)
    train = first_readable(bundle, task.train, orders[:n_classes], n_train)
    if task.val is None:
        return Pool(of_classes(bundle, train, cache), None, train, None)
    val = first_readable(bundle, task.val, orders[n_classes:], N_VAL)
    return Pool(of_classes(bundle, train, cache), of_classes(bundle, val, cache), train, val)


def first_readable(bundle: Bundle, files: Files, orders: Sequence[NDArray[np.int64]], most: int) -> Files:
    """Up to `most` pictures of each class in its order; unreadable ones are passed over."""
    drawn = []
    for paths, order in zip(files, orders, strict=True):
        taken: list[Path] = []
        for i in order:
            if len(taken) == most:
                break
            try:
                read_crop(paths[i], bundle.manifest.preprocess)
            except UnreadablePictureError:
                continue
            taken.append(paths[i])
        drawn.append(tuple(taken))
    return tuple(drawn)


def of_classes(bundle: Bundle, files: Files, cache: Path) -> tuple[Floats, ...]:
    """Features (n, E) of each class's pictures."""
    found = encoded(bundle, files, cache)
    return tuple(found.features[:][found.labels == k] for k in range(len(files)))


def labelled(of_class: Sequence[Floats]) -> LabelledFeatures:
    """Class after class."""
    labels = np.repeat(np.arange(len(of_class)), [len(rows) for rows in of_class])
    return LabelledFeatures(np.concatenate(of_class), labels)


def encoded(bundle: Bundle, files: Files, cache: Path) -> LabelledFeatures:
    """Every readable picture, class after class; from the cache when the same files are there."""
    path = cache / f"{_key(bundle, files)}.npz"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        features, labels = _encode(bundle, files)
        stored = io.BytesIO()
        np.savez(stored, features=features, labels=labels)
        with replacing(path) as file:
            file.write(stored.getvalue())
    with np.load(path, allow_pickle=False) as stored:
        return LabelledFeatures(stored["features"], stored["labels"])


def pixels_of(bundle: Bundle, files: Files) -> LabelledFeatures:
    """Every readable picture as the image tower takes it, (N, 3, H, W), instead of its features."""
    how = bundle.manifest.preprocess
    crops, labels = [], []
    for k, of_class in enumerate(files):
        for path in of_class:
            with contextlib.suppress(UnreadablePictureError):
                crops.append(read_crop(path, how))
                labels.append(k)
    pixels = to_pixels(np.stack(crops), how) if crops else np.empty((0, 3, *how.size), np.float32)
    return LabelledFeatures(pixels, np.asarray(labels, np.int64))


def _encode(bundle: Bundle, files: Files) -> tuple[Floats, np.ndarray]:
    paths = [path for of_class in files for path in of_class]
    labels = np.repeat(np.arange(len(files)), [len(of_class) for of_class in files])
    skipped = Skipped()
    numbers: list[int] = []
    rows = [np.empty((0, bundle.manifest.embed_dim), np.float32)]
    # One thread, so that the last bits do not depend on the machine's cores.
    plan = plan_images(bundle.manifest, 1, budget_of(None, onnxruntime_version()))
    for some, features in encode_files(bundle, paths, skipped.add, plan):
        numbers += some
        rows.append(features)
    for line in skipped.lines():
        print(line, flush=True)
    return np.concatenate(rows), labels[numbers]


def _key(bundle: Bundle, files: Files) -> str:
    listing = [
        [[p.name, p.parent.name, p.stat().st_size, p.stat().st_mtime_ns] for p in of_class]
        for of_class in files
    ]
    return hashlib.sha256(canonical_json([bundle.checksum, listing])).hexdigest()
