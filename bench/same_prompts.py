"""Do two versions of sharpzo-edge make the same prompt files, byte for byte?

    python bench/same_prompts.py BEFORE AFTER

BEFORE and AFTER are two `sharpzo-edge` commands, each in a virtual environment of its own. Both run the
same tunes on the demo's bundle and pictures. The prompt files must have the same bytes, and the JSON that
tune, eval, predict and inspect print must be the same, apart from times and memory. Prints one line for
each case, and ends with exit code 1 when one differs.

`make same-prompts BEFORE=REVISION` prepares both environments.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

DEMO = Path(__file__).parents[1] / "runtime" / "sharpzo_edge" / "demo"
BUNDLE, TASK = DEMO / "bundle", DEMO / "tasks" / "subgroups"
MEASURED = (
    *("seconds", "likely_seconds", "peak_rss_mib", "queries_per_second", "pictures_per_second"),
    "prompt",  # a path
)
WORDS = {"alphanum": "a letter or a digit", "sport": "sports"}

CASES: dict[str, str] = {
    "edge": "",
    "demo, one thread": "--preset demo --threads 1 --seed 2",
    "edge with a head and views": "--seed 1 --shots 4 --head gda --views 2",
    "edge, projected and pruned": "--dim 64 --prune-ratio 0.5 --prune-interval 2 --max-queries 600",
    "edge, streamed": "--memory-budget 90MiB --max-queries 300",
    "edge, no budget": "--memory-budget none --max-queries 300",
    "edge, nothing validated": "--val 0 --context-init drawing --max-queries 500",
    "edge, random context": "--context-tokens 3 --rank 8 --kept-rounds 1 --change-point auto"
    " --max-queries 800",
    "edge, other words": "--class-names words.json --rho 0 --label-smoothing 0 --max-queries 400",
    "edge, stage 2 alone": "--change-point 0 --patience 2",
    "edge, one query": "--max-queries 1",
    "edge, stage 1 alone": "--max-queries 100",
    "paper": "--preset paper --dim 16 --population 8 --change-point 3 --steps 400 --prune-interval 100",
    "paper, a limit": "--preset paper:dtd --dim 16 --population 8 --change-point 2 --max-queries 300",
    "paper, diagonal": "--preset paper:pets --dim 32 --covariance diagonal --bounds 5 --change-point 4"
    " --steps 150 --prune-ratio 0",
    "paper, automatic": "--preset paper --dim 8 --change-point auto --steps 900 --patience 3 --eta 0.1",
}


def run(command: str, *arguments: str, folder: Path) -> dict[str, Any]:
    """What the command prints with --json, without what is measured."""
    done = subprocess.run([command, *arguments, "--json"], cwd=folder, capture_output=True, text=True)
    try:
        printed: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise SystemExit(f"{command} {' '.join(arguments)} printed no JSON:\n{done.stderr}") from None
    return {key: value for key, value in printed.items() if key not in MEASURED}


def results(command: str, options: str, folder: Path) -> dict[str, Any]:
    """By what it is: the prompt's bytes, and what each command prints."""
    (folder / "words.json").write_text(json.dumps(WORDS))
    tune = [
        "tune",
        "--bundle",
        str(BUNDLE),
        "--images",
        str(TASK / "train"),
        "--output",
        "prompt.safetensors",
    ]
    with_prompt = ["--bundle", str(BUNDLE), "--prompt", "prompt.safetensors"]
    pictures = [str(path) for path in sorted((TASK / "test" / "sport").iterdir())[:3]]
    return {
        "plan": run(command, *tune, *options.split(), "--plan", folder=folder),
        "tune": run(command, *tune, *options.split(), folder=folder),
        "prompt": (folder / "prompt.safetensors").read_bytes(),
        "eval": run(command, "eval", *with_prompt, "--images", str(TASK / "test"), folder=folder),
        "predict": run(command, "predict", *with_prompt, *pictures, folder=folder),
        "inspect": run(command, "inspect", "prompt.safetensors", folder=folder),
    }


def main(before: str, after: str) -> int:
    n_different = 0
    for name, options in CASES.items():
        with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
            old, new = results(before, options, Path(first)), results(after, options, Path(second))
        different = [what for what in old if old[what] != new[what]]
        n_different += bool(different)
        print(f"{'different' if different else 'same':10}{name:32}{', '.join(different)}", flush=True)
    print(f"{len(CASES) - n_different} same, {n_different} different")
    return 1 if n_different else 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
