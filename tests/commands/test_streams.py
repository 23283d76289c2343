"""Standard streams of any kind, names of any bytes, and an end at any moment."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

import sharpzo_edge
from sharpzo_edge.demo import BUNDLE, TASKS
from sharpzo_edge.wording import printable
from support.file_names import of_any_script
from support.processes import ORIGINAL, clean, start

RUNTIME = Path(sharpzo_edge.__file__).parents[1]
TRAIN = TASKS / "subgroups" / "train"
TUNE = ["tune", "--bundle", BUNDLE, "--preset", "demo", "--max-queries", "40"]
ENVIRONMENT = clean(ORIGINAL) | {"PYTHONPATH": str(RUNTIME)}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "sharpzo_edge", *map(str, arguments)]


@pytest.fixture(scope="module")
def prompt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("prompt") / "prompt.st"
    tuned = command(*TUNE, "--images", TRAIN, "--output", output)
    subprocess.run(tuned, env=ENVIRONMENT, check=True, capture_output=True)
    return output


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1), (0, 1, 2)])
def test_closed_streams_end_nothing_and_get_into_no_file(
    closed: tuple[int, ...], prompt: Path, tmp_path: Path
) -> None:
    def close() -> None:
        for number in closed:
            os.close(number)

    output = tmp_path / "prompt.st"
    tuned = command(*TUNE, "--images", TRAIN, "--output", output, "--json")
    assert subprocess.run(tuned, env=ENVIRONMENT, preexec_fn=close, timeout=120).returncode == 0
    assert output.read_bytes() == prompt.read_bytes()
    assert json.loads((tmp_path / "prompt.st.work" / "run.json").read_bytes())


@of_any_script
@pytest.mark.parametrize(
    "settings",
    [
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
    ],
)
def test_json_can_be_read_whatever_the_encoding(
    settings: dict[str, str], prompt: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "café 猫 🍕.png"
    picture.write_bytes(next((TRAIN / "sport").iterdir()).read_bytes())
    labelled = command("predict", "--bundle", BUNDLE, "--prompt", prompt, picture, "--json")
    done = subprocess.run(labelled, env=ENVIRONMENT | settings, capture_output=True)
    assert done.returncode == 0, done.stderr
    name = json.loads(done.stdout.decode())["predictions"][0]["image"]
    assert os.fsencode(name.encode("utf-8", "surrogateescape")) == os.fsencode(picture)


@of_any_script
def test_a_name_cannot_move_the_cursor(prompt: Path, tmp_path: Path) -> None:
    picture = tmp_path / "a\x1b[2J\nb\u202e.png"
    picture.write_bytes(next((TRAIN / "sport").iterdir()).read_bytes())
    missing = tmp_path / "no\x1b[31m.png"
    labelled = command("predict", "--bundle", BUNDLE, "--prompt", prompt, picture, missing)
    done = subprocess.run(labelled, env=ENVIRONMENT, capture_output=True, text=True)
    assert "\\x1b[2J\\nb\\u202e.png: " in done.stdout and len(done.stdout.splitlines()) == 1
    assert "\x1b" not in done.stdout + done.stderr and "no such file" in done.stderr
    assert printable("café 猫 🍕") == "café 猫 🍕"


def test_predict_prints_as_it_goes_and_tells_what_it_skipped(prompt: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    pictures = [*sorted((TRAIN / "sport").iterdir())[:3], broken] * 40
    labelled = command("predict", "--bundle", BUNDLE, "--prompt", prompt, *pictures)
    with subprocess.Popen(
        labelled, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout
        first = process.stdout.readline()
        assert first.startswith(str(pictures[0])) and process.poll() is None
        assert len(process.stdout.readlines()) == 3 * 40 - 1
    assert process.returncode == 0
    done = subprocess.run([*labelled, "--json"], env=ENVIRONMENT, capture_output=True, text=True)
    result = json.loads(done.stdout)
    assert len(result["predictions"]) == 120 and done.returncode == 0
    assert result["skipped"] == [{"image": str(broken), "reason": "not a picture"}] * 40
    strict = subprocess.run([*labelled, "--strict"], env=ENVIRONMENT, capture_output=True, text=True)
    assert strict.returncode == 1 and len(strict.stdout.splitlines()) == 120
    assert "skipped 40 pictures: not a picture" in strict.stderr or "40 pictures" in strict.stderr


def test_a_reader_that_has_gone_is_one_line(prompt: Path) -> None:
    pictures = sorted((TRAIN / "sport").iterdir()) * 60
    labelled = command("predict", "--bundle", BUNDLE, "--prompt", prompt, *pictures)
    with subprocess.Popen(
        labelled, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stderr
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read().splitlines()
    assert process.returncode == 1
    assert [line for line in said if line.startswith("error:")] == said[-1:] and "has gone" in said[-1]


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (mask,) = [int(line.split()[1], 16) for line in lines if line.startswith("SigCgt")]
    return bool(mask >> (number - 1) & 1)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="handlers are seen in /proc")
@pytest.mark.parametrize("wait", [0.0, 0.02, 0.05, 0.1, 0.2, 0.4])
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_any_moment_is_one_line(by: signal.Signals, wait: float, prompt: Path) -> None:
    """From the moment on when our first line of code runs."""
    code = "import sys; print(flush=True); from sharpzo_edge.__main__ import main; main()"
    pictures = sorted((TRAIN / "sport").iterdir()) * 200
    words = ["predict", "--bundle", BUNDLE, "--prompt", prompt, *pictures, "--json"]
    with start([sys.executable, "-c", code, *words]) as process:
        assert process.stdout
        process.stdout.readline()
        while not catches(process.pid, signal.SIGHUP):  # the last of the three whose handlers are set
            assert process.poll() is None
            time.sleep(0.001)
        time.sleep(wait)
        process.send_signal(by)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + by, err
    (line,) = [line for line in err.splitlines() if line.startswith("error:")]
    assert f"Stopped by {by.name}" in line and "Traceback" not in err
    assert json.loads(out)["error"]["exit_code"] == 128 + by


@pytest.mark.parametrize("columns", [0, 20, 40, 80, 200])
def test_a_redrawn_line_never_wraps(columns: int, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    tuned = command(*TUNE, "--images", TRAIN, "--output", tmp_path / "p")
    with subprocess.Popen(tuned, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 1 << 16)
            except OSError:
                break
            if not part:
                break
            shown += part
    os.close(ours)
    assert process.returncode == 0
    drawn = [part for line in shown.decode().split("\r\n") for part in line.split("\r")[:-1]]
    assert drawn and all(len(part) < (columns or 80) for part in drawn)
    assert max(map(len, drawn)) > 15  # with 0 columns, which a serial line tells, too
