"""Features on disk are those of the file that was opened, whatever happens to its name."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from sharpzo_edge.errors import SharpzoError
from sharpzo_edge.pictures.feature_file import FeatureFile

ROWS = np.arange(40, dtype=np.float32).reshape(10, 4)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    np.save(tmp_path / "features.npy", ROWS)
    return tmp_path / "features.npy"


def test_another_file_of_that_name_is_not_read(path: Path) -> None:
    part = FeatureFile.open(path, 10, 4).part(2, 8)
    np.save(path.with_name("other.npy"), -ROWS)
    os.replace(path.with_name("other.npy"), path)
    np.testing.assert_array_equal(part[1:3], ROWS[3:5])
    path.unlink()
    np.testing.assert_array_equal(part[:], ROWS[2:8])


def test_a_file_that_shrinks_is_our_error(path: Path) -> None:
    features = FeatureFile.open(path, 10, 4)
    os.truncate(path, path.stat().st_size - 1)
    np.testing.assert_array_equal(features[:9], ROWS[:9])
    with pytest.raises(SharpzoError, match=r"features\.npy ends before byte .*Type the same command again"):
        features[9:]


def test_the_file_is_closed_when_nobody_needs_it(path: Path) -> None:
    part = FeatureFile.open(path, 10, 4).part(0, 5)
    held = part.file.descriptor
    os.fstat(held)
    del part
    with pytest.raises(OSError):
        os.fstat(held)
