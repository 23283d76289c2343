"""Choose hyper-parameters, and run methods x tasks x shots x seeds as jobs that can be resumed.

    python -m accuracy.run choose [--only method=cma,mezo]
    python -m accuracy.run run [--subset] [--only task=subgroups method=edge,paper shots=16 seed=0]

with runtime/ and bench/ on the path. A run is one JSON, written beside and renamed; what is there already,
made with the same settings and bundle, is not run again.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import json
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

from machine import ROOT, describe_machine, with_versions_of
from sharpzo_edge.clip.bundle import Bundle
from sharpzo_edge.clip.class_prompts import checked_token_ids, context_from_words
from sharpzo_edge.clip.towers import TextTower, plan_towers
from sharpzo_edge.demo import BUNDLE
from sharpzo_edge.memory.plan import Work
from sharpzo_edge.run.files import write_json
from sharpzo_edge.types import LabelledFeatures

from .coop_layout import coop_tasks
from .features import Pool, encoded, pixels_of, pool
from .jobs import (
    EVERY_METHOD,
    MOST_SHOTS,
    SEEDS,
    SHOTS,
    Job,
    all_jobs,
    in_subset,
    is_done,
    made_with,
    matching,
    settings_of,
)
from .measure import TestSet, headline, run_measured, summary
from .method import Problem
from .methods import METHODS
from .tasks import Files, Task, demo_tasks, digits_task

RESULTS = ROOT / "bench" / "results" / "accuracy"
CHOSEN, MACHINE, PICTURES = "chosen.json", "machine.json", "pictures.json"
CHOOSE_TASK, CHOOSE_SEED, CHOOSE_QUERIES = "subgroups", 0, 2_000
KEYS = ("method", "task", "shots", "seed")
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


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
            tasks.append(digits_task(place.work / "digits"))
    if not tasks:
        raise SystemExit(
            f"There is no task in {place.coop or place.tasks}. It must hold the demo model's tasks (make "
            f"demo-tasks, then --tasks WORK/tasks) or data sets as CoOp lays them out (--coop)"
        )
    return Bundle.open(place.bundle), {task.name: task for task in tasks}


# ------------------------------------------------------------------------------------ in a process of its own


def measured(place: Place, job: Job, settings: dict[str, Any], with_tests: bool) -> list[dict[str, Any]]:
    """One run on one thread: the figures of its moments."""
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
    work = Work(name_lengths=lengths, images=False, n_context=len(context), threads=1)
    plan = plan_towers(bundle, work, "none").text
    assert plan is not None  # there are names
    with TextTower(bundle, plan, threads=1) as tower:
        problem = Problem(
            task.name,
            bundle,
            tower,
            plan.together,
            task.class_names,
            context,
            train,
            val,
            job.seed,
            threads=1,
            pixels=lambda: pixels_of(bundle, shots_files).features[:],
            template=task.template,
        )
        judge = pixels_of(bundle, val_files) if changes_pictures else val
        method.load(bundle)
        moments = run_measured(method, problem, job.max_queries, settings, judge, tests)
    if not moments:
        raise RuntimeError("no moment had a finite loss")
    return moments


@functools.cache
def pool_of(place: Place, task: str, seed: int) -> Pool:
    bundle, tasks = opened(place)
    return pool(bundle, tasks[task], seed, place.features)


@functools.cache
def encoded_of(place: Place, files: Files) -> LabelledFeatures:
    return encoded(opened(place)[0], files, place.features)


def run_job(place: Place, job: Job, settings: dict[str, Any]) -> dict[str, Any]:
    return summary(measured(place, job, settings, with_tests=True))


def run_point(place: Place, job: Job, settings: dict[str, Any]) -> dict[str, Any]:
    """A point of a grid: what the choice is made by, and nothing of the test sets."""
    settings = {**settings, **METHODS[job.method].trial}
    best = headline(measured(place, job, settings, with_tests=False))
    return {key: best[key] for key in ("val_accuracy", "train_loss", "queries", "seconds")}


# --------------------------------------------------------------------------------------------- the processes

Todo = tuple[Job, dict[str, Any]]


def in_processes(
    do: Callable[..., dict[str, Any]], place: Place, todo: Sequence[Todo], n: int
) -> Iterator[tuple[Todo, dict[str, Any] | None]]:
    """(job, result) as they are done; None for one that failed, whose traceback is shown."""
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))  # before a child imports numpy
    with ProcessPoolExecutor(n, get_context("spawn"), initializer=end_with_parent) as processes:
        waiting = {processes.submit(do, place, *work): work for work in todo}
        try:
            for i, future in enumerate(as_completed(waiting), 1):
                work = waiting[future]
                try:
                    result = future.result()
                except Exception:
                    traceback.print_exc()
                    print(f"[{i}/{len(todo)}] {work[0]} FAILED: {work[1]}", flush=True)
                    yield work, None
                    continue
                print(f"[{i}/{len(todo)}] {work[0]}: {in_words(result)}", flush=True)
                yield work, result
        except BaseException:
            processes.shutdown(wait=False, cancel_futures=True)
            raise


def end_with_parent() -> None:
    """Of a worker: whatever ends the process that it works for, even a kill, ends it too."""

    def watch() -> None:
        parent = parent_process()
        assert parent is not None  # a worker has one
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def in_words(result: dict[str, Any]) -> str:
    parts = [
        f"{words} {100 * result[key]:.1f} %"
        for key, words in (("test_accuracy", "test"), ("val_accuracy", "validation"))
        if result.get(key) is not None
    ]
    parts += [f"loss {result['train_loss']:.4f}", f"{result['queries']:,} queries, {result['seconds']:.0f} s"]
    return ", ".join(parts)


def runnable(jobs: Sequence[Job]) -> list[Job]:
    """Without those whose method needs torch, where it is missing."""
    if importlib.util.find_spec("torch") is not None:
        return list(jobs)
    left_out = sorted({job.method for job in jobs if EVERY_METHOD[job.method].needs_torch})
    if left_out:
        print(f"not run, without torch: {', '.join(left_out)}", flush=True)
    return [job for job in jobs if job.method not in left_out]


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


# ----------------------------------------------------------------------------------------------- the commands


def choose(place: Place, results: Path, only: dict[str, list[str]], n: int, max_queries: int | None) -> int:
    """Every method's hyper-parameters by validation accuracy, then training loss, at one task and seed."""
    bundle, tasks = opened(place)
    task = CHOOSE_TASK if CHOOSE_TASK in tasks else next(iter(tasks))
    about = {
        "task": task,
        "shots": MOST_SHOTS,
        "seed": CHOOSE_SEED,
        "max_queries": max_queries or CHOOSE_QUERIES,
        "bundle": bundle.checksum,
    }
    stored = read_chosen(results)
    methods = stored.get("methods", {}) if {k: stored.get(k) for k in about} == about else {}
    todo: list[Todo] = []
    for name, method in METHODS.items():
        job = Job(name, task, MOST_SHOTS, CHOOSE_SEED, about["max_queries"])
        if len(method.grid) == 1 or not runnable(matching([job], only)):
            continue
        known = {
            json.dumps(p["settings"], sort_keys=True): p for p in methods.get(name, {}).get("points", [])
        }
        keys = [json.dumps(dict(point), sort_keys=True) for point in method.grid]
        methods[name] = {"points": [known[key] for key in keys if key in known]}
        todo += [(job, dict(p)) for key, p in zip(keys, method.grid, strict=True) if key not in known]
    prepare(place, [job for job, _ in todo])
    failed = 0
    for (job, settings), point in in_processes(run_point, place, todo, n):
        if point is None:
            failed += 1
            continue
        methods[job.method]["points"].append({"settings": settings, **point})
        keep_chosen(results, about, methods)
    keep_chosen(results, about, methods)
    return failed


