"""What a tune takes: peak memory seen from outside, seconds a query, smallest budget; torch beside it.

    python -m memory.run [--models NAME ...] [--classes N ...] [--parts PART ...] [--work DIR]
                         [--add | --no-write]

The paper's backbones with random weights. Every tune is the command a user types, in a process of its own,
with 16 pictures of 12 megapixels for each of 10 classes; watched from outside, never from within. With more
classes only the first passes of pictures are encoded, and random features stand for the rest. The head is
measured on 16 pictures for each of 1,000 classes.
Writes bench/results/memory.json and docs/memory.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from shared.inputs import BUNDLES, exported
from shared.machine import describe_machine, with_versions_of
from shared.pages import keep_results, read_results

from .page import PAGE, RESULTS, label, page, written
from .tunes import edge_tune, head_tune, plain_way, seconds_a_query, smallest_budget, tune, under_a_limit
from .watching import floor

# (model, weights, MiB of budget for the tune); ViT-L-14 with the budget that it was promised.
MODELS = (
    ("ViT-B-16", "fp32", 128),
    ("ViT-B-16", "int8", 128),
    ("ViT-B-16", "int4", 128),
    ("RN50", "fp32", 128),
    ("RN101", "fp32", 128),
    ("ViT-B-32", "fp32", 128),
    ("ViT-L-14", "fp32", 160),
)
CLASSES = (10, 100, 1000)
PARTS = ("tunes", "smallest", "sharpness", "edge", "head", "cgroup", "torch")
SHARPNESS_QUERIES = 1070  # a generation of the paper's stage 1, with its sweep at d = 512
# A generation of edge, and rounds of its stage 2 until all columns are there: where it is tried.
EDGE_QUERIES = {("ViT-B-16", 10): 220, ("ViT-B-16", 100): 220, ("ViT-B-16", 1000): 60, ("RN50", 1000): 60}
HEADS = (("RN50", 1000), ("ViT-B-16", 1000))  # the widest image features, and the model that most have


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    labels = [label(model, weights) for model, weights, _ in MODELS]
    parser.add_argument("--models", nargs="+", default=labels, choices=labels)
    parser.add_argument("--classes", nargs="+", type=int, default=CLASSES, choices=CLASSES)
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--work", type=Path, default=BUNDLES)
    parser.add_argument(
        "--add", action="store_true", help="keep what there is of other models, classes and parts"
    )
    parser.add_argument("--no-write", action="store_true", help="print the page; leave results as they are")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    machine = describe_machine()
    rows: dict[tuple[str, str, int], dict[str, Any]] = {}
    described = machine
    if arguments.add:
        stored = read_results(RESULTS)
        rows = {row_key(row): row for row in stored["rows"]}
        described = with_versions_of(machine, stored["machine"])
    results: dict[str, Any] = {"machine": described, "floor_mib": floor(arguments.work), "rows": []}
    wanted = [each for each in MODELS if label(*each[:2]) in arguments.models]
    for n_classes in arguments.classes:
        for model, weights, budget in wanted:
            if n_classes == 10 or weights == "fp32":
                bundle = exported(model, weights, arguments.work)
                row = measure(bundle, model, weights, n_classes, budget, arguments)
                print(json.dumps(row), file=sys.stderr, flush=True)
                before = rows.get(row_key(row), {})
                commits = [*before.get("commit", "").split(", "), machine["commit"]]
                commit = ", ".join(dict.fromkeys(filter(None, commits)))
                rows[row_key(row)] = before | row | {"commit": commit}
                results["rows"] = list(rows.values())
                if not arguments.no_write:
                    write(results)
    if arguments.no_write:
        print(page(json.loads(json.dumps(results))))


def row_key(row: dict[str, Any]) -> tuple[str, str, int]:
    return row["model"], row["weights"], row["classes"]


def write(results: dict[str, Any]) -> None:
    """Results and page, after every row: the rest of the hour may be lost."""
    order = [each[:2] for each in MODELS]
    results["rows"].sort(key=lambda row: (order.index((row["model"], row["weights"])), row["classes"]))
    commits = (commit for row in results["rows"] for commit in row["commit"].split(", "))
    results["machine"]["commit"] = ", ".join(dict.fromkeys(commits))
    keep_results(results, RESULTS)
    PAGE.write_text(written(), encoding="utf-8")


def measure(
    bundle: Path, model: str, weights: str, n_classes: int, budget: int, arguments: argparse.Namespace
) -> dict[str, Any]:
    """One backbone and number of classes: the parts that were asked for."""
    folder, parts = arguments.work, arguments.parts
    row: dict[str, Any] = {"model": model, "weights": weights, "classes": n_classes, "budget_mib": budget}
    row["smallest_mib"] = smallest_budget(bundle, n_classes, folder)
    budget = row["budget_mib"] = max(budget, row["smallest_mib"])
    if "tunes" in parts:
        row["tune"] = summary(tune(bundle, n_classes, budget, folder))
    queries = EDGE_QUERIES.get((model, n_classes))
    if "edge" in parts and weights == "fp32" and queries is not None:
        row["edge"] = summary(edge_tune(bundle, n_classes, budget, folder, queries))
    if "head" in parts and weights == "fp32" and (model, n_classes) in HEADS:
        row["head"] = summary(head_tune(bundle, n_classes, budget, folder))
    if n_classes > 10:
        # A query of torch's on 1,000 classes takes a minute: of one model.
        if "torch" in parts and weights == "fp32" and (n_classes < 1000 or model == "ViT-B-16"):
            row["torch"] = plain_way(model, n_classes, folder)
        return row
    if "smallest" in parts and model == "ViT-B-16":
        row["at_the_smallest"] = summary(tune(bundle, n_classes, row["smallest_mib"], folder))
    if "sharpness" in parts and (model, weights) == ("ViT-B-16", "fp32"):
        run = tune(bundle, n_classes, budget, folder, rho=0.1, max_queries=SHARPNESS_QUERIES)
        row["with_sharpness"] = summary(run)
    if "cgroup" in parts and (model, weights) == ("ViT-B-16", "fp32"):
        row["cgroup"] = under_a_limit(bundle, budget, folder)
    if "torch" in parts and weights == "fp32":
        row["torch"] = plain_way(model, n_classes, folder)
    return row


def summary(run: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a tune."""
    if run["returncode"]:
        raise SystemExit(f"a tune failed: {run['said']}")
    answer = run["answer"]
    return {
        "peak_mib": run["peak_mib"],
        "reported_mib": answer["peak_rss_mib"],
        "planned_mib": answer["plan"]["peak_mib"],
        "planned_phases_mib": answer["plan"]["phases_mib"],
        "plan": {key: answer["plan"][key] for key in ("text", "image", "chunk_rows", "sketch")},
        "phases": run["phases"],
        "queries": answer["queries"],
        "seconds_a_query": seconds_a_query(run),
        "wall_seconds": run["wall_seconds"],
    }


if __name__ == "__main__":
    main()
