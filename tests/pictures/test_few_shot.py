"""Which pictures are drawn, and what is said of those that cannot be read."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from sharpzo_edge.clip.decoding import UnreadablePictureError
from sharpzo_edge.errors import ImagesError, InterruptedRunError, SkippedPicturesError
from sharpzo_edge.pictures import few_shot
from sharpzo_edge.pictures.folder import read_folder
from sharpzo_edge.run.files import read_checked_json, write_checked_json
from sharpzo_edge.run.folder import WorkFolder
from support.encoding import SHOTS, TRAIN, Stop, encode, same
from support.file_names import of_any_script


def test_views_follow_the_plain_shots_and_change_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    one, three = encode(tmp_path / "one"), encode(tmp_path, n_views=3)
    n = len(one.train)
    assert np.array_equal(three.train.labels, np.tile(one.train.labels, 3))
    # A pass of other pictures beside them may change the last bits.
    assert np.allclose(three.train.features[:n], one.train.features[:n], atol=1e-5)
    assert np.allclose(three.val.features[:], one.val.features[:], atol=1e-5)
    alike = (three.train.features[n:] * np.tile(one.train.features[:n], (2, 1))).sum(axis=1)
    assert alike.max() < 1 - 1e-6 and np.median(alike) > 0.5
    assert not np.array_equal(three.train.features[n : 2 * n], three.train.features[2 * n :])
    again = encode(tmp_path, n_views=3)
    assert np.array_equal(again.train.features[:], three.train.features[:])


def test_shots_and_validation_are_drawn_by_seed_and_disjoint(tmp_path: Path) -> None:
    found = encode(tmp_path)
    n_classes = len(read_folder(TRAIN).folders)
    assert len(found.train) == SHOTS * n_classes
    assert (np.bincount(found.train.labels) == SHOTS).all()
    assert np.abs(np.linalg.norm(found.train.features, axis=1) - 1).max() < 1e-5
    # No validation picture is one of the shots.
    assert (found.val.features @ found.train.features.T).max() < 1 - 1e-6
    assert not (WorkFolder(tmp_path).crops).exists()


def test_strict_makes_a_skipped_picture_an_error_each_time(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(TRAIN, photos)
    for folder in photos.iterdir():
        (folder / "!.jpg").write_bytes(b"no picture")
        (folder / "loop.png").symlink_to("loop.png")
    with pytest.raises(SkippedPicturesError, match=r"skipped \d+ pictures: not a picture.*--strict"):
        encode(tmp_path, images=photos, shots=100, strict=True)
    encode(tmp_path, images=photos, shots=100)
    with pytest.raises(SkippedPicturesError, match="skipped 10 pictures: "):
        encode(tmp_path, images=photos, shots=100, strict=True)


@of_any_script
def test_thousands_of_files_that_are_no_pictures_are_counted(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(TRAIN, photos)
    for i in range(3000):
        (photos / "alphanum" / f"{i} δοκιμή 試験.txt").touch()
    said: list[str] = []
    found = encode(tmp_path, images=photos, shots=100, said=said)
    assert "skipped 3,000 pictures: not a picture" in " ".join(said)
    assert len(found.train) == len(list(TRAIN.glob("*/*.png")))


def test_a_class_without_a_picture_is_named(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(TRAIN, photos)
    (photos / "empty").mkdir()
    with pytest.raises(ImagesError, match=r"photos/empty has no picture that can be read \(0 files\)"):
        encode(tmp_path, images=photos)


@pytest.mark.parametrize(
    "forged",
    [
        lambda drawn: drawn | {"labels": [0] * len(drawn["labels"])},
        lambda drawn: drawn | {"labels": [2**70, *drawn["labels"][1:]]},
        lambda drawn: drawn | {"labels": drawn["labels"][1:]},
        lambda drawn: drawn | {"is_val": [True] * len(drawn["is_val"])},
        lambda drawn: drawn | {"files": [[]] * len(drawn["files"])},
        lambda drawn: drawn | {"said": "a word"},
        lambda drawn: {name: each if name == "is_lasting" else each[:-1] for name, each in drawn.items()},
        lambda drawn: {},
        lambda drawn: None,
    ],
)
def test_what_was_drawn_is_not_believed_for_a_right_checksum(
    forged: Callable[[dict], object], tmp_path: Path
) -> None:
    first = encode(tmp_path)
    kept = read_checked_json(WorkFolder(tmp_path).pictures)
    write_checked_json(WorkFolder(tmp_path).pictures, kept | {"drawn": forged(kept["drawn"])})
    again = encode(tmp_path)
    assert np.array_equal(first.train.features, again.train.features)
    assert np.array_equal(first.val.labels, again.val.labels) and first.checksum == again.checksum
    assert read_checked_json(WorkFolder(tmp_path).pictures) == kept


def test_dead_links_among_classes_are_said_or_refused(tmp_path: Path) -> None:
    shutil.copytree(TRAIN, tmp_path / "images")
    (tmp_path / "images" / "circle").symlink_to("circle")
    (tmp_path / "work").mkdir()
    said: list[str] = []
    encode(tmp_path / "work", images=tmp_path / "images", said=said)
    assert "skipped 1 class folder: a link that leads nowhere" in " ".join(said)
    with pytest.raises(SkippedPicturesError, match="circle"):
        encode(tmp_path / "work", images=tmp_path / "images", strict=True)


@pytest.mark.parametrize("moment", ["while reading", "after encoding"])
def test_what_failed_for_a_moment_is_tried_again(moment: str, tmp_path: Path, monkeypatch) -> None:
    """A disk that fails once, then is well again: the same command has all pictures."""
    (tmp_path / "whole").mkdir()
    (tmp_path / "work").mkdir()
    whole = encode(tmp_path / "whole")
    real = few_shot.decoded
    tried: list[Path] = []

    def failing(file: BinaryIO, *given: object) -> object:
        tried.append(Path(file.name))
        if len(tried) == 7:
            raise UnreadablePictureError("cannot be read (Input/output error)", is_lasting=False)
        return real(file, *given)

    said: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(few_shot, "decoded", failing)
        try:
            stop = Stop(12) if moment == "while reading" else None
            encode(tmp_path / "work", stop=stop, said=said)
        except InterruptedRunError:
            assert moment == "while reading"
        else:
            assert "skipped 1 picture: cannot be read (Input/output error)" in " ".join(said)
    assert same(encode(tmp_path / "work"), whole)


def test_a_class_that_cannot_be_read_says_why_and_what_would_do(tmp_path: Path, monkeypatch) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(TRAIN, photos)
    for path in (photos / "sport").iterdir():
        path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    with pytest.raises(ImagesError, match=r"16 files: 16 HEIC, which.*convert them to JPEG"):
        encode(tmp_path, images=photos)


def test_a_limit_on_open_files_is_not_the_disks_fault(tmp_path: Path, monkeypatch) -> None:
    def failing(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("sharpzo_edge.clip.decoding.plain", failing)
    with pytest.raises(ImagesError, match=r"20 not read \(Too many open files\).*or: ulimit -n") as refused:
        encode(tmp_path)
    assert "disk" not in str(refused.value)


def test_links_to_a_missing_disk_are_tried_again(tmp_path: Path) -> None:
    photos, disk = tmp_path / "photos", tmp_path / "disk"
    shutil.copytree(TRAIN, photos)
    shutil.move(photos / "sport", disk)
    (photos / "sport").mkdir()
    for path in sorted(disk.iterdir()):
        (photos / "sport" / path.name).symlink_to(disk / path.name)
    (tmp_path / "work").mkdir()
    disk.rename(tmp_path / "out")
    with pytest.raises(ImagesError, match=r"a link to a file that is not there\).*plug in the disk"):
        encode(tmp_path / "work", images=photos)
    (tmp_path / "out").rename(disk)
    (tmp_path / "whole").mkdir()
    assert same(encode(tmp_path / "work", images=photos), encode(tmp_path / "whole"))
