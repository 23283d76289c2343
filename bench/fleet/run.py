"""What a fleet costs and saves: bench/results/fleet.json, and docs/fleet.md.

    python -m fleet.run [--work DIR]

Tunes the demo's model, and ViT-B-16 with random weights: alone, by fleets of one and two members with one
core each on this machine, and by simulated fleets. DIR keeps the bundle that is exported. numpy must have one
thread, for the time of a simulated member is that of one: OPENBLAS_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

from shared.class_names import EUROSAT
from shared.inputs import BUNDLES, exported, write_pictures
from shared.machine import describe_machine
from shared.pages import keep_results
from sharpzo_edge.demo import BUNDLE, DEFAULT_TASK, TASKS

from . import measure
from .measure import Task
from .page import PAGE, RESULTS, WIFI, written

MODEL = "ViT-B-16"
REAL = (1, 2)
SIMULATED = {"demo": (1, 4, 16, 64), MODEL: (4, 16)}  # one of ViT-B-16 takes 200 MB here
ROUND_TRIPS = (1, 2, 4, 16, 64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, default=BUNDLES, metavar="DIR")
    given = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        noise = Path(folder, "pictures")
        write_pictures(noise, EUROSAT)
        tasks = {
            "demo": Task(BUNDLE, TASKS / DEFAULT_TASK / "train", 600),
            MODEL: Task(exported(MODEL, "fp32", given.work), noise, 300),
        }
        trips = measure.round_trips(ROUND_TRIPS)
        models = {name: measured(name, task, trips["seconds"]) for name, task in tasks.items()}
    machine = describe_machine()
    keep_results({"round_trips": trips, "models": models, "load": load, "machine": machine}, RESULTS)
    PAGE.write_text(written(), encoding="utf-8")


def measured(name: str, task: Task, trips: dict[str, float]) -> dict[str, Any]:
    """Of one model: tune alone, real fleets, and simulated ones."""
    found: dict[str, Any] = {"alone": measure.alone(task), "real": {}, "simulated": {}}
    for n in REAL:
        print(f"{name}, a fleet of {n}", flush=True)
        found["real"][str(n)] = measure.by_fleet(task, n, trips[str(n)])
    for n in SIMULATED[name]:
        print(f"{name}, a simulated fleet of {n}", flush=True)
        found["simulated"][str(n)] = measure.simulated(task, n, WIFI, trips[str(n)])
    return found


if __name__ == "__main__":
    main()
