"""docs/textile.md: from a folder of pictures to a result, on the task textile with the shipped model.

    python bench/textile.py [--work DIR]

Types the page's commands and keeps what they print; then compares the ways to label over three seeds, with
few pictures and with many. Downloads the pictures. Writes bench/results/textile.json, and docs/textile.md
between its markers.
"""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path
from typing import Any

from accuracy.harness.textile import textile_task
from shared.command import command, typed
from shared.machine import ROOT, describe_machine, one_line
from shared.pages import keep_results, markdown_table, mean_and_spread, replace_between, typed_block
from sharpzo_edge.demo import BUNDLE
from sharpzo_edge.tuning.answers import USES

RESULTS = ROOT / "bench" / "results" / "textile.json"
PAGE = ROOT / "docs" / "textile.md"
SEEDS = (0, 1, 2)
MODEL, PICTURES, PROMPT = "demo-clip", "cloth", "cloth.safetensors"  # as the page's reader calls them
# Shots and validation pictures a class, and the options that say so.
OPTIONS: dict[str, tuple[str, ...]] = {"16 + 4": (), "80 + 20": ("--shots", "80", "--val", "20")}
HOLE = "cloth with a small hole"
WAYS = ("the words", "the prompt", "the head", "prompt and head")  # of USES, as the commands say it


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "textile", metavar="DIR")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    task = textile_task((given.work / PICTURES).absolute())
    os.chdir(given.work)
    Path(MODEL).unlink(missing_ok=True)
    Path(MODEL).symlink_to(BUNDLE)
    pictures = [files[0].relative_to(Path.cwd()) for files in task.splits["test"].files]
    commands = {
        "tune": ["--images", f"{PICTURES}/train", "--output", PROMPT],
        "eval": ["--images", f"{PICTURES}/test", "--prompt", PROMPT],
        "predict": ["--prompt", PROMPT, "--top", "2", *map(str, pictures)],
    }
    Path(PROMPT).unlink(missing_ok=True)
    results = {
        "machine": describe_machine(),
        "typed": {name: typed(name, "--bundle", MODEL, *rest) for name, rest in commands.items()},
        "by": {
            pictures: [measured(options, seed) for seed in SEEDS] for pictures, options in OPTIONS.items()
        },
    }
    for name, text in parts(keep_results(results, RESULTS)).items():
        replace_between(PAGE, name, text)


def measured(options: tuple[str, ...], seed: int) -> dict[str, Any]:
    """A tune with other options and its eval."""
    other = "other.safetensors"
    tuned = command(
        *("tune", "--bundle", MODEL, "--images", f"{PICTURES}/train", "--output", other, "--restart"),
        *("--seed", seed, *options),
    )
    test = command("eval", "--bundle", MODEL, "--images", f"{PICTURES}/test", "--prompt", other)
    return {"tune": {key: tuned[key] for key in ("use", "queries")}, "eval": test}


def parts(results: dict[str, Any]) -> dict[str, str]:
    """The generated parts of the page, by name."""
    blocks = {name: typed_block(each) for name, each in results["typed"].items()}
    return blocks | {"ways": f"{table(results)}\n\n{one_line(results['machine'])}"}


def table(results: dict[str, Any]) -> str:
    rows = []
    for pictures, runs in results["by"].items():
        ways = (mean_and_spread([100 * run["eval"]["by"][use] for run in runs]) for use in USES)
        holes = mean_and_spread([100 * run["eval"]["per_class"][HOLE] for run in runs])
        queries = statistics.fmean(run["tune"]["queries"] for run in runs)
        rows.append([pictures, *ways, holes, f"{queries:,.0f}"])
    header = ["shots + validation, a class", *WAYS, "holes found, way in use", "queries"]
    return "\n".join(markdown_table(header, rows))


if __name__ == "__main__":
    main()
