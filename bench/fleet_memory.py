"""What a member of a fleet takes, seen from outside: a table of docs/fleet-guide.md.

    python bench/fleet_memory.py --bundle DIR

DIR: a bundle of ViT-B-16. One member with the demo's pictures in ten classes, and a run of edge with one
generation, some rounds and heads. The peak is Linux's VmHWM of the member's process. Writes
bench/results/fleet_memory.json.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

from shared.machine import ROOT, describe_machine, one_line
from shared.pages import keep_results, markdown_table, replace_between
from sharpzo_edge.demo import DEFAULT_TASK, TASKS
from sharpzo_edge.fleet.demo import member_beside, scheduler_beside
from sharpzo_edge.fleet.tune import fleet_tune
from sharpzo_edge.process_memory import MIB, sizes_of
from sharpzo_edge.requests import FleetTuneRequest

PAGE = ROOT / "docs" / "fleet-guide.md"
RESULTS = ROOT / "bench" / "results" / "fleet_memory.json"
BUDGETS_MIB = (192, 124)  # the default, and about the least that is possible
QUERIES = 114  # the beginning, a generation and two rounds


def measure(bundle: Path, budget_mib: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        images = folder / "board"
        shutil.copytree(TASKS / DEFAULT_TASK / "train", images)
        budget = ("--memory-budget", f"{budget_mib}MiB")
        with (
            scheduler_beside(folder, print) as address,
            member_beside(images, bundle, address, *budget, say=print) as member,
        ):
            request = FleetTuneRequest(
                bundle,
                output=folder / "prompt",
                scheduler=address,
                shots=4,
                val=1,
                change_point=1,
                max_queries=QUERIES,
                tangents="fp32",
            )
            result, _ = fleet_tune(request)
            peak = sizes_of(member.pid)["VmHWM"] / MIB
    return {"budget_mib": budget_mib, "peak_mib": round(peak, 1), "queries": result.tuned.queries}


def table(results: dict[str, Any]) -> list[str]:
    rows = [[f"{run['budget_mib']} MiB", f"{run['peak_mib']:.0f} MiB"] for run in results["runs"]]
    return [
        *markdown_table(["`--memory-budget` of a member", "peak of its process"], rows),
        "",
        f"{results['model']}, 10 classes of 5 pictures, {results['runs'][0]['queries']} queries, heads. "
        f"{one_line(results['machine'])}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR")
    bundle = parser.parse_args().bundle
    runs = [measure(bundle, budget) for budget in BUDGETS_MIB]
    results = {"machine": describe_machine(), "model": "ViT-B-16", "runs": runs}
    replace_between(PAGE, "memory", "\n".join(table(keep_results(results, RESULTS))))


if __name__ == "__main__":
    main()
