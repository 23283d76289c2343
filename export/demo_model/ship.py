"""Put a finished recipe's bundle and its first task into the package: `python -m demo_model.ship --work DIR`.

Only the pictures in the user's own style go along: the shifted styles have other licences, and `prepare`
renders them where they are wanted.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from sharpzo_edge.clip.bundle import MERGES_FILE, Bundle
from sharpzo_edge.errors import SharpzoError

from .tasks import ATTRIBUTION_FILE, TASKS, write_attribution

DEMO = Path(__file__).parents[2] / "runtime" / "sharpzo_edge" / "demo"
SPLITS = ("train", "test")


class ShipError(Exception):
    """The work folder holds no finished recipe."""


def ship(work: Path, demo: Path) -> None:
    """Replace demo/bundle and demo/tasks, and write demo/ATTRIBUTION.md."""
    task = work / "tasks" / TASKS[0].name
    for needed in (work / "bundle", work / "model" / ATTRIBUTION_FILE, *(task / split for split in SPLITS)):
        if not needed.exists():
            raise ShipError(
                f"{needed} is missing. Shipping takes a work folder that the recipe has filled. "
                f"Type first: make demo-model WORK={work}"
            )
    Bundle.open(work / "bundle").verify()
    new = demo / ".new"
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(work / "bundle", new / "bundle")
    for split in SPLITS:
        shutil.copytree(task / split, new / "tasks" / task.name / split)
    write_attribution(new / "tasks" / task.name, shifted=False)
    for name in ("bundle", "tasks"):
        shutil.rmtree(demo / name, ignore_errors=True)
        (new / name).rename(demo / name)
    new.rmdir()
    of_the_model = (work / "model" / ATTRIBUTION_FILE).read_text(encoding="utf-8")
    (demo / ATTRIBUTION_FILE).write_text(_attribution(of_the_model), encoding="utf-8")


def _attribution(of_the_model: str) -> str:
    """of_the_model: the file that the recipe wrote beside the weights."""
    return (
        "# Where the embedded default comes from\n\n"
        "- `tasks/`: pictures of Twemoji, CC BY 4.0; see the ATTRIBUTION.md of each task.\n"
        f"- `bundle/{MERGES_FILE}`: the merges of CLIP's tokeniser (MIT, Copyright (c) 2021 OpenAI).\n"
        "- all else in `bundle/`: a small CLIP, trained from nothing; see below.\n\n"
        f"#{of_the_model}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Put the recipe's results into the package.")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="the recipe's work folder")
    try:
        ship(parser.parse_args().work, DEMO)
    except (ShipError, SharpzoError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
