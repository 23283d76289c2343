"""What rounding the linear layers to 8 or 4 bits costs and saves: accuracy, files, memory, speed.

Accuracy is the demo model's, on the recipe's tasks (DIR is its work folder: make demo-model WORK=DIR); size,
memory and speed are those of ViT-B-16 with random weights. Run in the environment that exports.

    python bench/precision.py --work DIR [--seeds N]

Writes bench/results/precision.json and docs/precision.md.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from shared.class_names import EUROSAT
from shared.command import command
from shared.inputs import write_pictures
from shared.machine import ROOT, describe_machine
from shared.pages import keep_results, markdown_table

RESULTS = ROOT / "bench" / "results" / "precision.json"
PAGE = ROOT / "docs" / "precision.md"
PRECISIONS = ("fp32", "int8", "int4")
TASKS = ("subgroups", "nouns", "subgroups_medium")
LARGE = "ViT-B-16-quickgelu"
BUDGETS = ("none", "128MiB")
DROP_CACHES = Path("/proc/sys/vm/drop_caches")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="the demo recipe's work folder")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    small, large = {}, {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        pictures = folder / "pictures"
        write_pictures(pictures, EUROSAT)
        for precision in PRECISIONS:
            small[precision] = demo_model(options.work, folder, precision, options.seeds)
            print(json.dumps(small[precision]), flush=True)
            large[precision] = large_model(folder, pictures, precision)
            print(json.dumps(large[precision]), flush=True)
    results = {"machine": describe_machine(), "seeds": options.seeds, "small": small, "large": large}
    PAGE.write_text(page(keep_results(results, RESULTS)), encoding="utf-8")


def demo_model(work: Path, folder: Path, precision: str, n_seeds: int) -> dict[str, Any]:
    """Zero-shot and tuned accuracy in percent on the held-out pictures of every task."""
    bundle = folder / f"demo-{precision}"
    model = work / "model"
    about = command(
        "export", "--model", f"local-dir:{model}", "--output", bundle, "--weights", precision,
        "--vocabulary", model / "trained_token_ids.json",
    )  # fmt: skip
    tasks = {}
    for name in TASKS:
        task = work / "tasks" / name
        zero_shot = command("eval", "--bundle", bundle, "--images", task / "test")["accuracy"]
        tuned = []
        for seed in range(n_seeds):
            prompt = folder / f"{name}-{precision}-{seed}.safetensors"
            command(
                "tune", "--bundle", bundle, "--images", task / "train", "--output", prompt,
                "--preset", "demo", "--seed", str(seed),
            )  # fmt: skip
            found = command("eval", "--bundle", bundle, "--images", task / "test", "--prompt", prompt)
            tuned.append(100 * found["accuracy"])
        tasks[name] = {"zero_shot": 100 * zero_shot, "tuned": tuned}
    return {"file_mb": megabytes(bundle), "parity": about["parity"], "tasks": tasks}


def large_model(folder: Path, pictures: Path, precision: str) -> dict[str, Any]:
    """Sizes, the smallest budget, and how fast its towers run, by the command that plans a tuning run."""
    bundle = folder / f"large-{precision}"
    about = command(
        "export", "--model", LARGE, "--pretrained", "none", "--output", bundle, "--weights", precision
    )
    output = folder / "none.safetensors"
    job = ("tune", "--bundle", bundle, "--images", pictures, "--output", output, "--preset", "paper")
    refused = subprocess.run(
        [sys.executable, "-m", "sharpzo_edge", *map(str, job), "--memory-budget", "1MiB"],
        capture_output=True,
        text=True,
    )
    smallest = int(re.findall(r"--memory-budget (\d+)MiB", refused.stderr)[-1])
    speed = {}
    for budget in (*BUDGETS, f"{smallest}MiB"):
        found = command(*job, "--plan", "--memory-budget", budget)
        speed[budget if budget in BUDGETS else "smallest"] = {
            "queries_per_second": found["queries_per_second"],
            "pictures_per_second": found["pictures_per_second"],
            "peak_mib": found["plan"]["peak_mib"],
            "text": found["plan"]["text"],
            "image": found["plan"]["image"],
        }
    prompt = folder / f"{precision}.safetensors"
    tuned = command(
        "tune", "--bundle", bundle, "--images", pictures, "--output", prompt, "--max-queries", "66",
        "--preset", "paper", "--rho", "0", "--memory-budget", f"{smallest}MiB",
    )  # fmt: skip
    return {
        "files_mb": {part: (bundle / f"{part}.data").stat().st_size / 1e6 for part in ("text", "image")},
        "parity": about["parity"],
        "smallest_mib": smallest,
        "peak_rss_mib": tuned["peak_rss_mib"],
        "speed": speed,
        "pass_seconds": cold_and_warm(bundle),
    }


def cold_and_warm(bundle: Path) -> dict[str, float] | None:
    """Seconds to read the text tower's weights, page cache dropped and full; None where it may not be."""
    try:
        subprocess.run(["sync"], check=True)
        DROP_CACHES.write_text("1")
    except OSError:
        return None
    return {"cold": reading_seconds(bundle / "text.data"), "warm": reading_seconds(bundle / "text.data")}


