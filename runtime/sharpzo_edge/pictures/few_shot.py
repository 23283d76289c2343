"""The few-shot split: which pictures of a labelled folder are tuned on, and which are validated on.

A picture is decoded once. Its crop, or why there is none, is kept in a journal of the work folder, where the
next process finds it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..clip.decoding import PictureFile, UnreadablePictureError, as_unreadable, opened
from ..clip.manifest import Preprocess
from ..clip.preprocess import decoded
from ..errors import ImagesError
from ..libraries import install_anew
from ..run.folder import WorkFolder
from ..run.journal import Journal
from ..run.progress import Caller
from ..wording import counted
from .content import (
    CONTENT_BYTES,
    content_now,
    end_content,
    new_checksum,
    spelt,
    state_of,
    whole_content,
)
from .folder import LabelledFolder, Skipped

# An entry of the crops' journal: one of these bytes, the content that the picture's file had, and the crop or
# the reason. What failed for a reason of the moment is no entry for the next process: its journal ends there,
# and the picture is tried again.
IS_CROP, IS_REASON, IS_MOMENT = b"+", b"-", b"?"
# By a part of the reason why no picture of a class can be read: what would do.
ADVICE = {
    "link": "plug in the disk that the links lead to, and type the same command again",
    "permission": "chmod -R a+rX {folder}",
    "Pillow is not complete": "{install_pillow}, and type the same command again",
    "Too many open files": "ulimit -n 1024, and type the same command again",
    "too many for the budget": "--memory-budget 256MiB",
    "cannot be read here": "convert them to JPEG",
    "cannot be read (": "check the disk, and type the same command again",
    "changed while": "wait until it is copied, and type the same command again",
    "memory": "stop other programs, and type the same command again",
}
HEAD_BYTES = 1 + CONTENT_BYTES
LONGEST_REASON = 1 << 10
ROW_ORDER = "shots, then validation"  # of Split.rows
FEW_SHOWN = 8  # classes that a line names


@dataclass(frozen=True)
class FewShot:
    """How many pictures of a class are taken, and by which seeds.

    shots, n_val: pictures of a class to tune on, and the most beyond them to validate on
    views: how often a shot is encoded: once as it is, views - 1 times as a random part of it
    """

    shots: int
    n_val: int
    seed: np.random.SeedSequence
    views: int
    views_seed: np.random.SeedSequence

    def n_rows(self, folder: LabelledFolder) -> int:
        """Pictures that will be encoded, a view each, when all of them can be read."""
        n_shots = sum(min(len(files), self.shots) for files in folder.files)
        return (self.views - 1) * n_shots + self.n_taken(folder)

    def n_taken(self, folder: LabelledFolder) -> int:
        """Pictures that will be taken, when all of them can be read."""
        return sum(min(len(files), self.shots + self.n_val) for files in folder.files)


def taking_orders(seed: np.random.SeedSequence, sizes: Iterable[int]) -> Iterator[NDArray[np.int64]]:
    """For each class, by how many pictures it has, the order in which they are taken.

    A class has a seed of its own. They are those of seed.spawn, which would give others when asked again.
    """
    for k, size in enumerate(sizes):
        own = np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, k))
        yield np.random.default_rng(own).permutation(size)


def shots_then_validation(shots: int, n_val: int) -> tuple[slice, slice]:
    """Which of a class's readable pictures, in the order taken, are shots, and which validate."""
    return slice(0, shots), slice(shots, shots + n_val)


@dataclass(frozen=True)
class Split:
    """Which pictures were taken, in the order in which they were read.

    files: (N,) spelt below the folder's root; contents: (N,) checksums of their bytes; labels: (N,) their
    classes; is_val: (N,) whether beyond the shots
    skipped, said: lines for the user, of pictures and of classes
    passed_over: one checksum of all files that were tried and passed over
    is_lasting: whether no picture was passed over for a reason of the moment
    """

    files: tuple[str, ...]
    contents: tuple[str, ...]
    labels: tuple[int, ...]
    is_val: tuple[bool, ...]
    skipped: tuple[str, ...]
    said: tuple[str, ...]
    passed_over: str
    is_lasting: bool

    def fits(self, n_classes: int) -> bool:
        """Whether it can be what `read_split` returned: anyone can make a checksum that fits."""
        with_shots = {label for label, val in zip(self.labels, self.is_val, strict=False) if not val}
        return (
            len(self.files) == len(self.contents) == len(self.labels) == len(self.is_val)
            and with_shots == set(range(n_classes))
            and with_shots.issuperset(self.labels)
        )

    def rows(self, n_views: int) -> NDArray[np.int64]:
        """(picture, view) of every row of features: the shots view by view, then the validation pictures."""
        is_val = np.asarray(self.is_val, bool)
        shots, val = np.flatnonzero(~is_val), np.flatnonzero(is_val)
        parts = [(shots, i) for i in range(n_views)] + [(val, 0)]
        return np.concatenate([np.column_stack((each, np.full_like(each, i))) for each, i in parts])


