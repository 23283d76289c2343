"""What the commands print, for the pages that explain it: docs/results.md, docs/tuning.md and docs/budget.md.

    python bench/samples.py

Types the commands on the shipped model and pictures. Writes bench/results/samples.json, and the pages between
their markers. The README shows some of these lines; they are put there by hand, and a test compares them.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from shared.command import typed
from shared.machine import ROOT, describe_machine
from shared.pages import keep_results, replace_between, typed_block
from sharpzo_edge.demo import BUNDLE, DEFAULT_TASK, TASKS

RESULTS = ROOT / "bench" / "results" / "samples.json"
DOCS = ROOT / "docs"
PROMPT = "prompt.safetensors"
# As the pages' reader calls them.
LINKS = {"demo-clip": BUNDLE, "photos": TASKS / DEFAULT_TASK / "train", "test": TASKS / DEFAULT_TASK / "test"}
TUNE = ("tune", "--bundle", "demo-clip", "--images", "photos", "--output", PROMPT)
PREDICT = ("predict", "--bundle", "demo-clip", "--prompt", PROMPT, "--top", "2")
# A picture that is labelled rightly, one that is not, and one that is called none of the classes.
PICTURES = ("test/alphanum/1F170.png", "test/clothing/1F454.png", "test/clothing/1F48D.png")
COMMANDS: dict[str, tuple[str, ...]] = {
    "plan": (*TUNE, "--memory-budget", "90MiB", "--plan"),
    "tune": TUNE,
    "predict": (*PREDICT, *PICTURES),
    "predict, JSON": (*PREDICT, "--json-lines", PICTURES[2]),
    "eval": ("eval", "--bundle", "demo-clip", "--images", "test", "--prompt", PROMPT),
    "inspect a prompt": ("inspect", PROMPT),
    "inspect a bundle": ("inspect", "demo-clip"),
    "doctor": ("doctor", "--bundle", "demo-clip"),
}
REFUSED: dict[str, tuple[int, tuple[str, ...]]] = {
    "too small": (3, (*TUNE[:-1], "other.safetensors", "--memory-budget", "60MiB")),
    "error, JSON": (2, ("eval", "--bundle", "demo-clip", "--images", "nope", "--json")),
}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for name, shipped in LINKS.items():
            Path(name).symlink_to(shipped)
        found = {name: typed(*words) for name, words in COMMANDS.items()}
        found |= {name: typed(*words, exit_code=code) for name, (code, words) in REFUSED.items()}
        os.chdir(ROOT)
    results = keep_results({"machine": describe_machine(), "typed": found}, RESULTS)
    for page, parts in pages(results).items():
        for name, text in parts.items():
            replace_between(DOCS / page, name, text)


def pages(results: dict[str, Any]) -> dict[str, dict[str, str]]:
    """The generated parts of each page, by name."""
    found = results["typed"]
    blocks = {name: typed_block(each) for name, each in found.items()}
    said = {name: f"```text\n{found[name]['said']}```" for name in ("tune", "too small")}
    return {
        "results.md": {
            **{name: block for name, block in blocks.items() if name not in ("plan", *REFUSED)},
            "too small": said["too small"],
            "error, JSON": f"```json\n{found['error, JSON']['printed']}```",
        },
        "tuning.md": {"progress": said["tune"]},
        "budget.md": {"plan": blocks["plan"], "too small": said["too small"]},
    }


if __name__ == "__main__":
    main()