def reading_seconds(path: Path) -> float:
    started = time.monotonic()
    with path.open("rb", buffering=0) as file:
        while file.read(1 << 22):
            pass
    return time.monotonic() - started


def megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.iterdir()) / 1e6


def page(results: dict[str, Any]) -> str:
    small, large, machine = results["small"], results["large"], results["machine"]

    def row(label: str, values: list[str]) -> list[str]:
        return [label, *values]

    def cosine(figures: dict[str, Any], stage: str) -> list[str]:
        return [
            f"{figures[p]['parity'].get(f'{stage}_features_cosine_to_fp32', 1.0):.4f}" for p in PRECISIONS
        ]

    accuracy = [
        row(
            f"{task}: zero-shot → tuned",
            [
                f"{small[p]['tasks'][task]['zero_shot']:.1f} → "
                f"{statistics.fmean(small[p]['tasks'][task]['tuned']):.1f} %"
                for p in PRECISIONS
            ],
        )
        for task in TASKS
    ]
    speeds = [
        row(
            f"{what} a second, {budget if budget != 'none' else 'no budget'}",
            [f"{large[p]['speed'][budget][f'{what}_per_second']:.1f}" for p in PRECISIONS],
        )
        for what in ("queries", "pictures")
        for budget in (*BUDGETS, "smallest")
    ]
    reads = [large[p]["pass_seconds"] for p in PRECISIONS]
    reading = (
        [
            row(f"text weights read once, {kind}", [f"{r[kind]:.3f} s" for r in reads])
            for kind in ("cold", "warm")
        ]
        if all(reads)
        else []
    )
    rows = [
        row("demo model: bundle, MB", [f"{small[p]['file_mb']:.1f}" for p in PRECISIONS]),
        row("smallest cosine to fp32, classes", cosine(small, "class")),
        row("smallest cosine to fp32, pictures", cosine(small, "image")),
        *accuracy,
        row(
            f"{LARGE}: text, image weights, MB",
            [f"{large[p]['files_mb']['text']:.0f}, {large[p]['files_mb']['image']:.0f}" for p in PRECISIONS],
        ),
        row("smallest cosine to fp32, classes (random weights)", cosine(large, "class")),
        row("smallest cosine to fp32, pictures (random weights)", cosine(large, "image")),
        row("smallest accepted budget, MiB", [str(large[p]["smallest_mib"]) for p in PRECISIONS]),
        row(
            "peak RSS of a tuning run within it, MiB", [f"{large[p]['peak_rss_mib']:.0f}" for p in PRECISIONS]
        ),
        *speeds,
        *reading,
    ]
    lines = [
        "# Precision of the weights",
        "",
        "`export --weights int8` or `int4` rounds the matrices of the linear layers, in blocks of 32 with a",
        "scale and a zero point each. Everything else stays float32, activations above all: so a loss is as",
        "smooth as before, and finite differences see no steps. (Tangents in 8 bits are another matter:",
        "[method.md](method.md#stage-2-go-downhill).)",
        "",
        *markdown_table(["", *PRECISIONS], rows),
        "",
        f"Accuracy: the demo preset, held-out pictures, mean of {results['seeds']} seeds. Speeds: ten class",
        "names of EuroSAT, all threads, by `tune --plan`.",
        f"Measured on {machine['cores']} cores of an {machine['cpu']}, onnxruntime "
        f"{machine['versions']['onnxruntime']}, commit {machine['commit']}.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
