"""Pictures are encoded once, and what is kept is never taken for something else."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from sharpzo_edge.errors import InterruptedRunError
from sharpzo_edge.pictures import features, few_shot
from sharpzo_edge.run.files import file_checksum, read_checked_json, write_checked_json
from sharpzo_edge.run.folder import WorkFolder
from support.encoding import TWICE, Stop, encode, same


def test_what_was_encoded_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a look at the pictures."""
    first = encode(tmp_path)
    monkeypatch.setattr(few_shot, "decoded", None)
    again = encode(tmp_path)
    assert np.array_equal(first.train.features, again.train.features)
    assert first.checksum == again.checksum


@pytest.mark.parametrize("looks", [0, 5, 30, 33, 36])
def test_an_interrupted_encoding_is_never_taken_for_another(looks: int, tmp_path: Path) -> None:
    """First seed 0; then seed 1 stops somewhere; then seed 0 again must be as at first."""
    first = encode(tmp_path)
    try:
        encode(tmp_path, seed=1, stop=Stop(looks))
    except InterruptedRunError as stopped:
        assert "same command" in str(stopped)
    again = encode(tmp_path)
    assert np.array_equal(first.train.features, again.train.features)
    assert np.array_equal(first.val.labels, again.val.labels)


def test_a_kill_between_the_two_files_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = encode(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(features, "write_checked_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            encode(tmp_path, seed=1)
    assert np.array_equal(first.train.features, encode(tmp_path).train.features)


@pytest.mark.parametrize("name", ["features.npy", "pictures.json"])
def test_damaged_features_are_made_again(name: str, tmp_path: Path, counted: Counter[str]) -> None:
    first = encode(tmp_path)
    data = bytearray((tmp_path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / name).write_bytes(data)
    counted.clear()
    assert same(encode(tmp_path), first) and counted["encoded"] == 30 + TWICE


def test_features_of_another_shape_are_not_believed_either(tmp_path: Path) -> None:
    first = encode(tmp_path)
    kept = read_checked_json(WorkFolder(tmp_path).pictures)
    for array in (first.train.features[:, :-1], first.train.features[:].astype(np.float64)):
        np.save(WorkFolder(tmp_path).features, array)
        other = kept | {"features": file_checksum(WorkFolder(tmp_path).features)}
        write_checked_json(WorkFolder(tmp_path).pictures, other)
        assert np.array_equal(first.train.features, encode(tmp_path).train.features)
