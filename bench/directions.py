"""How long a direction takes beside a query, and a round of edge's stage 2 with tangents beside differences.

    python bench/directions.py [--rounds N] [--threads N ...] [--work DIR]

The text tower of ViT-B-16 with random weights on EuroSAT's ten names, as speed.py has it. Towers take turns
within a round, each in a process of its own. Writes bench/results/directions.json; `speed.py` puts the
section of docs/speed.md together.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from shared.inputs import BUNDLES, exported
from shared.machine import ROOT, describe_machine, one_line
from shared.pages import keep_results, markdown_table, read_results

RESULTS = ROOT / "bench" / "results" / "directions.json"
RANK, TRIALS = 32, 4  # of a round of edge
WAYS = {"resident": "resident", "streamed": "128 MiB"}  # as the results call them, and as the page does
# The most of a query that a direction may take, and of a round with differences that one with tangents may.
TARGETS = {"resident": (0.48, 0.58), "streamed": (0.55, 0.64)}
WAYS_OF_DIRECTIONS = ("int8", "fp32")


def worker_kind() -> type:
    """The process that is measured: speed.py's, with a plan that has tangents."""
    import speed

    class DirectionsWorker(speed.OurWorker):
        def prepare(self, tangents: str, **arguments: Any) -> dict[str, Any]:  # type: ignore[override]
            from sharpzo_edge.search.sketched_descent import Sketch

            type(self).more_work = {"tangents": tangents, "sketches": (Sketch(RANK, 3),)}
            return super().prepare(**arguments)

        def run_directions(self, directions: int) -> float:
            """Seconds for so many directions and the pass that they share, in batches as planned."""
            step = self.plan.tower.batch
            started = time.perf_counter()
            for first in range(0, directions, step):
                some = self.contexts[first : min(first + step, directions)]
                self.tower.class_feature_tangents(self.contexts[0], some, self.prompts)
            return time.perf_counter() - started

        def pass_through(self, tower: Any, candidates: int) -> Any:
            return tower.class_feature_tangents(self.contexts[0], self.contexts[:candidates], self.prompts)

    return DirectionsWorker


def measure(bundle: Path, threads: int, rounds: int) -> list[dict[str, Any]]:
    """Seconds of each way, one figure a round; all ways take turns."""
    import numpy as np

    import speed

    contexts = bundle.parent / "contexts.npy"
    width = json.loads((bundle / "manifest.json").read_text())["text"]["width"]
    shape = (64, speed.N_CONTEXT, width)
    np.save(contexts, np.random.default_rng(0).normal(0, 0.02, shape).astype(np.float32))
    names = speed.names_of(speed.LISTS[0])
    task = {"bundle": str(bundle), "names": names, "threads": threads, "contexts": str(contexts)}
    workers = {
        (way, tangents): speed.Worker("directions", __file__)
        for way in WAYS
        for tangents in WAYS_OF_DIRECTIONS
    }
    plans = {
        key: worker("prepare", **task, way=key[0], tangents=key[1])["plan"] for key, worker in workers.items()
    }
    rows = [
        {"way": way, "tangents": tangents, "threads": threads, "plan": plans[way, tangents]}
        | {"query": [], "trials": [], "one": [], "all": []}
        for way, tangents in workers
    ]
    for _ in range(rounds + 1):  # the first one warms caches
        for row in rows:
            worker = workers[row["way"], row["tangents"]]
            row["query"].append(worker("run", candidates=RANK) / RANK)
            row["trials"].append(worker("run", candidates=TRIALS))
            row["one"].append(worker("run_directions", directions=1))
            row["all"].append(worker("run_directions", directions=RANK))
    for row in rows:
        for name in ("query", "trials", "one", "all"):
            del row[name][0]
        row["profile"] = workers[row["way"], row["tangents"]]("profile", candidates=RANK)
    for worker in workers.values():
        worker.close()
    return rows


def milliseconds(row: dict[str, Any]) -> dict[str, float]:
    """Of a query, a direction, the pass that directions share, a round before and after: the fastest."""
    query, trials, one, every = (1e3 * min(row[name]) for name in ("query", "trials", "one", "all"))
    direction = (every - one) / (RANK - 1)
    return {
        "query": query,
        "direction": direction,
        "shared": one - direction,
        "before": RANK * query + trials,
        "after": every + trials,
    }


def section() -> list[str]:
    """The lines of docs/speed.md."""
    results = read_results(RESULTS)
    rows, checked = [], []
    for row in results["rows"]:
        ms = milliseconds(row)
        about = [WAYS[row["way"]], str(row["threads"]), row["tangents"]]
        rows.append([*about, *(f"{value:.1f}" for value in ms.values())])
        if row["tangents"] == "int8":
            ratios = (ms["direction"] / ms["query"], ms["after"] / ms["before"])
            for what, found, most in zip(("direction", "round"), ratios, TARGETS[row["way"]], strict=True):
                verdict = "met" if found <= most else "**missed**"
                checked.append([*about[:2], what, f"{found:.2f}", f"{most:.2f}", verdict])
    shared = [row for row in results["rows"] if row["tangents"] == "int8"]
    kinds = sorted(
        {kind for row in shared for kind in row["profile"]["ms"]},
        key=lambda kind: -shared[0]["profile"]["ms"].get(kind, 0.0),
    )
    return [
        "## Directions",
        "",
        "A direction is one tangent: how the class features change along it. Measured on EuroSAT's ten,",
        f"with {RANK} directions at one context, as a round of edge asks for them. All share one pass at",
        f"that context. A round before: {RANK} differences and {TRIALS} trials. After: {RANK} tangents with",
        "the pass that they share, and the trials. Milliseconds, of the fastest round. All ways took turns",
        "in one run.",
        "",
        one_line(results["machine"]),
        "",
        *markdown_table(
            [
                "tower",
                "threads",
                "products",
                "a query",
                "a direction",
                "the shared pass",
                "a round before",
                "after",
            ],
            rows,
        ),
        "",
        *markdown_table(["tower", "threads", "of a query, or of before", "found", "target", ""], checked),
        "",
        "What is missed has two reasons. The pass that directions share takes 2 or 3 queries: it is one",
        "context alone, with weights that no session has packed before. And the small operators (all but the",
        "first line of the next table) hardly gain from a second thread; a query is nearly all products.",
        "",
        f"Where a direction's time goes in 8 bits, its share of the shared pass included ({RANK} directions;",
        "the profiler slows small operators):",
        "",
        *markdown_table(
            ["milliseconds a direction", *(f"{WAYS[r['way']]}, {r['threads']}" for r in shared)],
            ([kind, *(f"{row['profile']['ms'].get(kind, 0.0):.2f}" for row in shared)] for kind in kinds),
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", nargs="+", type=int, default=sorted({1, os.cpu_count() or 1}))
    parser.add_argument("--work", type=Path, default=BUNDLES)
    arguments = parser.parse_args()
    bundle = exported("ViT-B-16", "fp32", arguments.work)
    rows = [row for threads in arguments.threads for row in measure(bundle, threads, arguments.rounds)]
    keep_results({"machine": describe_machine(), "rows": rows}, RESULTS)
    print("\n".join(section()))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        import speed

        speed.work({"directions": worker_kind()})
    else:
        main()
