"""Choose hyper-parameters, and run methods x tasks x shots x seeds as jobs that can be resumed.

    python -m accuracy.harness.run choose [--only method=cma,mezo]
    python -m accuracy.harness.run run [--subset] [--only task=subgroups method=edge,paper shots=16 seed=0]
    python -m accuracy.harness.run list [--only …]

with runtime/ and bench/ on the path. A run is one JSON, written beside and renamed; what is there already,
made with the same settings and bundle, is not run again. Runs go on at once in workers of Dask: processes of
this machine, or those of --scheduler.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from distributed import Client

from shared.machine import ROOT, with_versions_of
from shared.workers import as_done, machine_of, workers
from sharpzo_edge.demo import BUNDLE
from sharpzo_edge.run.files import write_json

from ..methods.all_methods import METHODS
from .jobs import (
    EVERY_METHOD,
    MOST_SHOTS,
    Job,
    all_jobs,
    in_subset,
    is_done,
    made_with,
    matching,
    model_checksum,
    settings_of,
)
from .one_run import Place, keep_counts, opened, prepare, run_job, run_point
from .runs import CHOSEN, MACHINE, REFUSED, RESULTS

CHOOSE_TASK, CHOOSE_SEED, CHOOSE_QUERIES = "subgroups", 0, 2_000
KEYS = ("method", "task", "shots", "seed")

Connect = Callable[[], contextlib.AbstractContextManager[Client]]
Todo = tuple[Job, dict[str, Any]]  # and its settings


def runnable(jobs: Sequence[Job]) -> list[Job]:
    """Without those whose method needs torch, where it is missing."""
    if importlib.util.find_spec("torch") is not None:
        return list(jobs)
    left_out = sorted({job.method for job in jobs if EVERY_METHOD[job.method].needs_torch})
    if left_out:
        print(f"not run, without torch: {', '.join(left_out)}", flush=True)
    return [job for job in jobs if job.method not in left_out]


def in_workers(
    client: Client, do: Callable[..., dict[str, Any]], place: Place, todo: Sequence[Todo]
) -> Iterator[tuple[Todo, dict[str, Any] | None]]:
    """(job, result) as they are done, each told in a line; None for one that failed."""
    ended = as_done(client, do, [(place, *work) for work in todo])
    for i, (number, result) in enumerate(ended, 1):
        job, settings = todo[number]
        said = f": {in_words(result)}" if result else f" FAILED: {settings}"
        print(f"[{i}/{len(todo)}] {job}{said}", flush=True)
        yield todo[number], result


def in_words(result: dict[str, Any]) -> str:
    if REFUSED in result:
        return f"refused: {result[REFUSED]}"
    parts = [
        f"{words} {100 * result[key]:.1f} %"
        for key, words in (("test_accuracy", "test"), ("val_accuracy", "validation"))
        if result.get(key) is not None
    ]
    parts += [f"loss {result['train_loss']:.4f}", f"{result['queries']:,} queries, {result['seconds']:.0f} s"]
    return ", ".join(parts)


def choose(
    place: Place, results: Path, only: dict[str, list[str]], connect: Connect, max_queries: int | None
) -> int:
    """Every method's hyper-parameters by validation accuracy, then training loss, at one task and seed."""
    bundle, tasks = opened(place)
    task = CHOOSE_TASK if CHOOSE_TASK in tasks else next(iter(tasks))
    limit = max_queries or CHOOSE_QUERIES
    about = {
        "task": task,
        "shots": MOST_SHOTS,
        "seed": CHOOSE_SEED,
        "max_queries": limit,
        "bundle": model_checksum(bundle),
    }
    stored = read_chosen(results)
    methods = stored.get("methods", {}) if {k: stored.get(k) for k in about} == about else {}
    todo: list[Todo] = []
    for name, method in METHODS.items():
        job = Job(name, task, MOST_SHOTS, CHOOSE_SEED, limit)
        if len(method.grid) == 1 or not runnable(matching([job], only)):
            continue
        known = {
            json.dumps(p["settings"], sort_keys=True): p for p in methods.get(name, {}).get("points", [])
        }
        keys = [json.dumps(dict(point), sort_keys=True) for point in method.grid]
        methods[name] = {"points": [known[key] for key in keys if key in known]}
        todo += [(job, dict(p)) for key, p in zip(keys, method.grid, strict=True) if key not in known]
    failed = 0
    if todo:
        with connect() as client:
            prepare(place, [job for job, _ in todo])
            for (job, settings), point in in_workers(client, run_point, place, todo):
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


def run(place: Place, results: Path, chosen: Path, jobs: Sequence[Job], connect: Connect) -> int:
    """Run what is not done yet; returns how many failed."""
    bundle, _ = opened(place)
    methods = read_chosen(chosen).get("methods", {})
    todo = []
    for job in runnable(jobs):
        settings = settings_of(job, methods)
        if not is_done(job.path(results), made_with(job, settings, model_checksum(bundle))):
            todo.append((job, settings))
    print(f"{len(jobs)} runs, of which {len(todo)} are to do", flush=True)
    if not todo:
        return 0
    results.mkdir(parents=True, exist_ok=True)
    failed = 0
    with connect() as client:
        prepare(place, [job for job, _ in todo])
        machine = described = machine_of(client)
        with contextlib.suppress(FileNotFoundError):
            described = with_versions_of(machine, json.loads((results / MACHINE).read_bytes()))
        write_json(results / MACHINE, described)
        keep_counts(place, results, [job for job, _ in todo])
        for (job, settings), result in in_workers(client, run_job, place, todo):
            if result is None:
                failed += 1
                continue
            path = job.path(results)
            path.parent.mkdir(parents=True, exist_ok=True)
            about = {key: getattr(job, key) for key in KEYS} | made_with(
                job, settings, model_checksum(bundle)
            )
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
    parser.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="of Dask: its workers run the jobs, not --jobs processes.\n"
        "They have this tree, and the folders above at the same places",
    )
    given = parser.parse_args(arguments)
    only = {key: values.split(",") for key, _, values in (each.partition("=") for each in given.only)}
    if unknown := sorted(only.keys() - set(KEYS)):
        parser.error(f"--only {unknown[0]}=… is not known; keys are {', '.join(KEYS)}")
    folders = given.bundle, given.tasks, given.coop, given.work
    place = Place(*(folder and folder.resolve() for folder in folders))  # wherever a worker is started
    connect = functools.partial(workers, given.jobs, given.scheduler)
    given.results = given.results or (RESULTS if given.coop is None else given.work / "coop")
    if given.command == "choose":
        failed = choose(place, given.results, only, connect, given.max_queries)
    else:
        jobs = matching(all_jobs(list(opened(place)[1].values()), given.max_queries), only)
        jobs = [job for job in jobs if in_subset(job)] if given.subset else jobs
        if given.command == "list":
            print(*jobs, sep="\n")
            return 0
        failed = run(place, given.results, given.chosen or given.results, jobs, connect)
    if failed:
        print(f"{failed} runs failed; what they said is above", file=sys.stderr)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
