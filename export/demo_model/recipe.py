"""The whole recipe: `python -m demo_model.recipe --work DIR`, with export/ on the Python path.

Every step is skipped when its result is there; remove a result to make it again. It takes torch,
open_clip_torch, pillow, resvg-py, and npm with its registry.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sharpzo_edge.errors import SharpzoError
from sharpzo_export.write_bundle import export

from .architecture import TOKENS_FILE, WEIGHTS_FILE
from .download import DownloadError, attribution
from .emoji import Emoji
from .kind import DEMO, Kind
from .measure import measure
from .prepare import prepare, step
from .styles import PACKAGE_OF
from .tasks import ATTRIBUTION_FILE, TaskError
from .train_pictures import Settings as PictureSettings
from .train_pictures import train_pictures
from .train_words import Settings as WordSettings
from .train_words import train_words
from .words import PLAIN_WORDS

PICTURES_SHARE = 0.8  # of the training time
HELD_OUT_FILE = "held_out_hexcodes.json"


def make(work: Path, minutes: float | None = None) -> None:
    """Leave work/model (open_clip's local-dir form), work/tasks, work/bundle, work/measure.json and .md."""
    emoji = prepare(work)
    names = [*PLAIN_WORDS, *dict.fromkeys(e.subgroup.replace("-", " ") for e in emoji)]
    make_model(DEMO, work, emoji, names, work, minutes=minutes)
    step(work / "measure.json", "measure", lambda: measure(work, work / "model", work / "tasks"))
    print((work / "measure.md").read_text(encoding="utf-8"), end="", flush=True)


def make_model(
    kind: Kind,
    work: Path,
    emoji: list[Emoji],
    names: list[str],
    target: Path,
    *,
    minutes: float | None = None,
    seed: int = 0,
    threads: int = 2,
) -> None:
    """Train a model on the pictures in `work`, and leave target/model and target/bundle.

    names:   words that get rows in its token table, whether or not a caption holds them
    minutes: the training ends in this time; None: when all its steps are done
    """
    tower, model = target / "picture_tower" / "picture_tower.safetensors", target / "model"
    for_pictures = PictureSettings(seed=seed, threads=threads)
    for_words = WordSettings(seed=seed, threads=threads)
    if minutes:
        for_pictures = replace(for_pictures, minutes=minutes * PICTURES_SHARE)
        for_words = replace(for_words, minutes=minutes * (1 - PICTURES_SHARE))
    _train(tower, "train the picture tower", lambda: train_pictures(work, emoji, kind, tower, for_pictures))
    _train(
        model / WEIGHTS_FILE,
        "train the text tower",
        lambda: train_words(work, emoji, kind, names, tower, model, for_words),
    )
    step(model / ATTRIBUTION_FILE, "attribution", lambda: _write_notes(kind, model, emoji))
    step(target / "bundle", "bundle", lambda: _export(kind, model, target / "bundle"))


def _train(result: Path, name: str, run: Callable[[], object]) -> None:
    """Checkpoints are no result: a training counts as done when its marker is there."""
    done = result.with_suffix(".done")

    def run_and_mark() -> None:
        run()
        done.touch()

    step(done, name, run_and_mark)


def _export(kind: Kind, model: Path, output: Path) -> None:
    """With rows for the trained tokens alone, and parity proved. The folder's name is the model's."""
    with tempfile.TemporaryDirectory() as place:
        named = shutil.copytree(model, Path(place) / kind.name)
        export(f"local-dir:{named}", None, output, vocabulary=named / TOKENS_FILE)


def _write_notes(kind: Kind, model: Path, emoji: list[Emoji]) -> None:
    """Beside the weights: what they were learnt from, and what was held out."""
    held = kind.held_out(emoji)
    hexcodes = [e.hexcode for e in emoji if e.design in held]
    (model / HELD_OUT_FILE).write_text(json.dumps(hexcodes), encoding="utf-8")
    text = attribution(
        [PACKAGE_OF[style] for style in kind.training_styles],
        "the pictures were rendered at 64 x 64 pixels, augmented, and a network was trained on them; the "
        "network holds no picture",
    )
    (model / ATTRIBUTION_FILE).write_text(
        f"# What the {kind.name} model was trained on\n\n{text}\nCaptions: labels and keywords of "
        "emojibase-data and emojilib (MIT), group names of Unicode's emoji list (Unicode License v3).\n\n"
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
    except (DownloadError, TaskError, SharpzoError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
