"""One run on one thread, from a task's pictures to the figures of its moments.

A Place says where the bundle and the tasks are. Pictures are encoded once and kept there.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from sharpzo_edge.clip.bundle import Bundle
from sharpzo_edge.clip.class_prompts import checked_token_ids, context_from_words
from sharpzo_edge.clip.sessions import onnxruntime_version
from sharpzo_edge.clip.tower_plan import Tangents
from sharpzo_edge.clip.towers import TextTower
from sharpzo_edge.errors import UsageError
from sharpzo_edge.memory.budget import budget_of
from sharpzo_edge.memory.plan import Work, plan_text
from sharpzo_edge.run.files import write_json
from sharpzo_edge.tuning.settings import NO_TANGENTS
from sharpzo_edge.types import LabelledFeatures

from ..methods.all_methods import METHODS
from ..methods.method import Problem
from .coop_layout import coop_tasks
from .features import Pool, encoded, pixels_of, pool
from .jobs import EVERY_METHOD, SEEDS, SHOTS, Job
from .measure import TestSet, headline, run_measured, summary
from .runs import PICTURES, REFUSED
from .tasks import Files, Task, demo_tasks, digits_task
from .textile import textile_task


class RefusedError(Exception):
    """A method refuses a problem; the message says why."""


@dataclass(frozen=True)
class Place:
    """Where everything is. coop: the paper's data sets instead of the demo model's tasks and the digits."""

    bundle: Path
    tasks: Path
    coop: Path | None
    work: Path

    @property
    def features(self) -> Path:
        return self.work / "features"


@functools.cache
def opened(place: Place) -> tuple[Bundle, dict[str, Task]]:
    """The bundle, and every task by its name."""
    if place.coop is not None:
        tasks = coop_tasks(place.coop)
    else:
        tasks = demo_tasks(place.tasks)
        if tasks:
            tasks += [digits_task(place.work / "digits"), textile_task(place.work / "textile")]
    if not tasks:
        raise SystemExit(
            f"There is no task in {place.coop or place.tasks}. It must hold the demo model's tasks (make "
            f"demo-tasks, then --tasks WORK/tasks) or data sets as CoOp lays them out (--coop)"
        )
    return Bundle.open(place.bundle), {task.name: task for task in tasks}


def measured(place: Place, job: Job, settings: dict[str, Any], with_tests: bool) -> list[dict[str, Any]]:
    """One run on one thread: the figures of its moments.

    Raises RefusedError when the method refuses the problem.
    """
    bundle, tasks = opened(place)
    task, method = tasks[job.task], EVERY_METHOD[job.method]
    context = context_from_words(bundle, bundle.manifest.initial_context)
    drawn = pool_of(place, job.task, job.seed)
    train, val = drawn.draw(job.shots)
    shots_files, val_files = drawn.draw_files(job.shots)
    changes_pictures = method.kind == "picture"
    seen = functools.partial(pixels_of, bundle) if changes_pictures else functools.partial(encoded_of, place)
    splits = task.splits if with_tests else {}
    tests = {name: TestSet(seen(split.files), split.among) for name, split in splits.items()}
    lengths = tuple(map(len, checked_token_ids(bundle, task.class_names, len(context))))
    tangents = tangents_of(settings)
    work = Work(name_lengths=lengths, n_context=len(context), threads=1, tangents=tangents)
    plan = plan_text(bundle.manifest, work, budget_of(None, onnxruntime_version()))
    with TextTower(bundle, plan) as tower:
        problem = Problem(
            task.name,
            bundle,
            tower,
            plan.tower.batch,
            task.class_names,
            context,
            train,
            val,
            job.seed,
            threads=1,
            pixels=lambda: pixels_of(bundle, shots_files).features[:],
            template=task.template,
            tangents=tangents is not None,
        )
        judge = pixels_of(bundle, val_files) if changes_pictures else val
        method.load(bundle)
        try:
            moments = run_measured(method, problem, job.max_queries, settings, judge, tests)
        except UsageError as reason:
            raise RefusedError(str(reason)) from reason
    if not moments:
        raise RuntimeError("no moment had a finite loss")
    return moments


def tangents_of(settings: Mapping[str, Any]) -> Tangents | None:
    """What a tower computes for a method with these settings; None: no tangents."""
    wanted = settings.get("tangents", NO_TANGENTS)
    return None if wanted == NO_TANGENTS else cast(Tangents, wanted)


@functools.cache
def pool_of(place: Place, task: str, seed: int) -> Pool:
    bundle, tasks = opened(place)
    return pool(bundle, tasks[task], seed, place.features)


@functools.cache
def encoded_of(place: Place, files: Files) -> LabelledFeatures:
    return encoded(opened(place)[0], files, place.features)


def run_job(place: Place, job: Job, settings: dict[str, Any]) -> dict[str, Any]:
    """A run's result; why there is none, under the key REFUSED, when the method refuses the problem."""
    try:
        return summary(measured(place, job, settings, with_tests=True))
    except RefusedError as reason:
        return {REFUSED: str(reason)}


def run_point(place: Place, job: Job, settings: dict[str, Any]) -> dict[str, Any]:
    """A point of a grid: what the choice is made by, and nothing of the test sets."""
    settings = {**settings, **METHODS[job.method].trial}
    best = headline(measured(place, job, settings, with_tests=False))
    return {key: best[key] for key in ("val_accuracy", "train_loss", "queries", "seconds")}


def prepare(place: Place, jobs: Sequence[Job]) -> None:
    """Encode what these jobs need, before processes ask for it at once."""
    bundle, tasks = opened(place)
    for name in dict.fromkeys(job.task for job in jobs):
        print(f"features of {name}", flush=True)
        for split in tasks[name].splits.values():
            encoded(bundle, split.files, place.features)
        for seed in sorted({job.seed for job in jobs if job.task == name}):
            pool(bundle, tasks[name], seed, place.features)


def keep_counts(place: Place, results: Path, jobs: Sequence[Job]) -> None:
    """Of the tasks of these jobs: classes, and pictures of every draw of one seed (others have as many)."""
    path = results / PICTURES
    counts = json.loads(path.read_bytes()) if path.exists() else {}
    _, tasks = opened(place)
    for name in {job.task for job in jobs}:
        drawn = pool_of(place, name, SEEDS[0])
        by_shots = {str(shots): drawn.counts(shots) for shots in SHOTS}
        counts[name] = {"classes": len(tasks[name].class_names), "shots": by_shots}
    write_json(path, counts)
