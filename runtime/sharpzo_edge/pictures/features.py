"""From labelled pictures to unit image features for tuning; they are kept, and used again.

Crops go to disk before a session opens, and features before the image tower closes: so decoding, the image
tower and the text tower are never in memory together.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from ..clip.bundle import Bundle
from ..clip.decoding import DECODER
from ..clip.tower_plan import ImagePlan
from ..errors import UsageError
from ..run.files import file_checksum, is_there, json_checksum, read_checked_json, remove, write_checked_json
from ..run.folder import WorkFolder
from ..run.progress import Caller
from ..run.typed_json import read_dataclass
from ..types import LabelledFeatures, joined
from ..wording import counted
from .compare import changed_picture
from .content import listing_checksum
from .encode import Rows, encode, encoded_journal
from .feature_file import FeatureFile, FeatureRow, write_features
from .few_shot import ROW_ORDER, FewShot, Split, crops_bytes, crops_journal, read_split
from .folder import LabelledFolder, skipped_pictures


@dataclass(frozen=True)
class TrainingFeatures:
    """The shots, the validation pictures beyond them, and which pictures they are.

    train:    the shots, as they are and then in further views
    n_shots:  how many pictures the shots are, a view each
    files:    of the shots and then of the validation pictures, below the folder's root
    checksum: of names and contents
    """

    train: LabelledFeatures
    val: LabelledFeatures
    n_shots: int
    files: tuple[str, ...]
    checksum: str

    @property
    def drawn(self) -> LabelledFeatures:
        """All pictures as they are: the shots, and then the validation pictures. Copies nothing."""
        shots = LabelledFeatures(self.train.features, self.train.labels[: self.n_shots])
        return joined(shots, self.val)


@dataclass(frozen=True)
class Kept:
    """pictures.json: what features.npy, of this checksum, was made of, and under which key.

    encoder: what decides the features of a picture, beside its bytes
    """

    key: str
    encoder: str
    drawn: Split
    features: str | None


def training_features(
    bundle: Bundle,
    folder: LabelledFolder,
    few_shot: FewShot,
    plan: ImagePlan,
    work: WorkFolder,
    caller: Caller,
    *,
    on_disk: bool = False,
    strict: bool = False,
    keep: bool = False,
) -> TrainingFeatures:
    """Split off shots and validation pictures of every class, and encode them.

    The shots come as they are, or also in augmented views, which follow; validation pictures as they are.
    What an earlier process read or encoded for the same command lies in `work` and is used again.
    on_disk: the features stay on disk and are read in blocks; otherwise they come into memory
    keep:    also features of an earlier run on other pictures are used again, by the bytes of each picture
    Raises ImagesError for a class without a readable picture, InterruptedRunError when the caller wants to
    stop, with `strict` SkippedPicturesError when a picture could not be read, UsageError when pictures have
    changed with which tuning has begun. Costs no query.
    """
    embed_dim = bundle.manifest.embed_dim
    crops_key, key = _keys(bundle, folder, few_shot, plan)
    encoder = _encoder(bundle, plan)
    has_begun = is_there(work.checkpoint)
    if has_begun:
        refuse_other_pictures(f"The interrupted run in {work.path}", work, folder, few_shot, caller)
    split = _split_before(work, key, few_shot.views, len(folder.files), embed_dim)
    if (
        split is not None
        and not has_begun  # until then, what could not be read or has changed is read anew
        and (not split.is_lasting or changed_picture(folder, few_shot, split, caller))
    ):
        split = None
    if split is not None:
        _report(folder, split, caller, strict)
        caller.say(f"features of {counted(len(split.labels), 'picture')}, there from before")
    else:
        how = bundle.manifest.preprocess
        with crops_journal(work, crops_key, how) as crops:
            split, records = read_split(folder, few_shot, how, plan.decoding_bytes, crops, caller)
            caller.phase_ended("pictures")
            _report(folder, split, caller, strict)
            pictures, views = split.rows(few_shot.views).T
            order = np.column_stack((np.asarray(records)[pictures], views))
            parts = np.random.default_rng(few_shot.views_seed).random((len(order), 5))
            rows = Rows(crops, how, order, parts)
            of_these = json_checksum(key, split.files, split.contents)
            known = _known(work, encoder, embed_dim) if keep and few_shot.views == 1 else {}
            there = [known.get(split.contents[picture]) for picture in pictures]
            with encoded_journal(work, of_these, len(rows), plan, embed_dim) as encoded:
                encode(bundle, rows, plan, encoded, caller, there)
                caller.phase_ended("image tower")
                of_views = f", every shot in {few_shot.views} views" * (few_shot.views > 1)
                caller.say(f"encoded {counted(len(rows), 'picture')}{of_views}")
                write_features(work.features, encoded, (len(rows), embed_dim))
        kept = Kept(key, encoder, split, file_checksum(work.features))
        write_checked_json(work.pictures, asdict(kept))
    remove(work.crops)
    remove(work.encoded)
    labels = np.asarray(split.labels, np.int64)[split.rows(few_shot.views)[:, 0]]
    n, n_train = len(labels), len(labels) - sum(split.is_val)
    features = FeatureFile.open(work.features, n, embed_dim)
    train, val = features.part(0, n_train), features.part(n_train, n)
    return TrainingFeatures(
        LabelledFeatures(train if on_disk else train[:], labels[:n_train]),
        LabelledFeatures(val if on_disk else val[:], labels[n_train:]),
        split.is_val.count(False),
        tuple(split.files[i] for i, view in split.rows(few_shot.views) if view == 0),
        json_checksum(split.files, split.contents),
    )


def disk_bytes(bundle: Bundle, folder: LabelledFolder, few_shot: FewShot) -> int:
    """The most that crops and features take on disk: features lie in a journal before they are one file."""
    features = 4 * bundle.manifest.embed_dim * few_shot.n_rows(folder)
    return crops_bytes(few_shot.n_taken(folder), bundle.manifest.preprocess) + 2 * features


def skipped_before(work: WorkFolder) -> list[str]:
    """Lines for the user: which pictures the features in `work` were made without, and what would do."""
    kept = _kept(work)
    if not kept or not kept.drawn.skipped:
        return []
    again = "What could not be read then may be readable now: --restart tries it again"
    return [*kept.drawn.skipped, *[again] * (not kept.drawn.is_lasting)]


def refuse_skipped_before(work: WorkFolder, folder: LabelledFolder) -> None:
    """Raises SkippedPicturesError when the features in `work` were made without some pictures or classes."""
    kept = _kept(work)
    if skipped := [*folder.skipped_lines(), *(kept.drawn.skipped if kept else ())]:
        raise skipped_pictures(skipped)


def refuse_other_pictures(
    what: str, work: WorkFolder, folder: LabelledFolder, few_shot: FewShot, caller: Caller
) -> None:
    """Raises UsageError when a picture has another content than the one that the features were made of.

    what: what was made of them, for the message
    folder: holds the same names and sizes; a listing_checksum has told
    Where pictures.json is gone or damaged there is nothing to compare with.
    """
    kept = _kept(work)
    if kept and kept.drawn.fits(len(folder.files)):
        name = changed_picture(folder, few_shot, kept.drawn, caller)
        if name:
            raise UsageError(
                f"{what} was made with another --images: {name} has another content now. Its pictures must "
                f"be the same, byte for byte. Put them back as they were, choose another --output, or start "
                f"over with --restart"
            )


def _keys(bundle: Bundle, folder: LabelledFolder, few_shot: FewShot, plan: ImagePlan) -> tuple[str, str]:
    """What decides the crops, and what decides the features, whose last bits depend on a batch's size."""
    seed, views_seed = few_shot.seed, few_shot.views_seed
    crops = json_checksum(
        *(bundle.checksum, listing_checksum(folder), ROW_ORDER, few_shot.shots, few_shot.n_val),
        DECODER,
        *(seed.entropy, list(seed.spawn_key), str(plan.decoding_bytes)),
    )
    seen = [few_shot.views, views_seed.entropy, list(views_seed.spawn_key)]
    return crops, json_checksum(crops, asdict(plan.tower), plan.threads, seen)


