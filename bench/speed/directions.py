"""How long a direction takes beside a query, and a round of edge's stage 2 with tangents beside differences.

On EuroSAT's ten names. Towers take turns within a round.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .task import LISTS, task_of
from .workers import RANK, Worker

TRIALS = 4  # of a round of edge
WAYS = {"resident": "resident", "streamed": "128 MiB"}  # as the results call them, and as the page does


def measure(bundle: Path, threads: int, rounds: int) -> list[dict[str, Any]]:
    """Seconds of each way, one figure a round; all ways take turns."""
    task = task_of(LISTS[0], bundle, threads)
    workers = {(way, tangents): Worker("directions") for way in WAYS for tangents in ("int8", "fp32")}
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
