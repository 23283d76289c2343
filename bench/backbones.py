"""Export and tune every backbone of the paper, ViT-L-14 and an odd model, with random weights.

Shows that the whole way works on the true architectures, how closely the exported graphs follow torch,
and what a query costs. Accuracy means nothing here: the weights are random.

    python bench/backbones.py [--models NAME ...]

Writes bench/results/backbones.json and the table in docs/backbones.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import describe_machine

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "backbones.json"
TABLE = HERE.parent / "docs" / "backbones.md"
MODELS = ("RN50", "RN101", "ViT-B-16-quickgelu", "ViT-B-32", "ViT-L-14", "odd")
EUROSAT = (
    "annual crop land",
    "forest",
    "herbaceous vegetation land",
    "highway or road",
    "industrial buildings",
    "pasture land",
    "permanent crop land",
    "residential buildings",
    "river",
    "sea or lake",
)
QUERIES = 120
ODD = {
    "embed_dim": 96,
    "vision_cfg": {
        "image_size": [60, 84],
        "patch_size": 12,
        "layers": 3,
        "width": 120,
        "head_width": 40,
        "mlp_ratio": 3.0,
        "ls_init_value": 0.1,
        "pool_type": "avg",
        "final_ln_after_pool": True,
    },
    "text_cfg": {
        "context_length": 40,
        "vocab_size": 49408,
        "width": 112,
        "heads": 7,
        "layers": 5,
        "mlp_ratio": 2.5,
        "proj_bias": True,
        "ls_init_value": 0.1,
    },
    "custom_text": True,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    models = parser.parse_args().models
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder) / "pictures")
        for model in models:
            rows.append(measure(model, Path(folder)))
            print(json.dumps(rows[-1]), flush=True)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps({"machine": describe_machine(), "rows": rows}, indent=1) + "\n")
    TABLE.write_text(table(json.loads(RESULTS.read_text())))


def measure(model: str, folder: Path) -> dict[str, Any]:
    """Export, tune for QUERIES queries, evaluate: the commands a user types, in processes of their own."""
    bundle, prompt = folder / model, folder / f"{model}.safetensors"
    name = model
    if model == "odd":
        config = folder / "odd-model"
        config.mkdir()
        (config / "open_clip_config.json").write_text(json.dumps({"model_cfg": ODD, "preprocess_cfg": {}}))
        name = f"local-dir:{config}"
    started = time.monotonic()
    exported = command("export", "--model", name, "--pretrained", "none", "--output", bundle)
    export_seconds = time.monotonic() - started
    tuned = command(
        *("tune", "--bundle", bundle, "--images", folder / "pictures", "--output", prompt),
        *("--preset", "paper", "--shots", 2, "--val", 0, "--memory-budget", "none"),
        *("--rho", 0, "--change-point", 1, "--max-queries", QUERIES),
    )
    evaluated = command("eval", "--bundle", bundle, "--images", folder / "pictures", "--prompt", prompt)
    assert evaluated["n_images"] == 2 * len(EUROSAT)
    row = {
        "model": model,
        "bundle_mb": round(sum(p.stat().st_size for p in bundle.iterdir()) / 1e6),
        "parity": exported["parity"],
        "export_seconds": round(export_seconds, 1),
        "queries": tuned["queries"],
        "seconds_a_query": round(tuned["seconds"] / tuned["queries"], 4),
        "peak_rss_mib": tuned["peak_rss_mib"],
        "zero_shot_train_loss": tuned["zero_shot_train_loss"],
        "train_loss": tuned["train_loss"],
    }
    for path in bundle.iterdir():
        path.unlink()
    return row


def command(*arguments: object) -> dict[str, Any]:
    """A command of ours in a process of its own; what --json prints."""
    done = subprocess.run(
        [sys.executable, "-m", "sharpzo_edge.cli", *map(str, arguments), "--json"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def write_pictures(folder: Path) -> None:
    """Two pictures of noise for every EuroSAT class."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in EUROSAT:
        (folder / name.replace(" ", "_")).mkdir(parents=True)
        for i in range(2):
            noise = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            Image.fromarray(noise).resize((320, 240)).save(folder / name.replace(" ", "_") / f"{i}.png")


def table(results: dict[str, Any]) -> str:
    machine = results["machine"]
    lines = [
        "# Backbones, exported and tuned with random weights",
        "",
        "Generated by `make bench-backbones`. The largest differences from torch are of pictures' unit",
        "features, and of class features computed the ordinary way over all positions. A query is one",
        f"pass of the text tower over EuroSAT's {len(EUROSAT)} class names. Peak RSS is of a whole `tune`",
        "with every tower resident (`--memory-budget none`), Python included.",
        "",
        f"{machine['cpu']}, {machine['cores']} cores; "
        + ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
        + f"; commit {machine['commit']}.",
        "",
        "| model | bundle | image features | class features | streamed | s a query | peak RSS |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in results["rows"]:
        p = row["parity"]
        lines.append(
            f"| {row['model']} | {row['bundle_mb']} MB | {p['image_features']:.1e} "
            f"| {p['class_features']:.1e} | {p['class_features_streamed']:.1e} "
            f"| {row['seconds_a_query']:.3f} | {row['peak_rss_mib']:.0f} MiB |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