def _encoder(bundle: Bundle, plan: ImagePlan) -> str:
    """What decides the features of a picture, beside its bytes: up to its place in a batch, see `encode`."""
    return json_checksum(bundle.checksum, DECODER, asdict(plan.tower), plan.threads)


def _known(work: WorkFolder, encoder: str, embed_dim: int) -> dict[str, FeatureRow]:
    """Features in `work` that the same encoder made, by the contents of their pictures. Views have none."""
    kept = _kept(work)
    if kept is None or kept.encoder != encoder or kept.features != file_checksum(work.features):
        return {}
    order = kept.drawn.rows(1)[:, 0]
    try:
        features = FeatureFile.open(work.features, len(order), embed_dim)
    except ValueError:  # there are views in it
        return {}
    return {kept.drawn.contents[i]: FeatureRow(features, row) for row, i in enumerate(order)}


def _split_before(work: WorkFolder, key: str, n_views: int, n_classes: int, embed_dim: int) -> Split | None:
    """The split whose features lie in `work`, when they were made for the same key."""
    kept = _kept(work)
    if kept is None or kept.key != key or not kept.drawn.fits(n_classes):
        return None
    if kept.features != file_checksum(work.features):
        return None
    try:
        FeatureFile.open(work.features, len(kept.drawn.rows(n_views)), embed_dim)
    except ValueError:
        return None
    return kept.drawn


def _kept(work: WorkFolder) -> Kept | None:
    """None when there is none, or a damaged one."""
    try:
        return read_dataclass(Kept, read_checked_json(work.pictures))
    except ValueError:
        return None


def _report(folder: LabelledFolder, split: Split, caller: Caller, strict: bool) -> None:
    """Say what was passed over. Raises SkippedPicturesError for it with `strict`."""
    skipped = [*folder.skipped_lines(), *split.skipped]
    if strict and skipped:
        raise skipped_pictures(skipped)
    for line in (*folder.passed_over, *skipped, *split.said):
        caller.say(line)
