"""Which runs there are, how long each is, and where its result lies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sharpzo_edge.clip.bundle import Bundle
from sharpzo_edge.tuning.presets import PRESETS, settings_for

from ..methods.all_methods import METHODS
from ..methods.method import Method
from . import ablations
from .ablations import ABLATIONS, change_of
from .coop_layout import DATA_SETS
from .tasks import Task, fewest_classes

SHOTS, SEEDS = (1, 4, 16), (0, 1, 2)
MOST_SHOTS = 16
QUERIES = 8_000
FULL = 10**9  # queries: the method's own length is the end
RUN_IN_FULL = ("paper", "released")
TASKS_IN_FULL = 3
EVERY_METHOD = METHODS | ABLATIONS

# `make bench-accuracy`: task, shots, seeds; of every method that does not encode pictures again and again.
SUBSET = (("subgroups", 16, (0,)), ("nouns", 16, (0, 1, 2)))


@dataclass(frozen=True)
class Job:
    """One run; it ends at max_queries, or FULL."""

    method: str
    task: str
    shots: int
    seed: int
    max_queries: int

    def path(self, results: Path) -> Path:
        name = self.method.replace(":", "_")
        return results / self.task / f"{name}-{self.shots}-{self.seed}.json"

    def __str__(self) -> str:
        return f"{self.task} {self.method}, {self.shots} shots, seed {self.seed}"


def all_jobs(tasks: Sequence[Task], max_queries: int | None = None) -> list[Job]:
    """The full set, the longest first. max_queries: for all of them, instead of the rule's."""
    full = fewest_classes(tasks, TASKS_IN_FULL)
    found = []
    for task in tasks:
        for name, method in EVERY_METHOD.items():
            for shots in shots_of(method, task.name, tasks[0].name):
                budget = max_queries or budget_of(name, shots, task.name in full)
                found += [Job(name, task.name, shots, seed, budget) for seed in SEEDS]
    n_classes = {task.name: len(task.class_names) for task in tasks}
    return sorted(found, key=lambda job: -job.max_queries * n_classes[job.task])


def shots_of(method: Method, task: str, first_task: str) -> tuple[int, ...]:
    """All for methods in general; ablations have tasks of their own, and a method that encodes pictures again
    for every query has the first one.
    """
    if method.name in ABLATIONS:
        return (MOST_SHOTS,) * ablations.is_run_on(method.name, task)
    if method.kind == "picture":
        return (MOST_SHOTS,) * (task == first_task)
    return SHOTS


def budget_of(method: str, shots: int, is_small: bool) -> int:
    """is_small: whether the task is one of those with fewest classes."""
    if method in ABLATIONS:
        return ablations.queries_of(method)
    return FULL if method in RUN_IN_FULL and shots == MOST_SHOTS and is_small else QUERIES


def in_subset(job: Job) -> bool:
    wanted = any((job.task, job.shots) == (t, s) and job.seed in seeds for t, s, seeds in SUBSET)
    return wanted and job.method not in ABLATIONS and EVERY_METHOD[job.method].kind != "picture"


def matching(jobs: Iterable[Job], only: Mapping[str, Sequence[str]]) -> list[Job]:
    """Those whose fields (method, task, shots, seed) have one of the values asked for."""
    return [job for job in jobs if all(str(getattr(job, key)) in values for key, values in only.items())]


def settings_of(job: Job, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The method's chosen hyper-parameters. `paper` has the paper's own for each of the paper's data sets; an
    ablation has its change.

    Raises SystemExit when there is a choice and nothing is chosen.
    """
    if job.method == "paper" and job.task in DATA_SETS and f"paper:{job.task}" in PRESETS:
        return paper_values(job.task)
    name = job.method.partition(":")[0]
    grid = METHODS[name].grid
    if len(grid) == 1:
        return dict(grid[0]) | change_of(job.method)
    if name not in chosen:
        raise SystemExit(
            f"{name} has hyper-parameters, and none are chosen. Choose them first: "
            f"python -m accuracy.harness.run choose"
        )
    return dict(chosen[name]["chosen"])


def paper_values(task: str) -> dict[str, Any]:
    own, _ = settings_for(f"paper:{task}", {})
    names = {"std": "projection_std"} | {n: n for n in ("sigma0", "mu_cge", "change_point", "eta")}
    return {name: getattr(own, field) for name, field in names.items()}


def made_with(job: Job, settings: Mapping[str, Any], bundle: str) -> dict[str, Any]:
    """What a result must agree in to be this job's. bundle: from model_checksum"""
    return {"settings": dict(settings), "max_queries": job.max_queries, "bundle": bundle}


def model_checksum(bundle: Bundle) -> str:
    """Of what decides the numbers: both towers' weights, and the vocabulary. Tangents leave it as it is."""
    manifest = bundle.manifest
    names = manifest.text.data, manifest.image.data, "token_embedding.npy", "bpe.txt.gz"
    return hashlib.sha256("".join(manifest.files[name].sha256 for name in names).encode()).hexdigest()


def is_done(path: Path, wanted: Mapping[str, Any]) -> bool:
    try:
        stored = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return all(stored.get(key) == value for key, value in wanted.items())
