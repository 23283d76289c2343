"""Features of an earlier run on other pictures: kept by their bytes, and never believed blindly."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from sharpzo_edge.run.files import file_checksum, read_checked_json, write_checked_json
from sharpzo_edge.run.folder import WorkFolder
from support.encoding import BATCHES, TRAIN, TWICE, encode, same

FEW = 20  # a class of the demo has no more pictures: all of them are drawn


@pytest.fixture
def moved(tmp_path: Path) -> Path:
    """The demo's pictures, of which one will be moved to another class; beside it two work folders."""
    for work in ("a", "b"):
        (tmp_path / work).mkdir()
    shutil.copytree(TRAIN, tmp_path / "photos")
    return tmp_path / "photos"


def move_one(images: Path) -> None:
    (images / "sport" / "1F3A3.png").rename(images / "clothing" / "1F3BD.png")


def test_a_moved_picture_is_not_encoded_again(moved, tmp_path, counted: Counter[str]):
    options = {"images": moved, "plan": BATCHES, "shots": FEW}
    encode(tmp_path / "a", **options)
    move_one(moved)
    fresh = encode(tmp_path / "b", **options)
    counted.clear()
    kept = encode(tmp_path / "a", **options, keep=True)
    assert same(kept, fresh) and kept.checksum == fresh.checksum
    assert counted["encoded"] == 6 + TWICE  # the first batch


def test_only_batches_with_a_new_picture_are_encoded(moved, tmp_path, counted: Counter[str]):
    options = {"images": moved, "plan": BATCHES, "shots": FEW}
    encode(tmp_path / "a", **options)
    shutil.copy(moved / "sport" / "1F3A3.png", moved / "sport" / "new.png")
    with (moved / "sport" / "new.png").open("ab") as file:
        file.write(b"other bytes")
    fresh = encode(tmp_path / "b", **options)
    counted.clear()
    assert same(encode(tmp_path / "a", **options, keep=True), fresh)
    assert counted["encoded"] == 12 + TWICE


def test_without_the_wish_nothing_is_kept(moved, tmp_path, counted: Counter[str]):
    encode(tmp_path / "a", images=moved, plan=BATCHES)
    move_one(moved)
    counted.clear()
    encode(tmp_path / "a", images=moved, plan=BATCHES)
    assert counted["encoded"] == 30 + TWICE


def test_another_way_to_encode_keeps_nothing(moved, tmp_path, counted: Counter[str]):
    encode(tmp_path / "a", images=moved)
    move_one(moved)
    counted.clear()
    encode(tmp_path / "a", images=moved, plan=BATCHES, keep=True)
    assert counted["encoded"] == 30 + TWICE


def test_features_that_do_not_repeat_are_all_made_anew(moved, tmp_path):
    """As on a machine where a picture's place in a batch changes its last bits."""
    options = {"images": moved, "plan": BATCHES, "shots": FEW}
    encode(tmp_path / "a", **options)
    work = WorkFolder(tmp_path / "a")
    features = np.load(work.features)
    features[:, 0] = np.nextafter(features[:, 0], np.float32(2))
    np.save(work.features, features)
    other = read_checked_json(work.pictures) | {"features": file_checksum(work.features)}
    write_checked_json(work.pictures, other)
    move_one(moved)
    assert same(encode(tmp_path / "a", **options, keep=True), encode(tmp_path / "b", **options))