def keep_chosen(results: Path, about: dict[str, Any], methods: dict[str, Any]) -> None:
    """Points in their grid's order; of equal ones the first is chosen, so their authors' values win."""
    for name, entry in methods.items():
        order = [dict(point) for point in METHODS[name].grid]
        entry["points"].sort(key=lambda point: order.index(point["settings"]))
        if entry["points"]:
            best = max(entry["points"], key=lambda p: (p["val_accuracy"] or 0, -p["train_loss"]))
            entry["chosen"] = best["settings"]
    results.mkdir(parents=True, exist_ok=True)
    write_json(results / CHOSEN, {**about, "methods": {n: e for n, e in methods.items() if e["points"]}})


def read_chosen(results: Path) -> dict[str, Any]:
    try:
        stored: dict[str, Any] = json.loads((results / CHOSEN).read_bytes())
    except FileNotFoundError:
        return {}
    return stored


def run(place: Place, results: Path, chosen: Path, jobs: Sequence[Job], n: int) -> int:
    """Run what is not done yet; returns how many failed."""
    bundle, _ = opened(place)
    methods = read_chosen(chosen).get("methods", {})
    todo = []
    for job in runnable(jobs):
        settings = settings_of(job, methods)
        if not is_done(job.path(results), made_with(job, settings, bundle.checksum)):
            todo.append((job, settings))
    print(f"{len(jobs)} runs, of which {len(todo)} are to do", flush=True)
    if not todo:
        return 0
    prepare(place, [job for job, _ in todo])
    machine = describe_machine()
    results.mkdir(parents=True, exist_ok=True)
    described = machine
    with contextlib.suppress(FileNotFoundError):
        described = with_versions_of(machine, json.loads((results / MACHINE).read_bytes()))
    write_json(results / MACHINE, described)
    keep_counts(place, results, [job for job, _ in todo])
    failed = 0
    for (job, settings), result in in_processes(run_job, place, todo, n):
        if result is None:
            failed += 1
            continue
        path = job.path(results)
        path.parent.mkdir(parents=True, exist_ok=True)
        about = {key: getattr(job, key) for key in KEYS} | made_with(job, settings, bundle.checksum)
        write_json(path, {**about, "commit": machine["commit"], **result})
    return failed


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("command", choices=("choose", "run", "list"))
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    parser.add_argument("--tasks", type=Path, default=ROOT / "build" / "demo-model" / "tasks", metavar="DIR")
    parser.add_argument(
        "--coop", type=Path, metavar="DIR", help="data sets in CoOp's layout, instead of --tasks"
    )
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "accuracy", metavar="DIR")
    parser.add_argument("--results", type=Path, metavar="DIR", help="the repository's; with --coop WORK/coop")
    parser.add_argument("--chosen", type=Path, metavar="DIR", help=f"whose {CHOSEN} holds; the results' own")
    parser.add_argument("--subset", action="store_true", help="the runs that `make bench-accuracy` redoes")
    parser.add_argument("--only", nargs="+", default=[], metavar="KEY=A,B", help=f"keys: {', '.join(KEYS)}")
    parser.add_argument("--max-queries", type=int, metavar="N", help="for every run, instead of the rule's")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count(), metavar="N", help="processes, one thread each"
    )
    given = parser.parse_args(arguments)
    only = {key: values.split(",") for key, _, values in (each.partition("=") for each in given.only)}
    if unknown := sorted(only.keys() - set(KEYS)):
        parser.error(f"--only {unknown[0]}=… is not known; keys are {', '.join(KEYS)}")
    place = Place(given.bundle, given.tasks, given.coop, given.work)
    given.results = given.results or (RESULTS if given.coop is None else given.work / "coop")
    if given.command == "choose":
        failed = choose(place, given.results, only, given.jobs, given.max_queries)
    else:
        jobs = matching(all_jobs(list(opened(place)[1].values()), given.max_queries), only)
        jobs = [job for job in jobs if in_subset(job)] if given.subset else jobs
        if given.command == "list":
            print(*jobs, sep="\n")
            return 0
        failed = run(place, given.results, given.chosen or given.results, jobs, given.jobs)
    if failed:
        print(f"{failed} runs failed; what they said is above", file=sys.stderr)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
