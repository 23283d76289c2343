"""One process an output; a finished one repeats its result, and belongs to the command that made it."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sharpzo_edge.clip.bundle import Bundle
from sharpzo_edge.commands import tune as tuning
from sharpzo_edge.commands.tune import tune_request as tune
from sharpzo_edge.demo import BUNDLE
from sharpzo_edge.errors import InterruptedRunError, SkippedPicturesError, UsageError
from sharpzo_edge.pictures import features
from sharpzo_edge.requests import TuneRequest
from sharpzo_edge.run.files import JSON_LIMIT_BYTES, read_checked_json, write_checked_json
from sharpzo_edge.run.folder import WorkFolder
from sharpzo_edge.run.progress import Progress
from sharpzo_edge.tuning.resume import load_record
from support import disk
from support.processes import start


@pytest.fixture
def request_(images: Path, tmp_path: Path) -> TuneRequest:
    return replace(disk.tiny("edge", BUNDLE, images, tmp_path / "prompt"), checkpoint_seconds=30)


def work_of(request: TuneRequest) -> WorkFolder:
    return WorkFolder.of(request.output_path)


def interrupted(request: TuneRequest) -> None:
    """A run that is stopped at its first batch."""
    evaluated: list[Progress] = []

    def watch(progress: Progress) -> None:
        if progress.kind == "evaluation":
            evaluated.append(progress)

    with pytest.raises(InterruptedRunError, match="type the same command again"):
        tune(replace(request, on_progress=watch, stop=lambda: bool(evaluated)))
    assert work_of(request).checkpoint.exists() and not request.output_path.exists()


def no_work(*_: object) -> None:
    raise AssertionError("a finished run must not be done again")


# The lock.


def test_a_second_process_is_refused_until_the_first_is_dead(request_: TuneRequest, tmp_path: Path) -> None:
    work = work_of(request_)
    work.path.mkdir()
    code = (
        "import sys; from pathlib import Path; from sharpzo_edge.run.folder import WorkFolder\n"
        "with WorkFolder(Path(sys.argv[1])).locked(): print('held', flush=True); sys.stdin.read()"
    )
    with start([sys.executable, "-c", code, work.path]) as other:
        assert other.stdout and other.stdout.readline() == "held\n"
        kept = work.path / "kept"
        kept.touch()
        said = f"Another process.*{re.escape(str(work.path / 'lock'))}"
        for restart in (False, True):
            with pytest.raises(UsageError, match=said):
                tune(replace(request_, restart=restart))
        assert kept.exists() and not work.record.exists()
        other.kill()
        other.wait()
    assert tune(replace(request_, restart=True)).queries > 10
    assert not kept.exists()


def test_the_lock_outlives_what_restart_clears(tmp_path: Path) -> None:
    work = WorkFolder(tmp_path)
    with work.locked():
        work.clear()
        with pytest.raises(UsageError), WorkFolder(tmp_path).locked():
            pass


# The record.


def test_the_same_command_again_repeats_the_result(
    request_: TuneRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tune(request_)
    before = request_.output_path.read_bytes(), request_.output_path.stat().st_mtime_ns
    monkeypatch.setattr(tuning, "training_features", no_work)
    assert tune(request_) == first
    assert tune(replace(request_, checkpoint_seconds=1, strict=True)) == first
    assert (request_.output_path.read_bytes(), request_.output_path.stat().st_mtime_ns) == before


def test_a_damaged_record_or_another_prompt_is_no_result(request_: TuneRequest) -> None:
    tune(request_)
    record = work_of(request_).record
    whole = record.read_bytes()
    for damaged in (b"", whole[:-9], whole.replace(b'"queries":', b'"queries":1'), b"[" * 10**5, b"null"):
        record.write_bytes(damaged)
        assert load_record(work_of(request_)) is None
        with pytest.raises(UsageError, match=r"exists already.*--restart"):
            tune(request_)
    record.write_bytes(whole)
    request_.output_path.write_bytes(request_.output_path.read_bytes() + b" ")
    with pytest.raises(UsageError, match=r"exists already.*--restart"):
        tune(request_)


def test_a_result_that_was_moved_away_can_be_made_again(
    request_: TuneRequest,
) -> None:
    first = tune(request_)
    made = request_.output_path.read_bytes()
    os.rename(request_.output_path, request_.output_path.with_name("kept"))
    assert tune(replace(request_, seed=1)).train_loss != first.train_loss
    request_.output_path.unlink()
    assert tune(request_).train_loss == first.train_loss
    assert request_.output_path.read_bytes() == made


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"{}", bytes(9000), b"sharpzo-edge"])
def test_restart_replaces_a_prompt_and_no_other_file(content: bytes, request_: TuneRequest) -> None:
    """Such as a picture that was given as --output by mistake. A prompt may be damaged."""
    request_.output_path.write_bytes(content)
    for _ in range(2):
        with pytest.raises(UsageError, match=r"is no tuned prompt.*another --output"):
            tune(replace(request_, restart=True))
    assert request_.output_path.read_bytes() == content and not work_of(request_).path.exists()


def test_restart_replaces_a_damaged_prompt(request_: TuneRequest) -> None:
    tune(request_)
    whole = request_.output_path.read_bytes()
    request_.output_path.write_bytes(whole[:600])
    assert tune(replace(request_, restart=True)).queries > 10
    assert request_.output_path.read_bytes() == whole


def test_a_restart_that_was_stopped_goes_on_without_restart(
    request_: TuneRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune(request_)
    other = replace(request_, seed=1)
    before = request_.output_path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(tuning, "training_features", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            tune(replace(other, restart=True))
    assert request_.output_path.read_bytes() == before
    tune(other)
    assert request_.output_path.read_bytes() != before


def test_pictures_that_were_read_outlive_another_command(
    request_: TuneRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no checkpoint yet when a signal comes between two pictures."""
    with monkeypatch.context() as patch:
        patch.setattr(features, "encode", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            tune(request_)
    crops = work_of(request_).crops
    kept = crops.read_bytes()
    assert kept and not work_of(request_).checkpoint.exists()
    with pytest.raises(UsageError, match=r"interrupted run .*another --seed: 0, now 1.*--restart"):
        tune(replace(request_, seed=1))
    assert crops.read_bytes() == kept
    assert tune(request_).queries > 10


def test_repeating_with_strict_remembers_skipped_pictures(
    request_: TuneRequest, images: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    shutil.copytree(images, own)
    for picture in sorted(next(own.iterdir()).iterdir())[1:]:
        picture.write_bytes(b"no picture")
    request = replace(request_, images=own)
    tune(request)
    with pytest.raises(SkippedPicturesError, match=r"not a picture.*--strict"):
        tune(replace(request, strict=True))


def test_repeating_says_what_could_not_be_read_then(
    request_: TuneRequest, images: Path, tmp_path: Path, monkeypatch
) -> None:
    """After a chmod the same command must not look as if that picture had been used."""
    own = tmp_path / "own"
    shutil.copytree(images, own)
    for picture in sorted(next(own.iterdir()).iterdir())[1:]:
        picture.rename(tmp_path / picture.name)
        picture.symlink_to(tmp_path / "disk" / picture.name)
    said: list[str] = []
    request = replace(request_, images=own, on_progress=lambda news: said.append(news.text))
    tune(request)
    said.clear()
    tune(request)
    told = " ".join(said)
    assert "a link to a file that is not there" in told
    assert "--restart tries it again" in told


# Differences.


def test_equal_commands_in_other_words_are_equal(request_: TuneRequest) -> None:
    request = replace(request_, memory_budget="512MiB")
    first = tune(request)
    assert tune(replace(request, memory_budget="0.5GiB", max_queries=24)) == first


OPEN = Bundle.open


def another_bundle(folder: Path) -> Bundle:
    return Bundle(folder, OPEN(folder).manifest, "another checksum")


CHANGES: dict[str, Callable[[TuneRequest], TuneRequest]] = {
    "--bundle": lambda r: r,  # see the test
    "--images": lambda r: r,
    "--class-names": lambda r: replace(r, class_names=r.output_path.with_name("names.json")),
    "--seed": lambda r: replace(r, seed=1),
    "--preset": lambda r: replace(r, preset="demo"),
    "--shots": lambda r: replace(r, shots=1),
    "--val": lambda r: replace(r, val=0),
    "--context-init": lambda r: replace(r, context_init="an icon of"),
    "--sigma0": lambda r: replace(r, sigma0=0.1),
    "--rank": lambda r: replace(r, rank=3),
    "--max-queries": lambda r: replace(r, max_queries=23),
    "--max-minutes": lambda r: replace(r, max_minutes=60),
    "--memory-budget": lambda r: replace(r, memory_budget="500MiB"),
    "--threads": lambda r: replace(r, threads=2),
}


def says(name: str) -> str:
    return {"--bundle": "it is another bundle", "--images": "the files .* changed"}.get(name, ".*, now ")


def test_the_first_difference_is_named_in_a_fixed_order(
    request_: TuneRequest, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them at once; then without the first one, and so on."""
    own = tmp_path / "own"
    shutil.copytree(images, own)
    first_class = sorted(p.name for p in own.iterdir())[0]
    (tmp_path / "names.json").write_text(json.dumps({first_class: "red heart"}))
    request = replace(request_, images=own)
    for state in ("unfinished", "finished"):
        if state == "unfinished":
            interrupted(request)
        else:
            tune(request)
        with monkeypatch.context() as patch:
            patch.setattr(tuning, "training_features", no_work)
            for i, name in enumerate(CHANGES):
                changed = request
                for other in reversed([*CHANGES][i:]):
                    changed = CHANGES[other](changed)
                picture = next(own.glob("*/*.png"))
                kept = picture.read_bytes()
                if i <= [*CHANGES].index("--images"):
                    picture.write_bytes(kept + b"\0")
                with patch.context() as once:
                    if name == "--bundle":
                        once.setattr(Bundle, "open", another_bundle)
                    if state == "unfinished" and name == "--max-minutes":
                        continue  # a run may go on under another time limit
                    with pytest.raises(UsageError, match=rf"another {name}: {says(name)}.*--restart"):
                        tune(changed)
                picture.write_bytes(kept)


def test_a_record_of_another_form_is_none_whatever_its_checksum(request_: TuneRequest) -> None:
    tune(request_)
    path = work_of(request_).record
    whole = read_checked_json(path)
    for forged in (
        whole | {"result": {}},
        whole | {"result": whole["result"] | {"train_loss": "low"}},
        whole | {"result": whole["result"] | {"head": [1]}},
        whole | {"result": whole["result"] | {"use": "nan"}},
        whole | {"made_for": []},
        whole | {"output": 5},
        [],
    ):
        write_checked_json(path, forged)
        assert load_record(work_of(request_)) is None
    path.write_bytes(b" " * (JSON_LIMIT_BYTES + 1) + path.read_bytes())
    assert load_record(work_of(request_)) is None