def read_split(
    folder: LabelledFolder,
    few_shot: FewShot,
    how: Preprocess,
    most_bytes: float,
    crops: Journal,
    caller: Caller,
) -> tuple[Split, list[int]]:
    """Read the crops of the split's pictures; returns which they are, and their records in `crops`.

    A class's pictures are taken in a random order; one that cannot be read, or not with `most_bytes`, is
    passed over, and the next takes its place. The first of these outcomes may be in `crops` from before. They
    count up to the first picture whose file has another content by now.
    Raises ImagesError for a class without a readable picture, InterruptedRunError when a signal has come.
    """
    files: list[str] = []
    contents: list[str] = []
    labels: list[int] = []
    is_val: list[bool] = []
    records: list[int] = []
    skipped, few = Skipped(), []
    passed_over, is_lasting = new_checksum(), True
    n_before = len(crops)
    _, validation = shots_then_validation(few_shot.shots, few_shot.n_val)
    orders = taking_orders(few_shot.seed, map(len, folder.files))
    n_tried = 0
    for k, (paths, order) in enumerate(zip(folder.files, orders, strict=True)):
        n_read, of_class = 0, Skipped()
        for i in order:
            if n_read == validation.stop:
                break
            caller.raise_if_stopped(
                f"{counted(len(files), 'picture')} read, and kept. To go on, type the same command again, "
                f"without --restart"
            )
            caller.status(f"reading picture {len(files) + 1}, class {k + 1} of {len(folder.files)}")
            if n_tried < n_before and not _is_same(crops[n_tried], paths[i]):
                crops.cut(n_tried)
                n_before = n_tried
            if n_tried == len(crops):
                crops.append(_outcome(paths[i], how, most_bytes))
            outcome = crops[n_tried]
            n_tried += 1
            content = outcome[1:HEAD_BYTES]
            if outcome[:1] != IS_CROP:
                for each in (skipped, of_class):
                    each.add(paths[i], outcome[HEAD_BYTES:].decode(errors="replace"))
                passed_over.update(content)
                is_lasting = is_lasting and outcome[:1] == IS_REASON
                continue
            records.append(n_tried - 1)
            files.append(spelt(paths[i].relative_to(folder.root)))
            contents.append(content.hex())
            labels.append(k)
            is_val.append(n_read >= validation.start)
            n_read += 1
        if n_read == 0:
            raise _no_picture(folder.root / folder.folders[k], len(paths), of_class)
        if n_read < few_shot.shots:
            few.append(f"{folder.folders[k]} ({n_read})")
    said = []
    if few:
        rest = f", and {counted(len(few) - FEW_SHOWN, 'more class')}" * (len(few) > FEW_SHOWN)
        said.append(
            f"fewer than {few_shot.shots} pictures, all of them used: {', '.join(few[:FEW_SHOWN])}{rest}"
        )
    split = Split(
        tuple(files),
        tuple(contents),
        tuple(labels),
        tuple(is_val),
        tuple(skipped.lines()),
        tuple(said),
        passed_over.hexdigest(),
        is_lasting,
    )
    return split, records


def _no_picture(path: Path, n_files: int, skipped: Skipped) -> ImagesError:
    """Of a class: why each file could not be read, and what would do."""
    why = "; ".join(f"{n} {reason}" for reason, n in sorted(skipped.counts.items()))
    advice = "".join(f", or: {what}" for part, what in ADVICE.items() if part in why)
    advice = advice.format(folder=path, install_pillow=install_anew("pillow"))
    told = f"{counted(n_files, 'file')}{': ' * bool(why)}{why}"
    return ImagesError(
        f"The class folder {path} has no picture that can be read ({told}). Every class needs at least one "
        f"JPEG, PNG or other picture. Add pictures, or remove the folder{advice}"
    )


def crops_journal(work: WorkFolder, key: str, how: Preprocess) -> Journal:
    """The outcomes of reading pictures, one after another."""
    largest = HEAD_BYTES + max(_crop_bytes(how), LONGEST_REASON)
    return work.journal(work.crops, key, largest, partial(_is_outcome, how))


def crops_bytes(n: int, how: Preprocess) -> int:
    """What the crops of n pictures take on disk."""
    return n * (HEAD_BYTES + _crop_bytes(how))


def crop_of(record: bytes, how: Preprocess) -> NDArray[np.uint8]:
    """The crop (height, width, 3) in a record of the journal that holds one."""
    return np.frombuffer(record, np.uint8, offset=HEAD_BYTES).reshape(*how.size, 3)


def _outcome(path: Path, how: Preprocess, most_bytes: float) -> bytes:
    """A record of the journal: the crop, or why there is none."""
    try:
        with opened(path) as file, as_unreadable():
            before = state_of(file)
            kind, found = _crop_or_reason(file, how, most_bytes)
            content = whole_content(file) if kind == IS_CROP else end_content(file)
            if state_of(file) != before:  # the checksum may be of other bytes than the crop
                raise UnreadablePictureError("changed while it was read", is_lasting=False)
            return kind + content + found
    except UnreadablePictureError as reason:
        return IS_MOMENT + bytes(CONTENT_BYTES) + str(reason).encode()


def _crop_or_reason(file: PictureFile, how: Preprocess, most_bytes: float) -> tuple[bytes, bytes]:
    """Raises UnreadablePictureError for a reason of the moment."""
    try:
        return IS_CROP, decoded(file, how, most_bytes).tobytes()
    except UnreadablePictureError as reason:
        if reason.is_lasting:
            return IS_REASON, str(reason).encode()
        raise


def _is_same(record: bytes, path: Path) -> bool:
    """Whether a picture's file has the content that its record was made of, as far as it can be read."""
    return content_now(path, record[:1] == IS_CROP) in (record[1:HEAD_BYTES], None)


def _is_outcome(how: Preprocess, _: int, record: bytes) -> bool:
    if len(record) < HEAD_BYTES or record[:1] not in (IS_CROP, IS_REASON):
        return False
    return record[:1] == IS_REASON or len(record) == HEAD_BYTES + _crop_bytes(how)


def _crop_bytes(how: Preprocess) -> int:
    return how.size[0] * how.size[1] * 3
