"""Show `sharpzo-edge watch` at work: pictures arrive in a folder, and a broker on this machine hears of them.

    python bench/watch_demo.py [--page]

A head is made of the demo's pictures without one class. That class's pictures are strangers, and should be
called none. Everything lies in a temporary folder. Needs mosquitto, and the extra [mqtt]. With --page, what
was printed goes into docs/at-work.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from shared.broker import HAS_MOSQUITTO, Listener, Mosquitto
from shared.machine import ROOT
from shared.pages import replace_between
from shared.waiting import until
from sharpzo_edge import tune
from sharpzo_edge.demo import BUNDLE, DEFAULT_TASK, TASKS
from sharpzo_edge.wording import percent, shortened

TASK = TASKS / DEFAULT_TASK
STRANGERS = "animal_mammal"
KNOWN_PICTURES, STRANGE_PICTURES = 1, 4  # of each class
LONGEST = 60  # characters of a message that are shown
PAGE = ROOT / "docs" / "at-work.md"
SAID: list[str] = []


def main() -> None:
    if not HAS_MOSQUITTO:
        sys.exit("error: there is no mosquitto here. Type: sudo apt install mosquitto")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--page", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sharpzo-edge-watch-") as folder:
        n_none = show(Path(folder))
    say(f"{n_none} of {STRANGE_PICTURES} strangers were called none")
    if given.page:
        replace_between(PAGE, "watch-demo", "\n".join(["```text", *SAID, "```"]))
    raise SystemExit(n_none == 0)


def say(line: str) -> None:
    SAID.append(line)
    print(line, flush=True)


def show(folder: Path) -> int:
    """Returns how many strangers were called none."""
    shutil.copytree(TASK / "train", folder / "photos", ignore=shutil.ignore_patterns(STRANGERS))
    say(f"a head for all classes of the demo but {STRANGERS} is made")
    tune(BUNDLE, folder / "photos", folder / "prompt", preset="head", threads=1)
    new = folder / "new"
    new.mkdir()
    with Mosquitto(folder) as broker, Listener(broker.port) as heard:
        told = f"mqtt://127.0.0.1:{broker.port}/demo/camera"
        words = ["watch", "--bundle", BUNDLE, "--prompt", folder / "prompt", "--answers", "--steady", 1]
        words += ["--threads", 1, "--mqtt", told, new]
        say("$ sharpzo-edge watch --bundle demo-clip --prompt prompt --steady 1 --mqtt mqtt://… new")
        with (folder / "said").open("wb") as said:
            watch = subprocess.Popen(
                [sys.executable, "-m", "sharpzo_edge", *map(str, words)], stdout=subprocess.PIPE, stderr=said
            )
        try:
            until(lambda: b"watching" in (folder / "said").read_bytes())
            return sum(arrive(picture, new, watch, heard) for picture in pictures())
        finally:
            watch.terminate()
            watch.wait()
            until(lambda: heard.now.get("demo/camera/availability") == "offline")
            print_messages(heard)


def pictures() -> list[Path]:
    """One or more of each class, the strangers last."""
    folders = sorted((TASK / "test").iterdir(), key=lambda folder: (folder.name == STRANGERS, folder.name))
    found = []
    for folder in folders:
        files = sorted(folder.glob("*.png"))
        n = STRANGE_PICTURES if folder.name == STRANGERS else KNOWN_PICTURES
        found += files[:: len(files) // n][:n]
    return found


def arrive(picture: Path, new: Path, watch: subprocess.Popen[bytes], heard: Listener) -> bool:
    """A picture comes; returns whether it is a stranger that was called none."""
    kind = picture.parent.name
    shutil.copy(picture, new / f"{kind}-{picture.name}")
    answer = next_line(watch)
    score = f"{percent(answer['score'])} {answer['labels'][0]}"
    say(f"{kind}-{picture.name} arrives: {answer['label']} ({score})")
    if answer["label"] != heard.now.get("demo/camera/state"):
        next_line(watch)  # the change
        until(lambda: heard.now.get("demo/camera/state") == answer["label"])
    print_messages(heard)
    return kind == STRANGERS and bool(answer["none"])


def next_line(watch: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert watch.stdout
    found: dict[str, Any] = json.loads(watch.stdout.readline())
    return found


def print_messages(heard: Listener) -> None:
    """What came since the last call; but the attributes, which hold the line of JSON."""
    while heard.messages:
        topic, message = heard.messages.pop(0)
        if topic.endswith("/attributes"):
            continue
        is_json = message.startswith("{")
        shown = f"JSON: {', '.join(json.loads(message))}" if is_json else message
        say(f"    broker: {topic}  {shortened(shown, LONGEST)}")


if __name__ == "__main__":
    main()
