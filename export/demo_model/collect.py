"""Everything that the model's page says, from the files that the recipe left in its work folder."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from shared.machine import describe_machine

from .download import PACKAGES
from .emoji import read_emoji
from .kind import DEMO
from .styles import PACKAGE_OF


def collect(work: Path) -> dict[str, Any]:
    """Everything that the page says, from the files of the work folder."""
    return {
        "machine": describe_machine(),
        "packages": _packages(),
        "pictures": _pictures(work),
        "training": {
            "pictures": _last_line(work / "picture_tower" / "training_pictures.jsonl"),
            "words": _last_line(work / "model" / "training_words.jsonl"),
        },
        "bundle": _bundle(work / "bundle"),
        "tasks": _tasks(work),
    }


def _packages() -> list[dict[str, str]]:
    return [
        {"name": p.name, "version": p.version, "licence": p.licence, "pictures_by": p.pictures_by}
        for p in PACKAGES
    ]


def _pictures(work: Path) -> dict[str, Any]:
    emoji = read_emoji(work / "npm" / "node_modules")
    held = DEMO.held_out(emoji)
    design = {e.hexcode: e.design for e in emoji}
    table = json.loads((work / "pictures" / "pictures.json").read_text(encoding="utf-8"))
    trained = [design[hexcode] for hexcode, style in table if style in DEMO.training_styles]
    trained = [d for d in trained if d not in held]
    count = Counter(style for _, style in table)
    return {
        "emoji": len(emoji),
        "designs": len(set(design.values())),
        "designs_held_out": len(held),
        "styles_trained_on": list(DEMO.training_styles),
        "by_style": {style: count[style] for style in PACKAGE_OF},
        "trained_on": len(trained),
        "designs_trained_on": len(set(trained)),
    }


def _last_line(path: Path) -> dict[str, float]:
    figures: dict[str, float] = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])
    return figures


def _bundle(folder: Path) -> dict[str, Any]:
    manifest = (folder / "manifest.json").read_bytes()
    said = json.loads(manifest)
    return {
        "sha256": hashlib.sha256(manifest).hexdigest(),
        "bytes": sum(path.stat().st_size for path in folder.iterdir()),
        "token_rows": _token_rows(folder),
        "parity": said["parity"],
    }


def _token_rows(folder: Path) -> int:
    return len(np.load(folder / "token_embedding.npy", mmap_mode="r"))


def _tasks(work: Path) -> dict[str, Any]:
    """measure.json, with the numbers of pictures a class."""
    measured = json.loads((work / "measure.json").read_text(encoding="utf-8"))
    sizes = json.loads((work / "tasks" / "tasks.json").read_text(encoding="utf-8"))
    if measured.keys() != sizes.keys():
        raise SystemExit(
            f"measure.json has the tasks {', '.join(measured)}; tasks/ has {', '.join(sizes)}. "
            "Remove measure.json and run the recipe again"
        )
    return {
        task: measured[task] | {"pictures_by_class": sizes[task]["classes"], "bytes": _bytes(work, task)}
        for task in measured
    }


def _bytes(work: Path, task: str) -> int:
    """Of the part that may be shipped."""
    folder = work / "tasks" / task
    return sum(p.stat().st_size for split in ("train", "test") for p in (folder / split).rglob("*.png"))
