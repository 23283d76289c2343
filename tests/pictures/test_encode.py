"""No picture is read or encoded twice, whatever interrupts; streams give the same features."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from sharpzo_edge.clip.bundle import Bundle
from sharpzo_edge.clip.towers import ImageTower
from sharpzo_edge.demo import BUNDLE
from sharpzo_edge.errors import InterruptedRunError, NumericsError
from sharpzo_edge.pictures.encode import encode_files
from sharpzo_edge.pictures.folder import Skipped, read_folder
from support.encoding import BATCHES, PLAN, TRAIN, TWICE, Stop, encode, same


@pytest.mark.parametrize("looks", [7, 29, 31, 34])
def test_after_an_interruption_no_picture_is_encoded_again(
    looks: int, tmp_path: Path, counted: Counter[str]
) -> None:
    """None is read again either."""
    (tmp_path / "whole").mkdir()
    whole = encode(tmp_path / "whole", plan=BATCHES)
    assert counted == {"read": 30, "encoded": 30 + TWICE}
    counted.clear()
    with pytest.raises(InterruptedRunError, match=r"\d+ (of 30 )?pictures? (read|encoded), and kept"):
        encode(tmp_path, stop=Stop(looks), plan=BATCHES)
    again = encode(tmp_path, plan=BATCHES)
    assert counted == {"read": 30, "encoded": 30 + TWICE}
    assert same(again, whole) and again.checksum == whole.checksum


@pytest.mark.parametrize("damage", ["cut", "flip", "zeros"])
@pytest.mark.parametrize("name", ["crops.journal", "features.journal"])
def test_a_torn_journal_costs_its_end_and_nothing_else(
    name: str, damage: str, tmp_path: Path, counted: Counter[str]
) -> None:
    (tmp_path / "whole").mkdir()
    whole = encode(tmp_path / "whole", plan=BATCHES)
    with pytest.raises(InterruptedRunError):
        encode(tmp_path, stop=Stop(33), plan=BATCHES)
    data = bytearray((tmp_path / name).read_bytes())
    middle = 2 * len(data) // 3
    if damage == "cut":
        del data[middle:]
    elif damage == "flip":
        data[middle] ^= 1
    else:
        data[middle:] = bytes(len(data) - middle)
    (tmp_path / name).write_bytes(data)
    counted.clear()
    assert same(encode(tmp_path, plan=BATCHES), whole)
    assert 0 < counted["read"] + counted["encoded"] < 30 + 30


def test_a_journal_of_another_command_or_pictures_is_not_used(tmp_path: Path, counted: Counter[str]) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(TRAIN, photos)
    for change in ("seed", "plan", "picture"):
        with pytest.raises(InterruptedRunError):
            encode(tmp_path, stop=Stop(33), plan=BATCHES, images=photos)
        counted.clear()
        if change == "picture":
            with next(photos.glob("*/*.png")).open("ab") as picture:
                picture.write(b"\0")
        plan = PLAN if change == "plan" else BATCHES
        encode(tmp_path, seed=int(change == "seed"), plan=plan, images=photos)
        assert (counted["read"], counted["encoded"]) == (0 if change == "plan" else 30, 30 + TWICE)


def test_a_tower_that_does_not_repeat_itself_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_features = ImageTower.image_features
    noise = np.random.default_rng(0)
    monkeypatch.setattr(
        ImageTower,
        "image_features",
        lambda *given: image_features(*given) + np.float32(1e-6) * noise.standard_normal(),
    )
    with pytest.raises(NumericsError, match=r"differently.*bit for bit\. Try --threads 1"):
        encode(tmp_path)


def test_streams_give_the_same_features_without_bad_files(tmp_path: Path) -> None:
    folder = read_folder(TRAIN)
    good = [paths[0] for paths in folder.files]
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    files = [good[0], bad, *good[1:], bad]
    skipped = Skipped()
    parts = list(encode_files(Bundle.open(BUNDLE), files, skipped.add, PLAN))
    numbers = [n for batch, _ in parts for n in batch]
    assert numbers == [i for i, path in enumerate(files) if path is not bad]
    assert skipped.counts == {"not a picture": 2}
    one_by_one = [
        next(encode_files(Bundle.open(BUNDLE), [path], Skipped().add, PLAN))[1][0] for path in good[:3]
    ]
    assert np.abs(np.concatenate([f for _, f in parts])[:3] - np.stack(one_by_one)).max() < 2e-6
