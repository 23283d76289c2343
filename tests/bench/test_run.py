"""Runs of the accuracy bench: what is run again, what a choice is by, who ends with it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from accuracy.harness import run
from accuracy.harness.jobs import Job
from accuracy.harness.measure import summary
from accuracy.methods.all_methods import METHODS
from shared.machine import with_versions_of
from sharpzo_edge.clip.bundle import Bundle
from sharpzo_edge.demo import BUNDLE
from support.accuracy import moment, task
from support.processes import start


def test_a_finished_job_is_run_again_only_with_other_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[Job, dict[str, Any]]] = []

    def at_once(do: Any, place: Any, todo: Any, n: int) -> Iterator[Any]:
        for work in todo:
            ran.append(work)
            yield work, summary([moment(1, 2.0, 0.5)])

    monkeypatch.setattr(run, "in_processes", at_once)
    monkeypatch.setattr(run, "prepare", lambda place, jobs: None)
    monkeypatch.setattr(run, "keep_counts", lambda place, results, jobs: None)
    monkeypatch.setattr(run, "opened", lambda place: (Bundle.open(BUNDLE), {}))
    place = run.Place(BUNDLE, tmp_path, None, tmp_path)
    todo = [Job("cma", "subgroups", 16, seed, 100) for seed in (0, 1)]
    chosen = {"methods": {"cma": {"chosen": {"sigma0": 0.1}}}}
    (tmp_path / run.CHOSEN).write_text(json.dumps(chosen))
    assert run.run(place, tmp_path, tmp_path, todo[:1], 1) == 0
    assert run.run(place, tmp_path, tmp_path, todo, 1) == 0
    assert [job.seed for job, _ in ran] == [0, 1]
    chosen["methods"]["cma"]["chosen"] = {"sigma0": 0.4}
    (tmp_path / run.CHOSEN).write_text(json.dumps(chosen))
    run.run(place, tmp_path, tmp_path, todo, 1)
    assert [settings["sigma0"] for _, settings in ran] == [0.1, 0.1, 0.4, 0.4]
    stored = json.loads(todo[0].path(tmp_path).read_text())
    assert {"method", "task", "shots", "seed", "queries", "seconds", "train_loss", "test_accuracy"} <= set(
        stored
    )


def children(pid: int) -> set[int]:
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_whatever_ends_the_bench_ends_its_workers() -> None:
    endless = (
        "import time; from accuracy.harness import run; list(run.in_processes(time.sleep, 600, [()], 1))"
    )
    with start([sys.executable, "-c", endless]) as bench:
        while len(started := children(bench.pid)) < 2:  # a worker, and the tracker that comes with it
            assert bench.poll() is None
            time.sleep(0.05)
        bench.kill()
    for _ in range(600):
        if not any(map(is_running, started)):
            return
        time.sleep(0.05)
    raise AssertionError(f"of {started} some still run")


def test_results_of_two_occasions_name_the_versions_of_both() -> None:
    earlier = {"cores": 2, "versions": {"numpy": "2.3", "onnxruntime": "1.30 and 1.31", "torch": "2.14"}}
    now = {"cores": 4, "versions": {"numpy": "2.3", "onnxruntime": "1.32"}}
    wanted = {"numpy": "2.3", "onnxruntime": "1.30 and 1.31 and 1.32", "torch": "2.14"}
    assert with_versions_of(now, earlier) == {"cores": 4, "versions": wanted}
    assert with_versions_of(now, with_versions_of(now, earlier))["versions"] == wanted
    elsewhere = {"cpu": "B", "versions": {}}
    assert with_versions_of(elsewhere, {"cpu": "A", "versions": {}})["cpu"] == "A and B"


def test_a_choice_is_by_validation_and_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of equal accuracies the lower loss is chosen, and of equal losses the first of the grid."""
    asked: list[dict[str, Any]] = []
    found = {0.4: (0.5, 1.0), 1.0: (0.7, 1.2), 0.1: (0.7, 1.1), 0.02: (0.7, 1.1)}

    def at_once(do: Any, place: Any, todo: Any, n: int) -> Iterator[Any]:
        assert do is run.run_point  # which sees no test set
        for work in reversed(todo):
            asked.append(work[1])
            val, loss = found[work[1]["sigma0"]] if work[1]["std"] == 1.0 else (0.1, 1.0)
            point = {"val_accuracy": val, "train_loss": loss, "queries": 9, "seconds": 0.1}
            yield work, None if len(asked) == 3 else point

    monkeypatch.setattr(run, "in_processes", at_once)
    monkeypatch.setattr(run, "prepare", lambda place, jobs: None)
    monkeypatch.setattr(
        run, "opened", lambda place: (Bundle.open(BUNDLE), {"subgroups": task("subgroups", 2)})
    )
    place = run.Place(BUNDLE, tmp_path, None, tmp_path)
    grid = [dict(point) for point in METHODS["cma"].grid]
    assert run.choose(place, tmp_path, {"method": ["cma"]}, 1, None) == 1
    assert run.choose(place, tmp_path, {"method": ["cma"]}, 1, None) == 0
    assert len(asked) == len(grid) + 1 and asked[2] == asked[-1]
    entry = run.read_chosen(tmp_path)["methods"]["cma"]
    assert [point["settings"] for point in entry["points"]] == grid
    assert entry["chosen"] == {"std": 1.0, "sigma0": 0.1}
