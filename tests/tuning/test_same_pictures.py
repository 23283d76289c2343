"""A run goes on with the same pictures, whatever their times; others of the same names are noticed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sharpzo_edge.commands import tune as tuning
from sharpzo_edge.commands.tune import tune_request as tune
from sharpzo_edge.demo import BUNDLE, DEFAULT_TASK, TASKS
from sharpzo_edge.errors import InterruptedRunError, UsageError
from sharpzo_edge.pictures import few_shot
from sharpzo_edge.requests import TuneRequest
from sharpzo_edge.run.files import read_checked_json
from sharpzo_edge.run.folder import WorkFolder
from support import disk
from support.pictures_alike import of_one_size, swap

MOMENTS = ("before tuning", "while tuning", "finished")
ADVICE = "has another content now.*byte for byte.*--restart"


@pytest.fixture
def request_(tmp_path: Path) -> TuneRequest:
    """Two classes of eight pictures of one size each; two are shots, one validates."""
    for each in sorted((TASKS / DEFAULT_TASK / "train").iterdir())[:2]:
        shutil.copytree(each, tmp_path / "images" / each.name)
        for path in sorted((tmp_path / "images" / each.name).iterdir())[8:]:
            path.unlink()
    of_one_size(tmp_path / "images")
    return disk.tiny("edge", BUNDLE, tmp_path / "images", tmp_path / "prompt")


@pytest.fixture
def run_until(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, TuneRequest], None]:
    """End a run when its features are there, or in the middle, or not at all."""

    def run(moment: str, request: TuneRequest) -> None:
        seen: list[str] = []
        if moment == "finished":
            tune(request)
        elif moment == "while tuning":
            with pytest.raises(InterruptedRunError):
                watched = replace(request, on_progress=lambda progress: seen.append(progress.kind))
                tune(replace(watched, stop=lambda: "evaluation" in seen))
        else:
            with monkeypatch.context() as patch:
                patch.setattr(tuning, "TextTower", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
                with pytest.raises(KeyboardInterrupt):
                    tune(request)
        assert WorkFolder.of(request.output_path).features.exists()
        assert WorkFolder.of(request.output_path).checkpoint.exists() == (moment == "while tuning")

    return run


def taken(request: TuneRequest) -> list[Path]:
    """The pictures that a run has taken, in their order."""
    drawn = read_checked_json(WorkFolder.of(request.output_path).pictures)["drawn"]
    return [Path(request.images) / name for name in drawn["files"]]


def decoding(*_: Any) -> None:
    raise AssertionError("a picture was decoded again")


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_copy_with_other_times_is_the_same(moment: str, request_, run_until, monkeypatch) -> None:
    run_until(moment, request_)
    for number, path in enumerate(Path(request_.images).glob("*/*")):
        os.utime(path, ns=(number, number))
    monkeypatch.setattr(few_shot, "decoded", decoding)
    assert tune(request_).queries > 10


@pytest.mark.parametrize("moment", MOMENTS)
def test_another_picture_of_that_name_and_size_is_noticed(moment: str, request_, run_until) -> None:
    run_until(moment, request_)
    first, *_, last = taken(request_)
    swap(first, last)
    if moment == "before tuning":  # the pictures are read anew
        found = tune(request_)
        fresh = replace(request_, output=request_.output_path.with_name("fresh"))
        assert found.train_loss == tune(fresh).train_loss
        assert request_.output_path.read_bytes() == fresh.output_path.read_bytes()
        return
    with pytest.raises(UsageError, match=f"another --images: the picture {first} {ADVICE}"):
        tune(request_)
    swap(first, last)
    assert tune(request_).queries > 10
    swap(first, last)
    assert tune(replace(request_, restart=True)).queries > 10


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_picture_that_was_not_taken_may_change(moment: str, request_, run_until, monkeypatch) -> None:
    run_until(moment, request_)
    others = sorted({*Path(request_.images).glob("*/*")} - {*taken(request_)})
    swap(others[0], others[1])
    others[2].write_bytes(bytes(others[2].stat().st_size))
    monkeypatch.setattr(few_shot, "decoded", decoding)
    assert tune(request_).queries > 10


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_picture_that_was_mended_is_noticed(moment: str, request_, run_until) -> None:
    """The first picture to be taken has only zeros behind its first bytes, as after a torn copy."""
    run_until("finished", request_)
    first = taken(request_)[0]
    whole = first.read_bytes()
    first.write_bytes(whole[:100].ljust(len(whole), b"\0"))
    request = replace(request_, output=request_.output_path.with_name("torn"))
    run_until(moment, request)
    assert first not in taken(request)
    first.write_bytes(whole)
    if moment == "before tuning":
        tune(request)
        assert request.output_path.read_bytes() == request_.output_path.read_bytes()
    else:
        with pytest.raises(UsageError, match=f"a file that was passed over {ADVICE}"):
            tune(request)


@pytest.mark.parametrize("name", ["pictures.json", "features.npy"])
def test_lost_features_do_not_let_another_picture_in(name: str, request_, run_until) -> None:
    run_until("while tuning", request_)
    first, *_, last = taken(request_)
    (WorkFolder.of(request_.output_path).path / name).unlink()
    assert tune(replace(request_, stop=lambda: False)).queries > 10  # it goes on
    again = replace(request_, output=request_.output_path.with_name("again"))
    run_until("while tuning", again)
    (WorkFolder.of(again.output_path).path / name).unlink()
    swap(first, last)
    with pytest.raises(UsageError, match=r"another (--images|choice of pictures).*--restart"):
        tune(again)


def test_a_picture_that_cannot_be_read_now_is_not_another(request_, run_until, monkeypatch) -> None:
    run_until("while tuning", request_)
    first, real = taken(request_)[0], Path.open

    def failing(path: Path, *mode: str, **options: Any) -> Any:
        if path == first:
            raise PermissionError(13, "Permission denied")
        return real(path, *mode, **options)

    monkeypatch.setattr(Path, "open", failing)
    assert tune(request_).queries > 10


def test_a_work_folder_of_an_earlier_version_is_refused(request_, run_until) -> None:
    """Its listing held times, and its pictures no contents."""
    from sharpzo_edge.run.files import write_checked_json

    run_until("finished", request_)
    work = WorkFolder.of(request_.output_path)
    record, kept = read_checked_json(work.record), read_checked_json(work.pictures)
    record["made_for"]["--images"] = "0" * 64
    for name in ("contents", "passed_over"):
        del kept["drawn"][name]
    write_checked_json(work.record, record)
    write_checked_json(work.pictures, kept)
    with pytest.raises(UsageError, match=r"another --images: .* or another version.*--restart"):
        tune(request_)
