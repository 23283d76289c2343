"""What a fleet loses because it looks at its linear model once a round: a table of docs/fleet-guide.md.

    python bench/one_look.py

The demo's model and pictures, preset edge. Every seed is run twice on the same pictures, in one process: with
the linear model, as `tune` minimises it, and with its value, gradient and curvature at the centre alone, as a
fleet does. Nothing is chosen by these figures.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from shared.machine import ROOT, describe_machine, one_line
from shared.pages import keep_results, markdown_table, replace_between
from sharpzo_edge.commands.evaluate import evaluate
from sharpzo_edge.commands.tune import tune_or_repeat
from sharpzo_edge.demo import BUNDLE, DEFAULT_TASK, TASKS
from sharpzo_edge.fleet.pooled import Pooled
from sharpzo_edge.requests import TuneRequest
from sharpzo_edge.search.gauss_newton import LinearModel, quadratic_model
from sharpzo_edge.search.sketched_descent import ModelOf

PAGE = ROOT / "docs" / "fleet-guide.md"
RESULTS = ROOT / "bench" / "results" / "one_look.json"
MODELS: dict[str, ModelOf] = {
    "the linear model, as tune": LinearModel,
    "one look at it, as a fleet": quadratic_model,
}
SEEDS = (0, 1, 2)
QUERIES = 1_000


def run(model: str, seed: int, folder: Path) -> dict[str, Any]:
    task, prompt = TASKS / DEFAULT_TASK, folder / f"{seed} {model}"
    request = TuneRequest(
        BUNDLE, task / "train", prompt, seed=seed, head="none", max_queries=QUERIES, threads=1
    )
    found, _ = tune_or_repeat(request, Pooled([task / "train"], MODELS[model]))
    accuracy = evaluate(BUNDLE, task / "test", prompt=prompt, use="prompt", threads=1).accuracy
    return {
        "model": model,
        "seed": seed,
        "queries": found.queries,
        "train_loss": found.train_loss,
        "val_loss": found.val_loss,
        "accuracy": accuracy,
    }


def table(results: dict[str, Any]) -> list[str]:
    rows = []
    for model in MODELS:
        runs = [each for each in results["runs"] if each["model"] == model]
        queries, train, val, accuracy = (
            np.array([each[name] for each in runs])
            for name in ("queries", "train_loss", "val_loss", "accuracy")
        )
        cells = [f"{queries.mean():,.0f}", f"{train.mean():.3f}", f"{val.mean():.3f}"]
        rows.append([model, *cells, f"{100 * accuracy.mean():.1f} ± {100 * accuracy.std():.1f} %"])
    header = [
        "in a round",
        "queries",
        "loss on the shots",
        "on validation pictures",
        "accuracy of the prompt",
    ]
    return [
        *markdown_table(header, rows),
        "",
        f"Means of {len(SEEDS)} seeds, on the demo's pictures, within {QUERIES:,} queries. "
        f"{one_line(results['machine'])}",
    ]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        runs = [run(model, seed, Path(folder)) for seed in SEEDS for model in MODELS]
    results = keep_results({"machine": describe_machine(), "runs": runs}, RESULTS)
    replace_between(PAGE, "one look", "\n".join(table(results)))


if __name__ == "__main__":
    main()
