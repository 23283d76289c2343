"""Runs of the accuracy bench: what is run again, what a choice is by, whose end is whose."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from accuracy.harness import run
from accuracy.harness.jobs import Job
from accuracy.harness.measure import summary
from accuracy.methods.all_methods import METHODS
from shared.machine import describe_machine, with_versions_of
from shared.workers import check_tree, machine_of, workers
from sharpzo_edge.clip.bundle import Bundle
from sharpzo_edge.demo import BUNDLE
from support.accuracy import dying, moment, task
from support.processes import start


def here() -> Any:
    """No worker, but this process."""
    return nullcontext(SimpleNamespace(run=lambda do: {"tcp://here:1": do()}))


def test_a_finished_job_is_run_again_only_with_other_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[Job, dict[str, Any]]] = []

    def at_once(client: Any, do: Any, place: Any, todo: Any) -> Iterator[Any]:
        for work in todo:
            ran.append(work)
            yield work, summary([moment(1, 2.0, 0.5)])

    monkeypatch.setattr(run, "in_workers", at_once)
    monkeypatch.setattr(run, "prepare", lambda place, jobs: None)
    monkeypatch.setattr(run, "keep_counts", lambda place, results, jobs: None)
    monkeypatch.setattr(run, "opened", lambda place: (Bundle.open(BUNDLE), {}))
    place = run.Place(BUNDLE, tmp_path, None, tmp_path)
    todo = [Job("cma", "subgroups", 16, seed, 100) for seed in (0, 1)]
    chosen = {"methods": {"cma": {"chosen": {"sigma0": 0.1}}}}
    (tmp_path / run.CHOSEN).write_text(json.dumps(chosen))
    assert run.run(place, tmp_path, tmp_path, todo[:1], here) == 0
    assert run.run(place, tmp_path, tmp_path, todo, here) == 0
    assert [job.seed for job, _ in ran] == [0, 1]
    chosen["methods"]["cma"]["chosen"] = {"sigma0": 0.4}
    (tmp_path / run.CHOSEN).write_text(json.dumps(chosen))
    run.run(place, tmp_path, tmp_path, todo, here)
    assert [settings["sigma0"] for _, settings in ran] == [0.1, 0.1, 0.4, 0.4]
    stored = json.loads(todo[0].path(tmp_path).read_text())
    assert {"method", "task", "shots", "seed", "queries", "seconds", "train_loss", "test_accuracy"} <= set(
        stored
    )


def test_whatever_ends_the_bench_ends_its_workers() -> None:
    endless = (
        "import time; from shared.workers import as_done, workers\n"
        "with workers(1) as client: list(as_done(client, time.sleep, [(600,)]))"
    )
    with start([sys.executable, "-c", endless]) as bench:
        while len(started := psutil.Process(bench.pid).children()) < 2:  # a worker, and the tracker with it
            assert bench.poll() is None
            time.sleep(0.05)
        bench.kill()
    _, alive = psutil.wait_procs(started, timeout=200)
    assert not alive


def test_a_run_outlives_its_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seed 0 loses its process once and is run again. Seed 1 loses every process: it alone fails."""
    monkeypatch.setattr(run, "run_job", dying)
    monkeypatch.setattr(run, "prepare", lambda place, jobs: None)
    monkeypatch.setattr(run, "keep_counts", lambda place, results, jobs: None)
    monkeypatch.setattr(run, "opened", lambda place: (Bundle.open(BUNDLE), {}))
    place = run.Place(BUNDLE, tmp_path, None, tmp_path)
    jobs = [Job("zero_shot", "subgroups", 16, seed, 100) for seed in (0, 1, 2)]
    assert run.run(place, tmp_path, tmp_path, jobs, partial(workers, 2)) == 1
    lost, failed, undisturbed = (job.path(tmp_path) for job in jobs)
    assert json.loads(lost.read_bytes()) == json.loads(undisturbed.read_bytes()) | {"seed": 0}
    assert not failed.exists()
    assert len((tmp_path / "0").read_text().split()) > 1


def test_workers_listen_to_this_client_alone() -> None:
    with workers(1) as client:
        assert machine_of(client) == describe_machine()
        mine = psutil.Process()
        listening = [
            socket.laddr.ip
            for process in (mine, *mine.children())
            for socket in process.net_connections("tcp")
            if socket.status == psutil.CONN_LISTEN
        ]
        assert set(listening) == {"127.0.0.1"}
        with (
            pytest.raises(SystemExit, match="No scheduler answers at tls://127"),
            workers(1, client.scheduler.address),
        ):
            pass


@pytest.mark.parametrize(
    ("commits", "said"),
    [({}, "has no worker"), ({"tcp://b:1": "other"}, "worker at tcp://b:1 runs commit other")],
)
def test_workers_of_another_tree_are_refused(commits: dict[str, str], said: str) -> None:
    found = {address: {"commit": commit} for address, commit in commits.items()}
    with pytest.raises(SystemExit, match=said):
        check_tree(SimpleNamespace(run=lambda do: found))


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

    def at_once(client: Any, do: Any, place: Any, todo: Any) -> Iterator[Any]:
        assert do is run.run_point  # which sees no test set
        for work in reversed(todo):
            asked.append(work[1])
            val, loss = found[work[1]["sigma0"]] if work[1]["std"] == 1.0 else (0.1, 1.0)
            point = {"val_accuracy": val, "train_loss": loss, "queries": 9, "seconds": 0.1}
            yield work, None if len(asked) == 3 else point

    monkeypatch.setattr(run, "in_workers", at_once)
    monkeypatch.setattr(run, "prepare", lambda place, jobs: None)
    monkeypatch.setattr(
        run, "opened", lambda place: (Bundle.open(BUNDLE), {"subgroups": task("subgroups", 2)})
    )
    place = run.Place(BUNDLE, tmp_path, None, tmp_path)
    grid = [dict(point) for point in METHODS["cma"].grid]
    assert run.choose(place, tmp_path, {"method": ["cma"]}, here, None) == 1
    assert run.choose(place, tmp_path, {"method": ["cma"]}, here, None) == 0
    assert len(asked) == len(grid) + 1 and asked[2] == asked[-1]
    entry = run.read_chosen(tmp_path)["methods"]["cma"]
    assert [point["settings"] for point in entry["points"]] == grid
    assert entry["chosen"] == {"std": 1.0, "sigma0": 0.1}
