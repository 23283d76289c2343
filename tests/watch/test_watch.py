"""`sharpzo-edge watch`, as it is typed: streams that break off, end and come back; outputs that fail."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import sharpzo_edge
from shared.broker import HAS_MOSQUITTO, Listener, Mosquitto
from shared.waiting import until
from sharpzo_edge import predict, tune
from sharpzo_edge.demo import BUNDLE, TASKS
from sharpzo_edge.errors import UsageError
from sharpzo_edge.requests import WatchRequest
from sharpzo_edge.watch.watching import watch_request
from support.processes import ORIGINAL, clean, run

RUNTIME = Path(sharpzo_edge.__file__).parents[1]
PICTURES = sorted((TASKS / "subgroups" / "test").glob("*/*.png"))[::9]


def jpeg(path: Path) -> bytes:
    data = BytesIO()
    with Image.open(path) as picture:
        picture.convert("RGB").save(data, "JPEG", quality=95)
    return data.getvalue()


@pytest.fixture(scope="module")
def prompt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("watch") / "prompt.safetensors"
    tune(BUNDLE, TASKS / "subgroups" / "train", path, preset="head", shots=4, val=0)
    return path


class Watch:
    """A watch that runs. lines: what it printed so far;  said: and on standard error"""

    def __init__(self, process: subprocess.Popen[str], folder: Path):
        self.process, self._folder = process, folder

    @property
    def lines(self) -> list[dict[str, Any]]:
        text = (self._folder / "lines").read_text()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    @property
    def said(self) -> str:
        return (self._folder / "said").read_text()


@contextmanager
def watching(prompt: Path, folder: Path, *words: object, out: Path | None = None) -> Iterator[Watch]:
    folder.mkdir(exist_ok=True)
    command = ["watch", "--bundle", BUNDLE, "--prompt", prompt, "--threads", 1, "--steady", 1, *words]
    with (out or folder / "lines").open("wb") as lines, (folder / "said").open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "sharpzo_edge", *map(str, command)],
            stdin=subprocess.PIPE,
            stdout=lines,
            stderr=said,
            env=clean(ORIGINAL) | {"PYTHONPATH": str(RUNTIME)},
        )
        with process:
            try:
                yield Watch(process, folder)
            finally:
                process.kill()


def finished(watch: Watch, code: int = 0) -> None:
    assert watch.process.wait(120) == code, watch.said


def test_a_stream_is_labelled_as_predict_does(prompt: Path, tmp_path: Path) -> None:
    """Each picture comes when the one before was labelled; between them are some that broke off."""
    frames = [jpeg(path) for path in PICTURES[:6]]
    for i, frame in enumerate(frames):
        (tmp_path / f"{i}.jpg").write_bytes(frame)
    expected = predict(sorted(tmp_path.glob("*.jpg")), BUNDLE, prompt).predictions
    with watching(prompt, tmp_path / "out", "--answers", "-") as watch:
        stream = watch.process.stdin
        assert stream
        for i, frame in enumerate(frames):
            stream.write(b"--between" + frame[: -10 * i] + frame)
            stream.flush()
            answers = until(lambda i=i: [a for a in watch.lines if a["event"] == "answer"][i:])
            assert answers[0]["label"] == ("none" if expected[i].none else expected[i].labels[0])
            assert answers[0]["scores"] == pytest.approx(expected[i].scores, abs=1e-5)
        stream.write(b"\xff\xd8\xff\xe0\x00\x02\xff\xd9")  # whole by its markers, and no picture
        stream.close()
        finished(watch)
        changes = [line["label"] for line in watch.lines if line["event"] == "change"]
    labels = [answer.labels[0] for answer in expected]
    assert changes == [b for a, b in zip([None, *labels], labels, strict=False) if a != b]
    assert watch.said.splitlines()[-1] == "the stream has ended: 6 pictures labelled, 0 skipped, 6 broken"
    assert "waited for" not in watch.said


def test_a_stream_without_a_jpeg_is_told_as_such(prompt: Path) -> None:
    done = run("watch", "--bundle", BUNDLE, "--prompt", prompt, "-")
    assert "0 broken; it held no JPEG\n" in done.stderr and not done.stdout


def test_of_many_pictures_the_newest_is_labelled(prompt: Path, tmp_path: Path) -> None:
    with watching(prompt, tmp_path, "--answers", "--every", "0.5", "-") as watch:
        watch.process.communicate(b"".join(map(jpeg, PICTURES)) * 20, timeout=120)
        assert watch.process.returncode == 0
    last = watch.lines[-1]
    assert last["skipped"] > 0 and last["broken"] == 0
    summary = f"{last['pictures']} pictures labelled, {20 * len(PICTURES) - last['pictures']:,} skipped"
    assert summary in watch.said


def test_a_pipe_may_be_left_and_opened_again(prompt: Path, tmp_path: Path) -> None:
    pipe, unsure = tmp_path / "pipe", tmp_path / "unsure"
    os.mkfifo(pipe)
    with watching(prompt, tmp_path / "out", "--answers", "--save-unsure", unsure, pipe) as watch:
        until(lambda: "nothing writes into it" in watch.said)
        for i in (1, 2):
            pipe.write_bytes(jpeg(PICTURES[0]) + b"\xff\xd8\xff")  # a writer that is cut off
            until(lambda i=i: len([a for a in watch.lines if a["event"] == "answer"]) == i)
        pipe.unlink()
        until(lambda: "No such file or directory" in watch.said)
        watch.process.terminate()
        finished(watch, 143)
    assert sorted(line["event"] for line in watch.lines) == ["answer", "answer", "change"]
    assert "Stopped by SIGTERM. 2 pictures labelled" in watch.said
    (kept,) = unsure.iterdir()
    assert kept.read_bytes() == jpeg(PICTURES[0])


def test_a_folder_that_goes_and_comes_is_watched_on(prompt: Path, tmp_path: Path) -> None:
    place = tmp_path / "new"
    place.mkdir()
    shutil.copy(PICTURES[0], place / "old.png")
    with watching(prompt, tmp_path / "out", "--answers", place) as watch:
        until(lambda: f"watching {place}" in watch.said)
        place.rename(tmp_path / "away")
        until(lambda: "No such file" in watch.said)
        (tmp_path / "away").rename(place)
        until(lambda: "again" in watch.said)
        shutil.copy(PICTURES[1], place / "new.png")
        (answer, *_) = until(lambda: watch.lines)
        assert answer["image"] == str(place / "new.png")


def test_a_full_standard_output_ends_nothing(prompt: Path, tmp_path: Path) -> None:
    with watching(prompt, tmp_path, "-", out=Path("/dev/full")) as watch:
        watch.process.communicate(jpeg(PICTURES[0]), timeout=120)
        assert watch.process.returncode == 0
    assert "not written to standard output (No space left on device)" in watch.said


def test_it_ends_when_nobody_reads_what_it_finds(prompt: Path, tmp_path: Path) -> None:
    read, write = os.pipe()
    with watching(prompt, tmp_path, "-", out=Path(f"/dev/fd/{write}")) as watch:
        os.close(write)
        os.close(read)
        stream = watch.process.stdin
        assert stream
        stream.write(jpeg(PICTURES[0]))
        stream.flush()
        finished(watch, 1)
    assert "The reader of standard output has gone" in watch.said


@pytest.mark.skipif(not HAS_MOSQUITTO, reason="there is no mosquitto here: apt install mosquitto")
def test_it_tells_a_broker_and_reads_its_password(prompt: Path, tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, Listener(broker.port) as heard:
        address = f"mqtt://pi@127.0.0.1:{broker.port}/camera"
        with watching(prompt, tmp_path / "out", "--mqtt", address, "-") as watch:
            stream = watch.process.stdin
            assert stream
            stream.write(jpeg(PICTURES[0]))
            stream.flush()
            until(lambda: "camera/state" in heard.now and "camera/attributes" in heard.now)
            until(lambda: heard.now.get("camera/availability") == "online")
            stream.close()
            finished(watch)
        until(lambda: heard.now["camera/availability"] == "offline")
        (line,) = watch.lines
        assert heard.json("camera/attributes").items() <= line.items()
        assert heard.now["camera/state"] == line["label"]


def test_without_its_library_mqtt_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "sharpzo_edge.watch.mqtt", raising=False)
    monkeypatch.delattr("sharpzo_edge.watch.mqtt", raising=False)
    monkeypatch.setitem(sys.modules, "paho.mqtt.client", None)
    with pytest.raises(UsageError, match=r"needs the extra \[mqtt\], and paho is not .* '\.\[mqtt\]'"):
        watch_request(WatchRequest(tempfile.gettempdir(), BUNDLE, "never read", mqtt="mqtt://host/a"))


def test_its_own_pictures_are_not_watched(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--save-unsure is the folder that is watched"):
        watch_request(WatchRequest(tmp_path, BUNDLE, "never read", save_unsure=f"{tmp_path}/."))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere"], "SOURCE nowhere is not there"),
        (["-", "--every", "-1"], "--every -1.0 cannot be"),
        (["-", "--steady", "0"], "--steady 0 is too small"),
        (["-", "--mqtt", "http://host/a"], "it begins with http://"),
        (["-", "--mqtt", "mqtt://host"], "its end is no beginning of a topic"),
        (["-", "--mqtt", "mqtt:///a"], "it names no host"),
        (["-", "--mqtt", "mqtt://me:secret@host/a"], "--mqtt holds a password"),
        (["-", "--mqtt", "mqtt://me@host/a", "--mqtt-password-file", "nowhere"], "The password file nowhere"),
        (["-", "--mqtt-binary-sensors"], "options of MQTT, and no broker"),
    ],
)
def test_what_cannot_be_is_refused(words: list[str], says: str) -> None:
    known = {"--every": "every", "--steady": "steady", "--mqtt": "mqtt"}
    given: dict[str, Any] = {"source": words[0], "bundle": BUNDLE, "prompt": "never read"}
    rest = iter(words[1:])
    for word in rest:
        name = known.get(word, word.removeprefix("--").replace("-", "_"))
        given[name] = True if word == "--mqtt-binary-sensors" else next(rest)
    given |= {name: kind(given[name]) for name, kind in (("every", float), ("steady", int)) if name in given}
    with pytest.raises(UsageError, match=says):
        watch_request(WatchRequest(**given))
