"""Run `sharpzo-edge demo` with seeds 0, 1 and 2, and write the README's table.

    python bench/demo.py

Writes bench/results/demo.json, and the README between its markers.
"""

from __future__ import annotations

import statistics
from typing import Any

from shared.command import command
from shared.machine import ROOT, describe_machine
from shared.pages import keep_results, replace_between

RESULTS = ROOT / "bench" / "results" / "demo.json"
README = ROOT / "README.md"
SEEDS = (0, 1, 2)


def main() -> None:
    runs = [command("demo", "--seed", seed) for seed in SEEDS]
    results = {"machine": describe_machine(), "seeds": SEEDS, "runs": runs}
    replace_between(README, "demo", table(keep_results(results, RESULTS)))


def table(results: dict[str, Any]) -> str:
    runs, machine = results["runs"], results["machine"]

    def cells(key: str, form: str, scale: float = 1.0) -> str:
        values = [scale * (run["by"] | run)[key] for run in runs]
        return " | ".join(form.format(v) for v in [*values, statistics.fmean(values)])

    first = runs[0]
    header = " | ".join([f"seed {seed}" for seed in results["seeds"]] + ["mean"])
    return "\n".join(
        [
            f"| {first['n_classes']} classes, {first['n_images']} held-out pictures | {header} |",
            "|---" * (len(runs) + 2) + "|",
            f"| accuracy of the words alone (zero-shot) | {cells('words', '{:.1f} %', 100)} |",
            f"| accuracy of the tuned prompt | {cells('prompt', '{:.1f} %', 100)} |",
            f"| **accuracy of the head, which `predict` uses** | {cells('head', '{:.1f} %', 100)} |",
            f"| accuracy of prompt and head | {cells('both', '{:.1f} %', 100)} |",
            f"| queries (passes of the text tower) | {cells('queries', '{:,.0f}')} |",
            f"| seconds, pictures to result | {cells('seconds', '{:.0f}')} |",
            f"| peak RSS, Python included | {cells('peak_rss_mib', '{:.0f} MiB')} |",
            "",
            f"Measured on {machine['cores']} cores of an {machine['cpu']} ({machine['architecture']}), "
            f"onnxruntime {machine['versions']['onnxruntime']}, commit {machine['commit']}.",
        ]
    )


if __name__ == "__main__":
    main()
