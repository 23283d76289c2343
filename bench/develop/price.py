"""Edge's rank, kept rounds and trials at the price of tangents, on development tasks.

    python -m develop.price --work DIR [--models NAME ...] [--seeds 0]

A direction in 8 bits takes less time than a context, so the best shape of a round may be another. Every
candidate runs until it has spent as much as so many contexts take, by PRICES. Runs that are in DIR/price
already are kept. Writes bench/results/develop/price.json, and a table of docs/development.md.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from shared.machine import ROOT, describe_machine, one_line
from shared.pages import keep_results, markdown_table, replace_between
from sharpzo_edge.search import sketched_descent
from sharpzo_edge.search.losses import logits_of
from sharpzo_edge.tuning.loop import Update
from sharpzo_edge.tuning.objective import Evaluation, Objective
from sharpzo_edge.tuning.presets import EDGE
from sharpzo_edge.tuning.stopping import is_better

from .data import MODELS, TASKS, drawn, pictures_of, tuned
from .jobs import Job, kept

PAGE = ROOT / "docs" / "development.md"
RESULTS = ROOT / "bench" / "results" / "develop" / "price.json"
# In units of a context's pass: a direction (measured of bare graphs), and the pass that a sketch's directions
# share (a guess, which whole towers do not reach: docs/speed.md).
PRICES = {"int8": (0.42, 1.3), "none": (1.0, 0.0)}
MOMENTS = (250, 500, 1_000)
SPLITS = ((16, 4), (4, 4))  # shots and validation pictures a class
FOUR = sketched_descent.FACTORS
CANDIDATES: dict[str, dict[str, Any]] = {
    "differences, rank 32, 3 kept": {"tangents": "none"},
    "rank 32, 3 kept": {},
    "rank 16, 7 kept": {"rank": 16, "kept_rounds": 7},
    "rank 48, 2 kept": {"rank": 48, "kept_rounds": 2},
    "rank 64, 1 kept": {"rank": 64, "kept_rounds": 1},
    "rank 64, 3 kept": {"rank": 64, "kept_rounds": 3},
    "rank 32, trials 1/2, 1, 2": {"trials": (0.5, 1.0, 2.0)},
}


class Meter:
    """Adds up what an objective was asked for, in units of a context's pass."""

    def __init__(self, tangents: str):
        self._direction, self._primal = PRICES[tangents]
        self.spent = 0.0

    def watching(self, objective: type[Objective]) -> Any:
        """While it lasts, objectives of this class are metered."""
        features, tangents = objective.class_features, objective.tangents

        def metered_features(own: Objective, points: Any) -> Any:
            self.spent += len(points)
            return features(own, points)

        def metered_tangents(own: Objective, centre: Any, directions: Any) -> Any:
            before = self.spent
            found = tangents(own, centre, directions)
            self.spent = before + self._direction * len(directions) + self._primal * centre.is_new
            return found

        return mock.patch.multiple(objective, class_features=metered_features, tangents=metered_tangents)


def run(job: Job) -> dict[str, Any]:
    """The best evaluation by validation at each moment: its loss on the shots, and its test accuracy."""
    found = drawn(job.work, job.model, job.task, job.seed)
    parts = slice(0, job.shots), slice(job.shots, job.shots + job.n_val)
    train, val = (pictures_of(found.classes, [part] * len(found.classes)) for part in parts)
    scale, test = found.bundle.manifest.logit_scale, found.tests["test"]
    changes = dict(CANDIDATES[job.candidate])
    trials = changes.pop("trials", FOUR)
    changes = dict[str, Any](tangents="int8", patience=0) | changes
    settings = dataclasses.replace(EDGE, **changes)
    meter = Meter(settings.tangents)
    best: dict[int, Evaluation] = {}

    def see(update: Update) -> None:
        latest = update.state.latest
        for most in MOMENTS:
            if meter.spent <= most and (most not in best or is_better(latest, best[most])):
                best[most] = latest
        if meter.spent > MOMENTS[-1]:
            raise SpentError

    with (
        meter.watching(Objective),
        mock.patch.object(sketched_descent, "FACTORS", trials),
        contextlib.suppress(SpentError),
    ):
        tuned(found.bundle, found.task.class_names, settings, train, val, job.seed, None, see)

    def accuracy(e: Evaluation) -> float:
        logits = logits_of(test.features[:], e.class_features, scale)
        return float((logits.argmax(axis=1) == test.labels).mean())

    return {
        "loss": {str(most): e.train.loss for most, e in best.items()},
        "test": {str(most): accuracy(e) for most, e in best.items()},
    }


class SpentError(Exception):
    """The last moment has passed."""


def figures(runs: dict[Job, dict[str, Any]]) -> list[dict[str, Any]]:
    """For each split and candidate the means over models, tasks and seeds."""
    rows = []
    for (shots, n_val), candidate in itertools.product(SPLITS, CANDIDATES):
        wanted = shots, n_val, candidate
        some = [found for job, found in runs.items() if (job.shots, job.n_val, job.candidate) == wanted]
        row: dict[str, Any] = {"split": f"{shots} + {n_val}", "candidate": candidate, "runs": len(some)}
        for most in map(str, MOMENTS):
            row[f"test at {most}"] = round(100 * float(np.mean([r["test"][most] for r in some])), 2)
            row[f"loss at {most}"] = round(float(np.mean([r["loss"][most] for r in some])), 3)
        rows.append(row)
    return rows


def write_page(results: dict[str, Any]) -> None:
    header = ["shots + validation", "candidate", "runs"]
    header += [f"{what}, {most:,}" for what in ("accuracy", "loss") for most in MOMENTS]
    rows = [
        [
            row["split"],
            row["candidate"],
            str(row["runs"]),
            *(f"{row[f'test at {most}']:.1f}" for most in MOMENTS),
            *(f"{row[f'loss at {most}']:.2f}" for most in MOMENTS),
        ]
        for row in results["rows"]
    ]
    replace_between(
        PAGE, "price", "\n".join([*markdown_table(header, rows), "", one_line(results["machine"])])
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    given = parser.parse_args()
    jobs = [
        Job(given.work, model, task, shots, n_val, candidate, seed)
        for seed, (shots, n_val), task, model, candidate in itertools.product(
            given.seeds, SPLITS, given.tasks, given.models, CANDIDATES
        )
    ]
    runs = {job: kept("price", run, job) for job in jobs}
    found = {"machine": describe_machine(), "models": list(given.models), "rows": figures(runs)}
    write_page(keep_results(found, RESULTS))


if __name__ == "__main__":
    main()
