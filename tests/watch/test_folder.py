"""A folder's new pictures: each once, when it is complete, whatever becomes of the folder meanwhile."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from shared.waiting import until
from sharpzo_edge.watch import folder as folder_file
from sharpzo_edge.watch.folder import Folder, is_remote
from sharpzo_edge.watch.reader import Reader


class Looked:
    """A folder that is looked at by hand, by a clock that goes on by hand."""

    def __init__(self, path: Path, patch: pytest.MonkeyPatch, is_remote: bool = True):
        self.notes: list[str] = []
        self.now = 0.0
        patch.setattr(folder_file.time, "monotonic", lambda: self.now)
        patch.setattr(folder_file, "is_remote", lambda path: is_remote)
        self.folder = Folder(path)
        self.reader = Reader(self.folder, self.notes.append)
        self.look()

    def look(self, after: float = 0.0) -> list[str]:
        self.now += after
        return self.folder._look(self.reader)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    path = tmp_path / "new pictures"
    path.mkdir()
    (path / "old.jpg").write_bytes(b"old")
    return path


@pytest.fixture
def looked(place: Path, monkeypatch: pytest.MonkeyPatch) -> Looked:
    return Looked(place, monkeypatch)


def test_a_file_comes_once_and_when_it_no_longer_grows(looked: Looked, place: Path) -> None:
    assert looked.look(60) == []
    with (place / "1.jpg").open("wb") as file:
        for _ in range(5):
            file.write(b"piece")
            file.flush()
            assert looked.look(0.9) == []
    assert looked.look(0.9) == [] and looked.look(0.2) == ["1.jpg"]
    assert looked.look(60) == []


def test_one_that_is_written_again_or_moved_in_is_new(looked: Looked, place: Path, tmp_path: Path) -> None:
    (tmp_path / "beside").write_bytes(b"complete")
    (tmp_path / "beside").rename(place / "moved.png")
    (place / "old.jpg").write_bytes(b"another picture")
    os.utime(place / "old.jpg", (0, 0))  # by a clock that jumped: the oldest
    assert looked.look() == [] and looked.look(1) == ["old.jpg", "moved.png"]
    (place / "moved.png").unlink()
    assert looked.look(1) == []


def test_what_is_no_picture_by_its_name_never_comes(looked: Looked, place: Path) -> None:
    for name in (".hidden.jpg", "1.jpg.part", "2.TMP", "3.jpg~", "Thumbs.db", "notes.json"):
        (place / name).write_bytes(b"x")
    (place / "empty.jpg").touch()
    (place / "folder.jpg").mkdir()
    (place / "link.jpg").symlink_to("nowhere")
    os.mkfifo(place / "pipe.jpg")
    assert looked.look() == [] and looked.look(9) == []


def test_a_disk_that_is_put_back_brings_nothing_twice(looked: Looked, place: Path, tmp_path: Path) -> None:
    place.rename(tmp_path / "away")
    assert looked.look(1) == [] and looked.reader.gone == "No such file or directory"
    place.mkdir()  # the place that is left when a disk is unmounted
    assert looked.look(1) == [] and looked.reader.gone is None
    place.rmdir()
    (tmp_path / "away" / "meanwhile.jpg").write_bytes(b"x")
    (tmp_path / "away").rename(place)
    assert looked.look(1) == [] and looked.look(1) == ["meanwhile.jpg"]


def test_very_many_files_at_once_are_passed_over(
    looked: Looked, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_file, "MOST_GROWING", 10)
    monkeypatch.setattr(folder_file, "MOST_FILES", 30)
    for i in range(25):
        (place / f"{i}.jpg").write_bytes(b"x")
    assert looked.look() == [] and len(looked.look(1)) == 10
    assert looked.reader.pictures.dropped == 15 and looked.look(1) == []
    for i in range(25, 40):
        (place / f"{i}.jpg").write_bytes(b"x")
    assert looked.look() == [] and "more than 30 files; move the old ones away" in str(looked.reader.gone)


def test_the_system_tells_when_a_file_is_closed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("watchdog", reason="the extra [watch] is not installed")
    looked = Looked(place, monkeypatch, is_remote=False)
    changes = looked.folder._changes
    assert changes and not looked.notes
    try:
        for name in ("closed.jpg", "renamed.jpg"):
            (place / ".part").write_bytes(b"x")
            (place / ".part").rename(place / name)
            until(lambda name=name: looked.look() == [name])  # by a clock that stands still
    finally:
        changes.close()


def test_without_its_library_the_folder_is_looked_at(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "sharpzo_edge.watch.changes", raising=False)
    monkeypatch.setitem(sys.modules, "watchdog.events", None)
    looked = Looked(place, monkeypatch, is_remote=False)
    assert looked.folder._changes is None and not looked.notes


def test_a_disk_on_the_network_is_known_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        rf"40 22 0:50 / {tmp_path}/ön\040a\040share rw,relatime shared:1 - nfs4 server:/ rw" + "\n"
        rf"41 40 8:2 / {tmp_path}/ön\040a\040share/stick rw - vfat /dev/sdb1 rw" + "\n"
    )
    monkeypatch.setattr(folder_file, "MOUNTS", str(mounts))
    share = tmp_path / "ön a share"
    assert is_remote(share) and is_remote(share / "camera")
    assert not is_remote(share / "stick" / "camera") and not is_remote(tmp_path)
    monkeypatch.setattr(folder_file, "MOUNTS", str(tmp_path / "nothing"))
    assert not is_remote(share)
