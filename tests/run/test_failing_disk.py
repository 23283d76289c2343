"""Whatever the disk or the power does at any moment, the same command ends with the same prompt."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sharpzo_edge.commands.tune import tune_request as tune
from sharpzo_edge.demo import BUNDLE, DEFAULT_TASK, TASKS
from sharpzo_edge.errors import InterruptedRunError, SharpzoError, UsageError
from sharpzo_edge.run import files
from sharpzo_edge.run.folder import WorkFolder
from sharpzo_edge.run.log import Log
from sharpzo_edge.run.progress import Caller, Progress
from support import disk
from support.processes import finish

MEMORY_DISK = Path("/dev/shm")
EVERY = {"full disk": 7, "kill": 11}  # prime to the length of a save; the soak takes all of them


@pytest.fixture(scope="module")
def quick_disk() -> Iterator[Path]:
    """A folder in memory, where there is one: a real disk's flushes take most of the time."""
    where = MEMORY_DISK if os.access(MEMORY_DISK, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=where) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def images(quick_disk: Path) -> Path:
    """Two classes of few pictures, and a file that is no picture."""
    for folder in sorted((TASKS / DEFAULT_TASK / "train").iterdir())[:2]:
        shutil.copytree(folder, quick_disk / "images" / folder.name)
        (quick_disk / "images" / folder.name / "notes.txt").write_text("no picture")
    return quick_disk / "images"


