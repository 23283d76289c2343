"""The tasks of the accuracy bench: names of classes, and the one that is downloaded."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from accuracy.harness import textile
from accuracy.harness.coop_layout import words_of


def test_classes_of_one_name_stay_apart() -> None:
    assert words_of(["Sea_Lake", "crane", "Crane"]) == ("Sea Lake", "crane", "another Crane")


def small_wheel(names: list[str]) -> bytes:
    """A package with a picture of every name in each class's folder, and a file beside them."""
    picture, wheel = io.BytesIO(), io.BytesIO()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(picture, "JPEG")
    with zipfile.ZipFile(wheel, "w") as package:
        package.writestr(f"{textile.INSIDE}/README.txt", "pictures")
        for folder in textile.CLASSES:
            for name in names:
                package.writestr(f"{textile.INSIDE}/{folder}/{name}", picture.getvalue())
    return wheel.getvalue()


def test_textile_is_downloaded_once_and_split_alike_in_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(textile, "N_TRAIN", 5)
    monkeypatch.setattr(textile, "N_TEST", 3)
    names = [f"{i}.jpg" for i in range(10)]
    downloads: list[bytes] = []

    def drawn(root: Path, wheel: bytes) -> tuple[set[str], ...]:
        monkeypatch.setattr(textile, "downloaded", lambda: downloads.append(wheel) or wheel)
        monkeypatch.setattr(textile, "WHEEL_SHA256", hashlib.sha256(wheel).hexdigest())
        task = textile.textile_task(root)
        assert task.name == "textile" and set(task.splits) == {"test"}
        assert set(task.class_names) == {"regular cloth", "cloth with a small hole", "cloth with noise"}
        assert [len(paths) for paths in task.train] == [5, 5, 5]
        assert [len(paths) for paths in task.splits["test"].files] == [3, 3, 3]
        return tuple({path.name for path in files[0]} for files in (task.train, task.splits["test"].files))

    train, test = drawn(tmp_path / "one", small_wheel(names))
    assert not train & test and train | test < set(names)
    assert drawn(tmp_path / "one", small_wheel(names)) == (train, test) and len(downloads) == 1
    assert drawn(tmp_path / "other", small_wheel(names[::-1])) == (train, test) and len(downloads) == 2


def test_another_package_than_the_pinned_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(textile, "downloaded", lambda: small_wheel(["0.jpg"]))
    with pytest.raises(SystemExit, match=textile.WHEEL_SHA256):
        textile.textile_task(tmp_path / "textile")
    assert not (tmp_path / "textile").exists()


def test_without_a_network_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(SystemExit, match="conformal-clip-data"):
        textile.downloaded()
