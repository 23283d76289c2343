"""The whole recipe: `python -m demo_model.recipe --work DIR`, with export/ on the Python path.

Every step is skipped when its result is there; remove a result to make it again. It takes torch,
open_clip_torch, pillow, resvg-py, and npm with its registry.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from .architecture import WEIGHTS_FILE
from .download import PACKAGES, DownloadError, attribution, check, download
from .emoji import Emoji, read_emoji
from .measure import measure
from .render import PACKAGES_OF_TRAINING, TABLE_FILE, render
from .split import held_out_designs
from .tasks import TABLE_FILE as TASKS_TABLE
from .tasks import TaskError, write_tasks
from .train_pictures import Settings as PictureSettings
from .train_pictures import train_pictures
from .train_words import Settings as WordSettings
from .train_words import train_words
from .words import PLAIN_WORDS

PICTURES_SHARE = 0.8  # of the training time
ATTRIBUTION_FILE, HELD_OUT_FILE = "ATTRIBUTION.md", "held_out_hexcodes.json"


def make(work: Path, minutes: float | None = None) -> None:
    """Leave work/model (open_clip's local-dir form), work/tasks, work/measure.json and .md."""
    node_modules = work / "npm" / "node_modules"
    _step(node_modules / PACKAGES[-1].name, "download", lambda: download(work / "npm"))
    check(node_modules)
    emoji = read_emoji(node_modules)
    _step(work / "pictures" / TABLE_FILE, "render", lambda: render(node_modules, emoji, work / "pictures"))
    _step(work / "tasks" / TASKS_TABLE, "tasks", lambda: write_tasks(work, emoji, work / "tasks"))
    names = [*PLAIN_WORDS, *dict.fromkeys(e.subgroup.replace("-", " ") for e in emoji)]
    tower, model = work / "picture_tower" / "picture_tower.safetensors", work / "model"
    for_pictures, for_words = PictureSettings(), WordSettings()
    if minutes:
        for_pictures = replace(for_pictures, minutes=minutes * PICTURES_SHARE)
        for_words = replace(for_words, minutes=minutes * (1 - PICTURES_SHARE))
    _train(tower, "train the picture tower", lambda: train_pictures(work, emoji, tower, for_pictures))
    _train(
        model / WEIGHTS_FILE,
        "train the text tower",
        lambda: train_words(work, emoji, names, tower, model, for_words),
    )
    _step(model / ATTRIBUTION_FILE, "attribution", lambda: _write_notes(model, emoji))
    _step(work / "measure.json", "measure", lambda: measure(work, model, work / "tasks"))


def _step(result: Path, name: str, run: Callable[[], object]) -> None:
    if result.exists():
        print(f"{name}: {result} is there", flush=True)
    else:
        print(f"{name} ...", flush=True)
        run()


def _train(result: Path, name: str, run: Callable[[], object]) -> None:
    """Checkpoints are no result: a training counts as done when its marker is there."""
    done = result.with_suffix(".done")

    def run_and_mark() -> None:
        run()
        done.touch()

    _step(done, name, run_and_mark)


def _write_notes(model: Path, emoji: list[Emoji]) -> None:
    """Beside the weights: what they were learnt from, and what was held out."""
    held = held_out_designs(emoji)
    hexcodes = [e.hexcode for e in emoji if e.design in held]
    (model / HELD_OUT_FILE).write_text(json.dumps(hexcodes), encoding="utf-8")
    text = attribution(
        PACKAGES_OF_TRAINING,
        "the pictures were rendered at 64 x 64 pixels, augmented, and a network was trained on them; the "
        "network holds no picture",
    )
    (model / ATTRIBUTION_FILE).write_text(
        f"# What the demo model was trained on\n\n{text}\nCaptions: labels and keywords of emojibase-data "
        "and emojilib (MIT), group names of Unicode's emoji list (Unicode License v3).\n\n"
        "Made by export/demo_model.\n",
        encoding="utf-8",
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the embedded demo model and its tasks.")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="where the results go")
    parser.add_argument(
        "--minutes", type=float, metavar="M", help="end the training in this time (default: all)"
    )
    options = parser.parse_args()
    try:
        make(options.work, options.minutes)
    except (DownloadError, TaskError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
