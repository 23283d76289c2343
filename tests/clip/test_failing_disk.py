"""What the system refuses while a bundle or a prompt is read is said as it is, and never called damage."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import sharpzo_edge
from sharpzo_edge import SharpzoError
from sharpzo_edge.clip import streaming
from sharpzo_edge.clip.bundle import Bundle
from sharpzo_edge.clip.sessions import _raise_if_the_systems
from sharpzo_edge.demo import BUNDLE, TASKS
from sharpzo_edge.errors import cannot_read

TEST = TASKS / "subgroups" / "test"
FILES = ["manifest.json", "bpe.txt.gz", "text.onnx", "text.data", "image.onnx", "image.data"]
FILES += ["token_embedding.npy", "token_ids.npy"]
WHAT_WOULD_DO = {
    errno.EACCES: "chmod -R a+rX",
    errno.EIO: "a look at the disk",
    errno.EMFILE: "ulimit -n",
    errno.ENOMEM: "memory",
    errno.ESTALE: "a look at the disk",
}


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes with a picture each."""
    folder = tmp_path_factory.mktemp("few")
    for name in ("sport", "clothing"):
        (folder / name).mkdir()
        shutil.copy(next((TEST / name).iterdir()), folder / name)
    return folder


def refuse(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> None:
    """Let every opening of a file of that name fail."""
    for owner, what in ((Path, "open"), (os, "open")):
        real = getattr(owner, what)

        def failing(path: Any, *given: Any, real: Any = real, **named: Any) -> Any:
            if os.path.basename(path) == name:
                raise OSError(number, os.strerror(number), str(path))
            return real(path, *given, **named)

        monkeypatch.setattr(owner, what, failing)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("number", WHAT_WOULD_DO)
def test_a_bundles_file_that_cannot_be_read_is_not_damaged(name, number, few, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        refuse(patch, name, number)
        with pytest.raises(SharpzoError) as refused:
            sharpzo_edge.evaluate(BUNDLE, few)
    told = str(refused.value)
    assert type(refused.value) is SharpzoError and refused.value.exit_code == 1
    assert told.startswith(f"Cannot read {BUNDLE / name}: ")
    assert WHAT_WOULD_DO[number] in told
    assert "damaged" not in told and "Copy" not in told and "export" not in told


def test_merges_that_fail_while_they_are_read_are_not_damaged(few, monkeypatch) -> None:
    def failing(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("gzip.open", failing)
    with pytest.raises(SharpzoError, match=r"Cannot read .*bpe\.txt\.gz: Input/output error"):
        sharpzo_edge.evaluate(BUNDLE, few)


@pytest.mark.parametrize("is_held", [False, True])
@pytest.mark.parametrize("moment", [1, 7])
def test_weights_that_fail_in_the_middle_of_a_pass(moment, is_held, monkeypatch) -> None:
    """The next pass has them. Streamed weights are read in every pass, held ones until one pass had all."""
    bundle = Bundle.open(BUNDLE)
    steps = bundle.manifest.image.steps
    weights = streaming.StepWeights(bundle, bundle.manifest.image.data, steps, is_held)
    real, n_read = os.preadv, 0

    def failing(*given: Any) -> int:
        nonlocal n_read
        n_read += 1
        if n_read == moment:
            raise OSError(errno.EIO, "Input/output error")
        return real(*given)

    monkeypatch.setattr(streaming.os, "preadv", failing)
    with pytest.raises(SharpzoError, match=r"Cannot read .*image\.data: Input/output error"):
        list(weights.read())
    assert len(list(weights.read())) == len(steps)
    n_before = n_read
    assert len(list(weights.read())) == len(steps) and (n_read == n_before) == is_held


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_a_prompt_that_cannot_be_read_is_not_called_missing(number, tmp_path, monkeypatch) -> None:
    path = tmp_path / "prompt.safetensors"
    path.write_bytes(b"anything")
    refuse(monkeypatch, path.name, number)
    with pytest.raises(SharpzoError, match=f"Cannot read {path}: {os.strerror(number)}"):
        sharpzo_edge.TunedPrompt.open(path)


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_is_no_plain_file_is_never_waited_for(kind, few, tmp_path) -> None:
    """Opening a pipe that nobody writes to would not end, and a signal would not end it."""
    made = [tmp_path / name for name in ("a.png", "prompt.st", "bundle/manifest.json")]
    (tmp_path / "bundle").mkdir()
    for path in made:
        os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    answer = sharpzo_edge.tune(BUNDLE, few, tmp_path / "well.st", max_queries=5, memory_budget="none")
    assert answer.queries
    found = sharpzo_edge.predict([made[0], *few.glob("sport/*")], BUNDLE, tmp_path / "well.st")
    assert [each.reason for each in found.skipped] == ["a device, a pipe or a socket"]
    with pytest.raises(sharpzo_edge.PromptFileError, match="a device, a pipe or a socket"):
        sharpzo_edge.TunedPrompt.open(made[1])
    with pytest.raises(sharpzo_edge.BundleError, match="a device, a pipe or a socket"):
        Bundle.open(tmp_path / "bundle")


def test_the_path_to_change_is_the_one_that_is_closed(tmp_path, monkeypatch) -> None:
    """It ends the sentence: a full stop behind a folder named . would make another folder of it."""
    refused = PermissionError(errno.EACCES, "Permission denied")
    assert str(cannot_read(Path("a.st"), refused)).endswith(": chmod a+rX a.st")
    (tmp_path / "link").symlink_to(tmp_path / "shut" / "bundle")
    monkeypatch.setattr(os, "access", lambda path, mode: path.name != "shut")
    for whole in (None, tmp_path / "link"):
        told = str(cannot_read(tmp_path / "link" / "text.data", refused, whole))
        assert told.endswith(f": chmod a+rX {tmp_path / 'shut'}")


@pytest.mark.parametrize(
    "said",
    [
        "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Exception during initialization: std::bad_alloc",
        "BFCArena: Failed to allocate memory for requested buffer of size 4096",
        "file mapping failed: SystemError : 12",
    ],
)
def test_onnxruntime_without_memory_is_no_damaged_bundle(said: str) -> None:
    with pytest.raises(MemoryError):
        _raise_if_the_systems(RuntimeError(said), None)


def test_onnxruntime_without_threads_is_no_damaged_bundle() -> None:
    said = "env.cc:327 onnxruntime::PosixThread::PosixThread pthread_create failed, error code: 11"
    with pytest.raises(SharpzoError, match=r"cannot start its threads.*--threads 1") as refused:
        _raise_if_the_systems(RuntimeError(said), None)
    assert type(refused.value) is SharpzoError


def test_onnxruntimes_system_error_is_named() -> None:
    with pytest.raises(SharpzoError, match=r"Cannot read text\.data: Input/output error"):
        _raise_if_the_systems(RuntimeError("cannot map: SystemError : 5"), Path("text.data"))
    _raise_if_the_systems(RuntimeError("Protobuf parsing failed"), Path("text.data"))
