"""`predict` on folders and standard input, answer by answer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sharpzo_edge import ImagesError, predict, tune
from sharpzo_edge.demo import BUNDLE, TASKS
from support.processes import ORIGINAL, clean

RUNTIME = Path(__file__).parents[2] / "runtime"
TEST = TASKS / "subgroups" / "test"
ENVIRONMENT = clean(ORIGINAL) | {"PYTHONPATH": str(RUNTIME)}


@pytest.fixture(scope="module")
def prompt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("paths") / "prompt.safetensors"
    tune(BUNDLE, TASKS / "subgroups" / "train", path, preset="head", shots=4, val=0)
    return path


def labelled(prompt: Path, *words: object, lines: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [
        sys.executable,
        "-m",
        "sharpzo_edge",
        "predict",
        "--bundle",
        BUNDLE,
        "--prompt",
        prompt,
        *words,
    ]
    return subprocess.run(
        list(map(str, command)), env=ENVIRONMENT, input=lines, capture_output=True, timeout=120
    )


def test_a_folder_is_all_pictures_below_it(prompt: Path, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    first, second = sorted((TEST / "sport").iterdir())[:2]
    (inner / "b.png").write_bytes(first.read_bytes())
    (tmp_path / "c.png").write_bytes(second.read_bytes())
    (inner / "round").symlink_to(tmp_path)
    (tmp_path / ".hidden.png").write_bytes(b"")
    (tmp_path / "notes.json").write_bytes(b"{}")
    found = predict([tmp_path, first], BUNDLE, prompt)
    assert [each.image for each in found.predictions] == [
        str(tmp_path / "c.png"),
        str(inner / "b.png"),
        str(first),
    ]


def test_a_folder_of_nothing_is_an_error(prompt: Path, tmp_path: Path) -> None:
    with pytest.raises(ImagesError, match=r"There is no picture in .*Check the paths"):
        predict([tmp_path], BUNDLE, prompt)


def test_paths_come_on_standard_input(prompt: Path) -> None:
    pictures = sorted((TEST / "sport").iterdir())
    missing = TEST / "no\udcff.png"
    lines = b"\n".join([os.fsencode(p) for p in (pictures[0], missing, *pictures[1:])])
    done = labelled(prompt, "-", "--json-lines", "--top", 2, lines=lines)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    answers = [each for each in found if "labels" in each]
    together = predict(pictures, BUNDLE, prompt, top=2).predictions
    assert [(each["image"], each["labels"], each["none"]) for each in answers] == [
        (each.image, list(each.labels), each.none) for each in together
    ]
    (skipped,) = (each for each in found if "labels" not in each)
    assert skipped.keys() == {"image", "reason"} and os.fsencode(skipped["image"]) == os.fsencode(missing)


def test_answers_come_before_the_last_path(prompt: Path) -> None:
    command = [sys.executable, "-m", "sharpzo_edge", "predict", "--bundle", BUNDLE, "--prompt", prompt, "-"]
    picture = next((TEST / "sport").iterdir())
    with subprocess.Popen(
        list(map(str, command)),
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin and process.stdout
        process.stdin.write(f"{picture}\n".encode() * 200)
        process.stdin.flush()
        assert process.stdout.readline().startswith(str(picture).encode())
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM and b"Stopped by SIGTERM" in said


@pytest.mark.parametrize(
    ("words", "lines", "told"),
    [
        (("-",), b"", "There is no picture in -"),
        (("-",), b"a.png\0b.png\0", "a byte 0"),
        (("x.png", "--json", "--json-lines"), b"", "exclude each other"),
    ],
)
def test_what_cannot_be_used_is_said(words: tuple[str, ...], lines: bytes, told: str, prompt: Path) -> None:
    done = labelled(prompt, *words, lines=lines)
    assert done.returncode == 2 and told in done.stderr.decode()
