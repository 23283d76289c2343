"""From labelled pictures to unit image features for tuning; they are kept, and used again.

Crops go to disk before a session opens, and features before the image tower closes: so decoding, the image
tower and the text tower are never in memory together.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ..clip.bundle import Bundle
from ..memory.plan import Plan
from ..run.files import file_checksum, json_checksum, read_checked_json, remove, write_checked_json
from ..run.progress import Progress
from ..run.typed_json import from_json
from ..run.workplace import Workplace
from ..types import LabelledFeatures
from .encode import ENCODED_FILE, Rows, encode, encoded_journal
from .feature_file import FeatureFile, write_features
from .few_shot import CROPS_FILE, ROW_ORDER, Draw, Drawn, crops_journal, draw_crops, pictures_checksum
from .folder import LabelledFolder, skipped_pictures

FEATURES_FILE, PICTURES_FILE = "features.npy", "pictures.json"  # what is kept in the end


@dataclass(frozen=True)
class TrainingFeatures:
    """The shots, the validation pictures beyond them, and a checksum of which pictures they are."""

    train: LabelledFeatures
    val: LabelledFeatures
    checksum: str


@dataclass(frozen=True)
class Kept:
    """pictures.json: what features.npy, of this checksum, was made of, and under which key."""

    key: str
    drawn: Drawn
    features: str | None


def training_features(
    bundle: Bundle,
    folder: LabelledFolder,
    draw: Draw,
    plan: Plan,
    threads: int,
    at: Workplace,
    *,
    strict: bool = False,
) -> TrainingFeatures:
    """Draw shots and validation pictures of every class, and encode them.

    The shots come as they are, or also in augmented views, which follow; validation pictures as they are.
    What an earlier process read or encoded for the same command lies in `at.folder` and is used again.
    Small sets come into memory, large ones stay on disk and are read in blocks: which, the plan says.
    Raises ImagesError for a class without a readable picture, InterruptedRunError when a signal has come,
    with `strict` SkippedPicturesError when a picture could not be read. Costs no query.
    """
    embed_dim = bundle.manifest.embed_dim
    crops_key, key = _keys(bundle, folder, draw, plan, threads)
    drawn = _drawn_before(at.folder, key, draw.views, len(folder.files), embed_dim)
    if drawn is not None:
        _report(folder, drawn, at.progress, strict)
        at.progress.say(f"features of {len(drawn.labels)} pictures are there from before")
    else:
        how, tower_plan = bundle.manifest.preprocess, plan.image
        assert tower_plan is not None  # whoever has pictures plans for them
        with crops_journal(at, crops_key, how) as crops:
            drawn, records = draw_crops(folder, draw, how, plan.decoding_bytes, crops, at)
            _report(folder, drawn, at.progress, strict)
            pictures, views = drawn.rows(draw.views).T
            order = np.column_stack((np.asarray(records)[pictures], views))
            parts = np.random.default_rng(draw.views_seed).random((len(order), 5))
            rows = Rows(crops, how, order, parts)
            with encoded_journal(at, key, len(rows), tower_plan, embed_dim) as encoded:
                encode(bundle, rows, tower_plan, threads, encoded, at)
                of_views = f", every shot in {draw.views} views" * (draw.views > 1)
                at.progress.say(f"encoded {len(rows)} pictures{of_views}")
                write_features(at.folder / FEATURES_FILE, encoded, (len(rows), embed_dim))
        kept = Kept(key, drawn, file_checksum(at.folder / FEATURES_FILE))
        write_checked_json(at.folder / PICTURES_FILE, asdict(kept))
    remove(at.folder / CROPS_FILE)
    remove(at.folder / ENCODED_FILE)
    labels = np.asarray(drawn.labels, np.int64)[drawn.rows(draw.views)[:, 0]]
    n, n_train = len(labels), len(labels) - sum(drawn.is_val)
    features = FeatureFile.open(at.folder / FEATURES_FILE, n, embed_dim)
    train, val = features.part(0, n_train), features.part(n_train, n)
    return TrainingFeatures(
        LabelledFeatures(train if plan.features_on_disk else train[:], labels[:n_train]),
        LabelledFeatures(val if plan.features_on_disk else val[:], labels[n_train:]),
        json_checksum(drawn.files),
    )


def refuse_skipped_before(work: Path, folder: LabelledFolder) -> None:
    """Raises SkippedPicturesError when the features in `work` were made without some pictures or classes."""
    kept = _kept(work)
    if skipped := [*folder.skipped_lines(), *(kept.drawn.skipped if kept else ())]:
        raise skipped_pictures(skipped)


def _keys(bundle: Bundle, folder: LabelledFolder, draw: Draw, plan: Plan, threads: int) -> tuple[str, str]:
    """What decides the crops, and what decides the features, whose last bits depend on a pass's size."""
    assert plan.image is not None  # whoever has pictures plans for them
    crops = json_checksum(
        *(bundle.checksum, pictures_checksum(folder), ROW_ORDER, draw.shots, draw.n_val),
        *(draw.seed.entropy, list(draw.seed.spawn_key), str(plan.decoding_bytes)),
    )
    seen = [draw.views, draw.views_seed.entropy, list(draw.views_seed.spawn_key)]
    return crops, json_checksum(crops, asdict(plan.image), threads, seen)


def _drawn_before(work: Path, key: str, n_views: int, n_classes: int, embed_dim: int) -> Drawn | None:
    """What was drawn when the features that lie in `work` were made, for the same key."""
    kept = _kept(work)
    if kept is None or kept.key != key or not kept.drawn.fits(n_classes):
        return None
    if kept.features != file_checksum(work / FEATURES_FILE):
        return None
    try:
        FeatureFile.open(work / FEATURES_FILE, len(kept.drawn.rows(n_views)), embed_dim)
    except (OSError, ValueError):
        return None
    return kept.drawn


def _kept(work: Path) -> Kept | None:
    """None when there is none, or a damaged one."""
    try:
        kept = from_json(Kept, read_checked_json(work / PICTURES_FILE))
    except ValueError:
        return None
    assert isinstance(kept, Kept)
    return kept


def _report(folder: LabelledFolder, drawn: Drawn, progress: Progress, strict: bool) -> None:
    """Say what was passed over. Raises SkippedPicturesError for it with `strict`."""
    skipped = [*folder.skipped_lines(), *drawn.skipped]
    if strict and skipped:
        raise skipped_pictures(skipped)
    for line in (*skipped, *drawn.said):
        progress.say(line)
