"""What tells a picture from another of its name and size, and what it costs to know."""

from __future__ import annotations

import mmap
import os
import shutil
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sharpzo_edge.clip.decoding import UnreadablePictureError
from sharpzo_edge.clip.preprocess import decoded, read_crop
from sharpzo_edge.errors import ImagesError, InterruptedRunError
from sharpzo_edge.pictures import few_shot
from sharpzo_edge.pictures.content import END_BYTES, content_now, listing_checksum
from sharpzo_edge.pictures.folder import read_folder
from support.encoding import BATCHES, TRAIN, Stop, encode, same
from support.pictures import preprocess
from support.pictures_alike import of_one_size, swap


def test_a_content_is_all_bytes_or_both_ends(tmp_path: Path) -> None:
    size = 3 * END_BYTES
    path = tmp_path / "a"
    found = []
    for changed in (None, 0, size // 2, size - 1):
        data = bytearray(size)
        if changed is not None:
            data[changed] = 1
        path.write_bytes(data)
        found.append((content_now(path, is_read=True), content_now(path, is_read=False)))
    whole, ends = zip(*found, strict=True)
    assert len(set(whole)) == 4 and len(set(ends)) == 3 and ends[0] == ends[2]
    assert content_now(tmp_path / "gone", is_read=True) is None


def test_a_large_file_is_never_in_memory(tmp_path: Path) -> None:
    with (tmp_path / "film").open("wb") as file:
        file.truncate(64 << 20)
    tracemalloc.start()
    try:
        content_now(tmp_path / "film", is_read=True)
        content_now(tmp_path / "film", is_read=False)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_listing_is_names_and_sizes(tmp_path: Path) -> None:
    images = of_one_size(Path(shutil.copytree(TRAIN, tmp_path / "images")))
    first, second = sorted((images / "sport").iterdir())[:2]
    before = listing_checksum(read_folder(images))
    swap(first, second)
    first.touch()
    assert listing_checksum(read_folder(images)) == before
    with first.open("ab") as file:
        file.write(b"\0")
    longer = listing_checksum(read_folder(images))
    first.rename(first.with_name("another"))
    assert len({before, longer, listing_checksum(read_folder(images))}) == 3


@pytest.mark.parametrize("place", [0, 11, 29])
def test_what_was_read_counts_up_to_a_changed_picture(
    place: int, tmp_path: Path, counted: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run was stopped while it encoded. Pictures before the changed one are not read again."""
    images = of_one_size(Path(shutil.copytree(TRAIN, tmp_path / "images")))
    order: list[Path] = []
    real = few_shot.decoded
    monkeypatch.setattr(few_shot, "decoded", lambda f, *given: order.append(Path(f.name)) or real(f, *given))
    (tmp_path / "work").mkdir()
    with pytest.raises(InterruptedRunError):
        encode(tmp_path / "work", images=images, stop=Stop(33), plan=BATCHES)
    assert len(order) == counted["read"] == 30
    unused = next(path for path in images.glob("*/*") if path not in order)
    swap(order[place], unused)
    counted.clear()
    found = encode(tmp_path / "work", images=images, plan=BATCHES)
    assert counted["read"] == 30 - place and counted["encoded"] > 30
    (tmp_path / "fresh").mkdir()
    fresh = encode(tmp_path / "fresh", images=images, plan=BATCHES)
    assert same(found, fresh) and found.checksum == fresh.checksum


def test_a_picture_that_changes_while_read_is_tried_again(tmp_path: Path, monkeypatch) -> None:
    images = Path(shutil.copytree(TRAIN, tmp_path / "images"))
    real = few_shot.decoded
    changing: list[str] = []

    def growing(file: Any, *given: Any) -> Any:
        found = real(file, *given)
        if not changing:
            changing.append(file.name)
            with open(file.name, "ab") as more:
                more.write(b"\0")
        return found

    (tmp_path / "work").mkdir()
    said: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(few_shot, "decoded", growing)
        first = encode(tmp_path / "work", images=images, said=said)
    assert f"skipped 1 picture: changed while it was read (for example {changing[0]})" in said
    again = encode(tmp_path / "work", images=images)
    (tmp_path / "fresh").mkdir()
    assert same(again, encode(tmp_path / "fresh", images=images)) and not same(first, again)


def test_a_class_that_is_being_copied_is_told_to_wait(tmp_path: Path, monkeypatch) -> None:
    images = Path(shutil.copytree(TRAIN, tmp_path / "images"))
    real = few_shot.decoded

    def torn(file: Any, *given: Any) -> Any:
        with open(file.name, "r+b") as other:
            other.truncate(200)
        return real(file, *given)

    monkeypatch.setattr(few_shot, "decoded", torn)
    with pytest.raises(ImagesError, match=r"20 changed while it was read.*wait until it is copied"):
        encode(tmp_path, images=images)


@pytest.mark.parametrize("kind", ["BMP", "PPM", "PNG", "JPEG", "TIFF", "GIF", "WEBP"])
def test_no_picture_is_mapped_by_pillow(kind: str, tmp_path: Path, monkeypatch) -> None:
    """A mapped file that shrinks ends the process. What is read only ends early."""
    levels = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    path = tmp_path / "picture"
    Image.fromarray(levels).save(path, kind)
    monkeypatch.setattr(mmap, "mmap", None)  # where Pillow maps a file, a TypeError ends the decoding
    assert read_crop(path, preprocess()).shape == (32, 32, 3)
    with path.open("rb") as file:
        os.truncate(path, path.stat().st_size // 2)
        with pytest.raises(UnreadablePictureError, match=r"truncated or damaged|not a picture"):
            decoded(file, preprocess(), 1 << 30)
