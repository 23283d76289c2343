"""How long a query takes: ours, resident and within 128 MiB, beside torch with and without a shared context.

    python -m speed.run [--parts PART ...] [--lists NAME ...] [--rounds N] [--threads N ...] [--work DIR]
                        [--no-write]

ViT-B-16 with random weights in float32. Ways take turns within a round, each in a process of its own that
waits while another runs, on the same number of threads; they answer the same contexts, and the answers are
compared. The other part is directions beside queries. Writes bench/results/speed.json and directions.json,
and docs/speed.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from shared.inputs import BUNDLES, exported
from shared.machine import describe_machine
from shared.pages import keep_results, read_results

from . import directions, queries
from .page import PAGE, RESULTS, page, written
from .task import LISTS, MODEL

ROUNDS = {"queries": 5, "directions": 7}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=[*RESULTS], choices=[*RESULTS])
    parser.add_argument("--lists", nargs="+", default=LISTS, choices=LISTS)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--threads", nargs="+", type=int, help="cores, and 1 for the shortest list")
    parser.add_argument("--work", type=Path, default=BUNDLES)
    parser.add_argument("--no-write", action="store_true", help="print the page; leave results as they are")
    given = parser.parse_args()
    bundle = exported(MODEL, "fp32", given.work)
    found = {part: read_results(path) for part, path in RESULTS.items()}
    machine = describe_machine()
    for part in given.parts:
        rounds = given.rounds or ROUNDS[part]
        if part == "queries":
            rows = _queries(bundle, given.lists, given.threads, rounds)
        else:
            threads = given.threads or sorted({1, os.cpu_count() or 1})
            rows = [row for n in threads for row in directions.measure(bundle, n, rounds)]
        results = {"machine": machine, "rows": rows}
        found[part] = json.loads(json.dumps(results))
        if not given.no_write:
            keep_results(results, RESULTS[part])
    if given.no_write:
        print(page(found["queries"], found["directions"]))
    else:
        PAGE.write_text(written(), encoding="utf-8")


def _queries(bundle: Path, lists: list[str], threads: list[int] | None, rounds: int) -> list[dict[str, Any]]:
    cores, rows = os.cpu_count() or 1, []
    for which in lists:
        usual = {cores, 1} if which == LISTS[0] else {cores}
        for n in threads or sorted(usual, reverse=True):
            rows.append(queries.measure(which, bundle, n, rounds))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


if __name__ == "__main__":
    main()
