"""The demo says where it has looked for a temporary folder, and what to type when there is none."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from sharpzo_edge import demo as own
from sharpzo_edge.commands import demo as commands_demo
from sharpzo_edge.commands.demo import demo
from sharpzo_edge.demo import HERE
from sharpzo_edge.errors import SharpzoError, UsageError
from sharpzo_edge.run import files
from support import disk
from support.processes import finish

SAYS = r"demo has no folder for its temporary files \(.*\).*TMPDIR=FOLDER sharpzo-edge demo"
# In a child, as tempfile looks once in a process: no place that it knows is there.
NOWHERE = """
import sys, tempfile
tempfile._candidate_tempdir_list = lambda: ["/nonexistent/a", "/nonexistent/b"]
sys.argv = ["sharpzo-edge", "demo", "--memory-budget", "none"]
from sharpzo_edge.__main__ import main
main()
"""


def test_no_temporary_folder_is_a_sentence() -> None:
    done = finish([sys.executable, "-c", NOWHERE], code=2)
    assert "demo has no folder for its temporary files (No usable temporary directory found" in done.stderr
    assert "TMPDIR=FOLDER sharpzo-edge demo" in done.stderr and "defect" not in done.stderr


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_a_temporary_folder_that_refuses_is_a_sentence(number: int, monkeypatch) -> None:
    def refusing(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tempfile, "mkdtemp", refusing)
    with pytest.raises(UsageError, match=SAYS):
        demo()


def test_a_temporary_folder_that_gets_full_is_a_sentence(tmp_path: Path, monkeypatch) -> None:
    """There is no --output to choose another place with."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(files, "os", disk.FailingOs(12, disk.full_disk, lasts=True))
    with pytest.raises(SharpzoError, match=SAYS) as error:
        demo()
    assert "No space left" in str(error.value) and "--output" not in str(error.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("missing", ["tasks", "tasks/subgroups/test", "bundle", "bundle/text.data"])
def test_a_demo_that_is_not_whole_is_installed_anew(missing: str, tmp_path: Path, monkeypatch) -> None:
    """Nobody is told to copy its bundle from a workstation, or to check a path after --images."""
    for name in ("bundle", "tasks"):
        shutil.copytree(HERE / name, tmp_path / name, copy_function=os.symlink)
    path = tmp_path / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    monkeypatch.setattr(own, "TASKS", tmp_path / "tasks")
    monkeypatch.setattr(commands_demo, "TASKS", tmp_path / "tasks")
    monkeypatch.setattr(commands_demo, "BUNDLE", tmp_path / "bundle")
    with pytest.raises(SharpzoError, match=r"not as it was installed.*--force-reinstall") as refused:
        demo()
    assert "--images" not in str(refused.value) and "workstation" not in str(refused.value)
