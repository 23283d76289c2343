"""What would refuse an output at the end refuses it at the beginning."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sharpzo_edge.commands import tune as tuning
from sharpzo_edge.commands.inspect import inspect
from sharpzo_edge.commands.tune import tune_request as tune
from sharpzo_edge.demo import BUNDLE, DEFAULT_TASK, TASKS
from sharpzo_edge.errors import SharpzoError, UsageError
from sharpzo_edge.pictures import few_shot
from sharpzo_edge.run import files, output
from sharpzo_edge.run.files import replacing, try_to_replace, write_json
from sharpzo_edge.run.folder import WorkFolder
from sharpzo_edge.run.output import LONGEST_PATH, check_output
from support import disk


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture that is read ends the test."""

    def reading(*_: Any) -> None:
        raise AssertionError("a picture was read before the refusal")

    monkeypatch.setattr(few_shot, "decoded", reading)


# Names.


def test_the_longest_name_works_to_the_end(images: Path, tmp_path: Path) -> None:
    name = "p" * (files.longest_name(tmp_path) - len(".work"))
    assert tune(disk.tiny("edge", BUNDLE, images, tmp_path / name)).queries > 10
    assert sorted(os.listdir(tmp_path)) == [name, f"{name}.work"]


@pytest.mark.parametrize("longer", [1, 5, 6, 400])
@pytest.mark.parametrize("letter", ["p", "é"])
def test_a_name_too_long_for_the_work_folder_is_refused(
    longer: int, letter: str, tmp_path: Path, unread: None
) -> None:
    most = files.longest_name(tmp_path) - len(".work")
    name = letter * ((most + longer) // len(letter.encode()) + (len(letter.encode()) > 1))
    said = f"has a name of {len(name.encode())} bytes.*{most} bytes are the most here.*shorter --output"
    with pytest.raises(UsageError, match=said):
        tune(disk.tiny("edge", BUNDLE, TASKS / DEFAULT_TASK / "train", tmp_path / name))
    assert os.listdir(tmp_path) == []


def test_a_path_that_is_too_long_is_refused() -> None:
    with pytest.raises(UsageError, match=rf"has a path of .* bytes.*{LONGEST_PATH} bytes.*shorter --output"):
        check_output("a/" * 3000 + "prompt")


def test_a_file_system_with_shorter_names_is_asked(tmp_path: Path, monkeypatch) -> None:
    """Encrypted folders may have 143 bytes."""
    monkeypatch.setattr(os, "pathconf", lambda *_: 143)
    check_output(tmp_path / ("p" * 138))
    with pytest.raises(UsageError, match="138 bytes are the most"):
        check_output(tmp_path / ("p" * 139))


@pytest.mark.parametrize("length", [249, 250, 255])
def test_a_file_with_the_longest_name_is_replaced(length: int, tmp_path: Path) -> None:
    """It may be what a link leads to, whose name nobody was asked for."""
    real = tmp_path / ("n" * length)
    (tmp_path / "link").symlink_to(real)
    write_json(tmp_path / "link", 1)
    write_json(tmp_path / "link", 2)
    assert real.read_bytes() == b"2" and sorted(os.listdir(tmp_path)) == ["link", real.name]


def test_a_short_path_in_a_deep_folder_is_written(tmp_path: Path, monkeypatch) -> None:
    """Its full path is longer than the system takes."""
    monkeypatch.chdir(tmp_path)
    for _ in range(20):
        os.mkdir("d" * 240)
        os.chdir("d" * 240)
    write_json(Path("file"), 1)
    assert os.listdir() == ["file"] and Path("file").read_bytes() == b"1"


@pytest.mark.parametrize("path", ["n" * 300, "a/" * 3000])
def test_inspect_of_a_name_too_long_is_our_error(path: str) -> None:
    with pytest.raises(UsageError, match=r"nothing at .*File name too long.*Check the path"):
        inspect(Path(path))


# Places.


def test_a_link_to_no_folder_is_refused_at_once(images: Path, tmp_path: Path, unread: None) -> None:
    (tmp_path / "prompt").symlink_to(tmp_path / "unplugged" / "prompt")
    with pytest.raises(SharpzoError, match=r"Cannot write .*prompt: No such file or directory.*--output"):
        tune(disk.tiny("edge", BUNDLE, images, tmp_path / "prompt"))


def test_a_restart_that_is_refused_clears_nothing(images: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "prompt").symlink_to(tmp_path / "disk" / "prompt")
    request = disk.tiny("edge", BUNDLE, images, tmp_path / "prompt")
    first = tune(request)
    (tmp_path / "disk").rename(tmp_path / "unplugged")
    with pytest.raises(SharpzoError, match="Cannot write"):
        tune(replace(request, restart=True))
    (tmp_path / "unplugged").rename(tmp_path / "disk")
    assert tune(request) == first


def test_a_link_in_a_circle_is_refused_at_once(images: Path, tmp_path: Path, unread: None) -> None:
    (tmp_path / "prompt").symlink_to("prompt")
    with pytest.raises(UsageError, match=r"cannot be looked up \(Too many levels.*--output"):
        tune(disk.tiny("edge", BUNDLE, images, tmp_path / "prompt"))


@pytest.mark.parametrize("folder", ["work folder", "output's folder"])
def test_a_read_only_place_is_refused_at_once(
    folder: str, images: Path, tmp_path: Path, unread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The output is a link to another disk. Root may write everywhere, so the system is played."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "prompt").symlink_to(tmp_path / "disk" / "prompt")
    closed = tmp_path / "disk" if folder == "output's folder" else tmp_path / "prompt.work"

    class ReadOnly:
        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        @staticmethod
        def open(path: Path, flags: int, *mode: int, **options: Any) -> int:
            if Path(path).parent == closed and flags & os.O_CREAT:
                raise OSError(30, "Read-only file system")
            return os.open(path, flags, *mode, **options)

    monkeypatch.setattr(files, "os", ReadOnly())
    with pytest.raises(SharpzoError, match=r"Cannot write .*Read-only file.*Check the folder.*--output"):
        tune(disk.tiny("edge", BUNDLE, images, tmp_path / "prompt"))


def test_trying_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    try_to_replace(tmp_path / "file")
    try_to_replace(tmp_path / "new")
    assert os.listdir(tmp_path) == ["file"] and (tmp_path / "file").read_bytes() == b"old"
    with replacing(tmp_path / "new") as file:
        file.write(b"new")
    assert (tmp_path / "new").read_bytes() == b"new"


# Room.


def with_free(n_bytes: int, n_blocks: int = 1 << 20) -> Callable[[object], SimpleNamespace]:
    return lambda _: SimpleNamespace(f_bavail=n_bytes, f_frsize=1, f_blocks=n_blocks)


def test_too_little_room_is_said_before_the_work(images: Path, tmp_path: Path, monkeypatch) -> None:
    """The run goes on: a full disk loses nothing."""
    found: list[int] = []
    real = tuning.space_note
    monkeypatch.setattr(tuning, "space_note", lambda work, n: found.append(n) or real(work, n))
    monkeypatch.setattr(output.os, "statvfs", with_free(1000))
    said: list[str] = []
    request = disk.tiny("edge", BUNDLE, images, tmp_path / "prompt")
    tune(replace(request, on_progress=lambda progress: said.append(progress.text)))
    (note,) = [line for line in said if "are free there" in line]
    assert said.index(note) < next(i for i, line in enumerate(said) if "reading picture" in line)
    assert f"take up to {found[0] / 2**20:,.1f} MiB" in note and "0.0 MiB are free there" in note


@pytest.mark.parametrize(("free", "is_said"), [(0, False), (-1, True)])
def test_what_is_said_is_what_is_written(free: int, is_said: bool, images: Path, tmp_path: Path, monkeypatch):
    """The largest that crops and features were together, to the byte, is what the note counts with."""
    sizes: list[int] = []
    work = WorkFolder(tmp_path / "prompt.work")
    real = files.OpenFile.write

    def writing(file: files.OpenFile, data: Any) -> int:
        written = real(file, data)
        kept = [*work.path.glob("*.journal"), *work.path.glob("*features.npy*")]
        sizes.append(sum(path.stat().st_size for path in kept))
        return written

    with monkeypatch.context() as patch:
        patch.setattr(files.OpenFile, "write", writing)
        tune(disk.tiny("edge", BUNDLE, images, tmp_path / "prompt"))
    stated: list[int] = []
    monkeypatch.setattr(tuning, "space_note", lambda _, n: stated.append(n))
    tune(disk.tiny("edge", BUNDLE, images, tmp_path / "again"))
    assert max(sizes) - 1024 <= stated[0] <= max(sizes)  # heads of records and files are not counted
    monkeypatch.setattr(output.os, "statvfs", with_free(stated[0] + free))
    assert bool(output.space_note(WorkFolder(tmp_path), stated[0])) == is_said


def test_a_disk_that_does_not_tell_its_size_is_believed(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(output.os, "statvfs", with_free(0, n_blocks=0))
    assert output.space_note(WorkFolder(tmp_path), 1 << 40) is None
