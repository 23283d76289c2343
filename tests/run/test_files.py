"""Files are whole, or not there."""

import errno
import os
from pathlib import Path

import pytest

from sharpzo_edge.errors import SharpzoError
from sharpzo_edge.run.files import cannot, canonical_json, make_folder, replacing, write_json


def test_the_new_bytes_take_the_old_ones_place(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with replacing(path) as out:
        out.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_block_that_raises_leaves_the_old_bytes_alone(tmp_path, error):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(error), replacing(path) as out:
        out.write(b"new")
        raise error
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace"])
def test_a_full_disk_leaves_the_old_bytes_and_nothing_else(tmp_path, monkeypatch, call):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, call, full)
    with pytest.raises(SharpzoError, match=r"Cannot write .*file: No space left"), replacing(path) as out:
        out.write(b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_places_that_cannot_be_written_are_errors(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "missing" / "x", tmp_path / "file" / "x", tmp_path / "folder"):
        with pytest.raises(SharpzoError, match="Cannot write"):
            write_json(path, {})
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_files_have_the_mode_that_the_user_asks_for(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_json(tmp_path / "file", {})
        assert os.umask(mask) == mask  # and is still asked for
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~mask


def test_canonical_json_has_one_spelling():
    assert canonical_json({"b": [1.5, None], "a": "ö"}) == '{"a":"ö","b":[1.5,null]}'.encode()
    assert canonical_json({"a": 1, "b": 2}) == canonical_json({"b": 2, "a": 1})
    with pytest.raises(ValueError):
        canonical_json(float("nan"))


@pytest.mark.parametrize(
    ("number", "says"), [(errno.EMFILE, "ulimit -n"), (errno.ENOMEM, "programs are stopped")]
)
@pytest.mark.parametrize("verb", ["read", "write", "lock"])
def test_a_limit_of_the_system_is_not_the_folders_fault(number, says, verb):
    told = str(cannot(verb, Path("/a/b"), OSError(number, os.strerror(number))))
    assert says in told and "--output" not in told


def test_a_file_in_a_folders_place_is_an_error(tmp_path):
    (tmp_path / "x.work").write_bytes(b"")
    with pytest.raises(FileExistsError):
        make_folder(tmp_path / "x.work")
    assert "ulimit -f" in str(cannot("write", tmp_path, OSError(errno.EFBIG, "File too large")))