@pytest.mark.parametrize("preset", disk.TINY)
def test_a_full_disk_at_any_change_loses_nothing(
    preset: str, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends with one of our errors, and the same command goes on with it."""
    folder = Path(tempfile.mkdtemp(dir=images.parent))
    request = disk.tiny(preset, BUNDLE, images, folder / "whole")
    n_changes = disk.changes_of(request)
    survived = 0
    for site in range(1, n_changes + 1, EVERY["full disk"]):
        full = replace(request, output=folder / f"full-{site}")
        with monkeypatch.context() as patch:
            patch.setattr(files, "os", disk.FailingOs(site, disk.full_disk))
            try:
                tune(full)
                survived += 1
            except SharpzoError as error:
                assert "No space left" in str(error) and "--output" in str(error)
        assert tune(full).queries > 10
        assert full.output_path.read_bytes() == request.output_path.read_bytes()
        assert not list(folder.glob(".*.part")) and not list(
            WorkFolder.of(full.output_path).path.glob(".*.part")
        )
    # Only the log may fail without an end to the run.
    assert survived < n_changes / EVERY["full disk"] / 2


@pytest.mark.parametrize("preset", disk.TINY)
def test_a_kill_at_any_change_loses_nothing(preset: str, images: Path) -> None:
    folder = Path(tempfile.mkdtemp(dir=images.parent))
    command = [sys.executable, "-m", "support.disk", preset, BUNDLE, images, folder / "any", EVERY["kill"]]
    result = json.loads(finish(command).stdout)
    assert result["sites"] > 8 and result["lost"] == []


@pytest.mark.parametrize("site", [1, 2, 3])
def test_a_log_that_cannot_be_written_is_said_once_and_given_up(
    site: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "os", disk.FailingOs(site, disk.full_disk))
    said: list[Progress] = []
    caller = Caller((said.append,))
    with Log(tmp_path / "log", caller) as log:
        for line in "abc":
            replace(caller, listeners=(*caller.listeners, log)).say(line)
    lines = [progress.text for progress in said]
    assert [line for line in lines if len(line) == 1] == ["a", "b", "c"]
    (note,) = set(lines) - set("abc")
    assert "goes on without its log. Cannot write" in note


@pytest.mark.parametrize("gone", ["work", "everything"])
def test_a_folder_that_vanishes_is_our_error(gone: str, images: Path) -> None:
    folder = Path(tempfile.mkdtemp(dir=images.parent))
    request = disk.tiny("edge", BUNDLE, images, folder / "prompt")

    def vanish(progress: Progress) -> None:
        if progress.is_first:
            shutil.rmtree(WorkFolder.of(request.output_path).path if gone == "work" else folder)

    with pytest.raises(SharpzoError, match=r"Cannot write .*: No such file or directory.*--output"):
        tune(replace(request, on_progress=vanish))
    folder.mkdir(exist_ok=True)
    assert tune(request).queries > 10


def test_a_mistyped_output_makes_no_folders(images: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Cannot make the work folder .*must exist.*--output"):
        tune(disk.tiny("edge", BUNDLE, images, tmp_path / "nonexist" / "x" / "prompt"))
    assert not (tmp_path / "nonexist").exists()


def test_what_was_refused_is_called_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = files.Appended(tmp_path / "journal")
    file.close()
    with pytest.raises(SharpzoError, match=r"Cannot read .*journal: Bad file descriptor"):
        file.read(0, 1)
    monkeypatch.setattr(fcntl, "flock", lambda *_: disk.full_disk("lock"))
    with pytest.raises(SharpzoError, match=r"Cannot lock .*lock: No space"), WorkFolder(tmp_path).locked():
        pass


def test_a_folder_without_permission_is_our_error(images: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir(mode=0o500)
    if os.access(tmp_path / "mine", os.W_OK):
        pytest.skip("this user, root or like it, may write everywhere")
    with pytest.raises(SharpzoError, match=r"Cannot make .*Permission denied.*--output"):
        tune(disk.tiny("edge", BUNDLE, images, tmp_path / "mine" / "prompt"))


# File systems as they are.


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_folder_that_cannot_be_flushed_ends_nothing(number: int, images: Path, monkeypatch) -> None:
    """Every fsync of a folder is refused; of files it works."""

    class NoFolderSync:
        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        @staticmethod
        def fsync(descriptor: int) -> None:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise OSError(number, os.strerror(number))

    folder = Path(tempfile.mkdtemp(dir=images.parent))
    monkeypatch.setattr(files, "os", NoFolderSync())
    assert tune(disk.tiny("edge", BUNDLE, images, folder / "prompt")).queries > 10


class BusyDisk:
    """Its first renames are refused: another program has the file."""

    def __init__(self, n_refused: int):
        self.n_left = n_refused

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def replace(self, old: Path, new: Path) -> None:
        self.n_left -= 1
        if self.n_left >= 0:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        os.replace(old, new)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses before a rename is tried again; none of them takes time."""
    seconds: list[float] = []
    monkeypatch.setattr(files.time, "sleep", seconds.append)
    return seconds


def test_a_file_that_is_busy_for_a_moment_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> None:
    (tmp_path / "prompt").write_bytes(b"old")
    monkeypatch.setattr(files, "os", BusyDisk(len(files.BUSY_SECONDS)))
    with files.replacing(tmp_path / "prompt") as file:
        file.write(b"new")
    assert (tmp_path / "prompt").read_bytes() == b"new" and [p.name for p in tmp_path.iterdir()] == ["prompt"]
    assert waits == list(files.BUSY_SECONDS) and 0.9 < sum(waits) < 1.2


def test_a_file_that_stays_busy_is_our_error_and_loses_nothing(
    images: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> None:
    """The advice is true of a busy file: it asks for no space, and for no other disk."""
    folder = Path(tempfile.mkdtemp(dir=images.parent))
    whole = disk.tiny("edge", BUNDLE, images, folder / "whole")
    tune(whole)
    request = replace(whole, output=folder / "prompt")
    waits.clear()
    with monkeypatch.context() as patch:
        patch.setattr(files, "os", BusyDisk(10**6))
        with pytest.raises(SharpzoError, match=r"busy.*same command again in a moment.*--output") as refused:
            tune(request)
    assert "room left" not in str(refused.value) and len(waits) == len(files.BUSY_SECONDS)
    tune(request)
    assert request.output_path.read_bytes() == whole.output_path.read_bytes()


def test_no_other_refusal_of_a_rename_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(SharpzoError, match="Is a directory"), files.replacing(tmp_path / "folder") as file:
        file.write(b"a file, which replaces no folder")
    assert waits == [] and [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_a_file_system_without_locks_is_said_and_used(images: Path, monkeypatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    said: list[str] = []
    folder = Path(tempfile.mkdtemp(dir=images.parent))
    request = disk.tiny("edge", BUNDLE, images, folder / "prompt")
    assert tune(replace(request, on_progress=lambda progress: said.append(progress.text))).queries > 10
    assert "this file system has no locks" in " ".join(said)


@pytest.mark.parametrize(
    "name",
    [
        "prompt",
        "features.npy",
        "run.json",
        "machine.json",
        "pictures.json",
        "checkpoint.safetensors",
        "crops.journal",
    ],
)
def test_a_read_that_fails_once_costs_nothing(name: str, images: Path, tmp_path: Path) -> None:
    """Wherever it comes, before or after a stop: one of our errors, and the same command ends as ever.

    It says nothing of what is in the file: nothing is thrown away for it, and no other command is advised.
    """
    folder = Path(tempfile.mkdtemp(dir=images.parent))
    request = disk.tiny("edge", BUNDLE, images, folder / "prompt")
    tune(replace(request, output=folder / "whole"))

    def fail(what: str) -> None:
        failed.append(what)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def evaluated(progress: Progress) -> None:
        seen.append(progress.is_first)

    seen: list[bool] = []
    failed: list[str] = []
    for site in range(1, 9):
        seen.clear()
        failed.clear()
        with disk.watched(disk.FailingOs(site, fail, f"read {name}"), images, request.output_path):
            try:
                with contextlib.suppress(InterruptedRunError):
                    tune(replace(request, on_progress=evaluated, stop=lambda: any(seen)))
                tune(request)
            except SharpzoError as error:
                assert "Cannot read" in str(error) and "--restart" not in str(error)
                assert "same command again" in str(error)
        assert tune(request).queries > 10
        assert request.output_path.read_bytes() == (folder / "whole").read_bytes()
        shutil.rmtree(WorkFolder.of(request.output_path).path)
        request.output_path.unlink()
        if not failed:
            break
    assert site > 1, "nothing was read"


def test_an_output_that_is_no_plain_file_is_refused_at_once(images: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for output in (Path("/dev/null"), tmp_path / "pipe"):
        with pytest.raises(UsageError, match="is a device, a pipe or a socket"):
            tune(replace(disk.tiny("edge", BUNDLE, images, output), restart=True))
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_an_output_that_is_a_link_stays_one(images: Path) -> None:
    folder = Path(tempfile.mkdtemp(dir=images.parent))
    (folder / "elsewhere").mkdir()
    (folder / "prompt").symlink_to(folder / "elsewhere" / "real")
    tune(disk.tiny("edge", BUNDLE, images, folder / "prompt"))
    assert (folder / "prompt").is_symlink() and (folder / "elsewhere" / "real").stat().st_size > 1000
    assert tune(disk.tiny("edge", BUNDLE, images, folder / "prompt")).queries > 10  # it repeats the result


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "Free some space"),
        (errno.EROFS, "Check the folder"),
        (errno.EIO, "type the same command again"),
    ],
)
def test_space_is_asked_for_where_space_is_missing(number: int, advice: str, tmp_path: Path) -> None:
    assert advice in str(files.cannot("write", tmp_path, OSError(number, os.strerror(number))))


@pytest.mark.parametrize("name", ["bundle", "images", "output"])
def test_an_empty_path_is_not_the_working_folder(name: str, images: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"--{name} is empty"):
        replace(disk.tiny("edge", BUNDLE, images, tmp_path / "p"), **{name: ""})
