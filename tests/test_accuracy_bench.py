"""The harness of the accuracy bench: what it runs, what it draws, and how it judges."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from accuracy import ablations, jobs, page, run, runs, table, targets
from accuracy.coop_layout import TEMPLATES, words_of
from accuracy.features import pool
from accuracy.jobs import FULL, QUERIES, Job, all_jobs
from accuracy.measure import TestSet, accuracy, headline, summary, timed
from accuracy.method import Moment, Problem
from accuracy.methods import METHODS
from accuracy.tasks import Split, Task, folder_task
from machine import with_versions_of
from sharpzo_edge.clip.bundle import MERGES_FILE, Bundle
from sharpzo_edge.clip.class_prompts import checked_token_ids, context_from_words
from sharpzo_edge.clip.tokenizer import Tokenizer
from sharpzo_edge.clip.towers import plan_towers
from sharpzo_edge.demo import BUNDLE, DEFAULT_TASK, TASKS
from sharpzo_edge.memory.plan import Work
from sharpzo_edge.pictures.features import training_features
from sharpzo_edge.pictures.few_shot import Draw
from sharpzo_edge.pictures.folder import read_folder
from sharpzo_edge.run.files import read_checked_json
from sharpzo_edge.run.interrupt import Interrupt
from sharpzo_edge.run.progress import Progress
from sharpzo_edge.run.workplace import Workplace
from sharpzo_edge.seeds import stream
from sharpzo_edge.tuning.presets import EDGE
from sharpzo_edge.types import LabelledFeatures

OUTSIDE_THE_VOCABULARY = ("fgvc", "dtd", "eurosat")  # of the shipped bundle, which was cut


def problem(bundle: Bundle, template: str, *names: str) -> Problem:
    nothing = LabelledFeatures(np.empty((0, bundle.manifest.embed_dim), np.float32), np.empty(0, np.int64))
    context = context_from_words(bundle, bundle.manifest.initial_context)
    tower: Any = None  # nothing is computed
    return Problem("t", bundle, tower, 1, names, context, nothing, nothing, seed=0, template=template)


def moment(queries: int, loss: float, val: float | None, test: float = 0.5) -> dict[str, Any]:
    return {
        "queries": queries,
        "seconds": queries / 100,
        "train_loss": loss,
        "val_loss": None if val is None else 1 - val,
        "val_accuracy": val,
        "test_accuracy": test,
        "shift_accuracy": {"sketch": test / 2},
    }


def write_run(results: Path, job: Job, moments: list[dict[str, Any]]) -> None:
    about = {key: getattr(job, key) for key in run.KEYS} | jobs.made_with(job, {}, "bundle")
    job.path(results).parent.mkdir(parents=True, exist_ok=True)
    job.path(results).write_text(json.dumps({**about, **summary(moments)}))


# Jobs ---------------------------------------------------------------------------------------------------


def task(name: str, n_classes: int) -> Task:
    return Task(name, tuple(map(str, range(n_classes))), (), {"test": Split(())})


def test_the_papers_length_is_run_where_classes_are_fewest() -> None:
    tasks = [task("subgroups", 10), task("words", 55), task("digits", 10), task("nouns", 11)]
    found = all_jobs(tasks)
    full = {(job.method, job.task, job.shots) for job in found if job.max_queries == FULL}
    assert full == {(m, t, 16) for m in ("paper", "released") for t in ("subgroups", "digits")}
    assert {job.max_queries for job in found} == {FULL, QUERIES, ablations.QUERIES}
    assert len({job.path(Path()) for job in found}) == len(found)
    assert {(j.task, j.shots) for j in found if j.method == "black_vip"} == {("subgroups", 16)}


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
    endless = "import time; from accuracy import run; list(run.in_processes(time.sleep, 600, [()], 1))"
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", endless], env=paths) as bench:
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


def test_the_choice_is_by_validation_then_loss_then_the_grids_order_and_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_a_method_with_a_grid_is_not_run_before_its_choice() -> None:
    with pytest.raises(SystemExit, match="choose"):
        jobs.settings_of(Job("cma", "subgroups", 16, 0, 100), {})
    values = jobs.settings_of(Job("paper", "eurosat", 16, 0, 100), {})
    assert (values["sigma0"], values["change_point"], values["std"]) == (0.4, 500, 1.0)


def test_every_ablation_changes_a_setting_that_there_is() -> None:
    fields = dataclasses.asdict(EDGE)
    for _, change in ablations.CHANGES.values():
        assert all(fields[name] != value for name, value in change.items())


# Pictures -----------------------------------------------------------------------------------------------


def test_shots_are_those_that_the_product_draws(tmp_path: Path) -> None:
    bundle, shots, n_val, seed = Bundle.open(BUNDLE), 2, 1, 1
    found = folder_task("demo", TASKS / DEFAULT_TASK)
    theirs = training_features(
        bundle,
        read_folder(TASKS / DEFAULT_TASK / "train"),
        Draw(shots, n_val, stream(seed, "split"), 1, stream(seed, "views")),
        plan_towers(bundle, Work(threads=1), "none"),
        1,
        Workplace(tmp_path, Progress(), Interrupt()),
    )
    drawn = pool(bundle, found, seed, tmp_path / "cache")
    for ours, product in zip(drawn.draw(shots, n_val), (theirs.train, theirs.val), strict=True):
        assert (ours.labels == product.labels).all()
        np.testing.assert_allclose(ours.features[:], product.features[:], atol=1e-5)
    listed = read_checked_json(tmp_path / "pictures.json")["drawn"]
    files = [Path(name).name for name, val in zip(listed["files"], listed["is_val"], strict=True) if not val]
    assert [path.name for of_class in drawn.draw_files(shots, n_val)[0] for path in of_class] == files
    again = pool(bundle, found, seed, tmp_path / "cache").draw(shots, n_val)[0]
    assert again.features[:].tobytes() == drawn.draw(shots, n_val)[0].features[:].tobytes()


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name not in OUTSIDE_THE_VOCABULARY])
def test_a_template_becomes_the_tokens_that_it_spells(name: str) -> None:
    bundle, of_class = Bundle.open(BUNDLE), "golf ball"
    whole = problem(bundle, TEMPLATES[name], of_class).spelt_out()
    (ids,) = checked_token_ids(bundle, whole.class_names, len(whole.context))
    (expected,) = Tokenizer(bundle.verified(MERGES_FILE)).encode([TEMPLATES[name].format(of_class)])
    n_before = len(whole.context)
    assert list(expected[n_before:]) == list(ids[:-1])  # the last one ends the text
    assert whole.context.tobytes() == bundle.token_embeddings(expected[:n_before]).tobytes()


def test_without_a_template_the_initial_words_stay() -> None:
    bundle = Bundle.open(BUNDLE)
    whole = problem(bundle, "", "golf ball")
    assert whole.spelt_out() is whole


def test_classes_of_one_name_stay_apart() -> None:
    assert words_of(["Sea_Lake", "crane", "Crane"]) == ("Sea Lake", "crane", "another Crane")


# Judging ------------------------------------------------------------------------------------------------


def test_the_headline_is_the_lowest_validation_loss_then_the_accuracy_and_never_the_test() -> None:
    moments = [moment(1, 2.0, 0.4, 0.9), moment(2, 1.0, 0.6), {**moment(3, 1.5, 0.6), "val_accuracy": 0.7}]
    assert headline(moments)["queries"] == 3
    assert headline([*moments, {**moments[2], "queries": 4}])["queries"] == 3  # equal in both: the earlier
    assert headline([{**m, "val_loss": None} for m in moments])["queries"] == 3


def test_a_summary_has_budgets_and_a_thin_curve_that_keeps_the_headline() -> None:
    moments = [moment(10 * i + 1, 1.0, 0.9 if i == 457 else 0.5) for i in range(3_000)]
    found = summary(moments)
    assert found["best"]["queries"] == 4_571 and found["last"]["queries"] == found["queries"] == 29_991
    assert found["at"]["2000"]["queries"] == 1 and found["at"]["8000"]["queries"] == 4_571
    queries = found["curve"]["queries"]
    assert {1, 4_571, 29_991} <= set(queries) and len(queries) <= 200
    assert len(json.dumps(found)) < 15_000


def test_accuracy_is_among_the_classes_of_the_split() -> None:
    logits = np.array([[3, 2, 1], [1, 3, 2]], np.float32)
    pictures = LabelledFeatures(np.eye(2, dtype=np.float32), np.array([1, 2]))
    it = Moment(1, 0.0, lambda features: features @ logits)
    assert accuracy(it, pictures) == 0.0
    assert accuracy(it, pictures, TestSet(pictures, (1, 2)).among) == 0.5


def test_a_methods_seconds_leave_out_what_its_reader_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 100, 10))  # ten seconds between any two looks at it
    monkeypatch.setattr("accuracy.measure.time.process_time", lambda: float(next(clock)))
    moments = [Moment(i, 0.0, lambda f: f, own) for i, own in ((1, None), (2, None), (3, 0.25))]
    assert [seconds for _, seconds in timed(iter(moments))] == [10.0, 20.0, 0.25]


def test_the_bootstrap_agrees_with_the_normal_interval() -> None:
    values = np.tile([0.0, 2.0], 200)
    mean, low, high = runs.bootstrap(values)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert mean == 1.0
    assert (low, high) == pytest.approx((1 - half, 1 + half), abs=0.01)
    assert runs.bootstrap([3.0, 3.0, 3.0]) == (3.0, 3.0, 3.0)


def test_a_miss_counts_the_whole_budget_and_is_named(tmp_path: Path) -> None:
    paper = [moment(1, 2.0, 0.5), moment(100_000, 1.0, 0.6), moment(250_000, 0.995, 0.7, 0.7)]
    for seed, loss in ((0, 1.0), (1, 1.1)):
        write_run(tmp_path, Job("paper", "subgroups", 16, seed, FULL), paper)
        write_run(
            tmp_path,
            Job("edge", "subgroups", 16, seed, QUERIES),
            # It ends by itself after half its budget, and that is no better than to have spent it all.
            [moment(1, 2.0, 0.5), moment(1_000, loss, 0.6, 0.75), moment(4_000, loss, 0.6, 0.1)],
        )
    there = runs.load(tmp_path)
    found = targets.speed(there)
    assert found.queries == found.seconds == [0.01, 0.08]
    assert found.missed == ["subgroups seed 1"]
    ratio, _, accuracy_in_full, *_ = targets.targets(there)
    assert "1/35.4 over 2 runs" in ratio.found and ratio.verdict == "**not met**" and "seed 1" in ratio.found
    assert accuracy_in_full.found == "+5.0 (+5.0, +5.0) over 2 pairs" and accuracy_in_full.verdict == "met"


def test_tables_compare_equal_budgets_and_show_full_lengths_in_rows_of_their_own(tmp_path: Path) -> None:
    long = [moment(1, 2.0, 0.5, 0.1), moment(7_000, 1.0, 0.6, 0.2), moment(250_000, 0.9, 0.7, 0.9)]
    write_run(tmp_path, Job("paper", "subgroups", 16, 0, FULL), long)
    write_run(tmp_path, Job("edge", "subgroups", 16, 0, QUERIES), [moment(1, 2.0, 0.5, 0.3)])
    rows = {
        cells[1].strip(): cells[2:-1]
        for line in table.by_shots(runs.load(tmp_path))
        if (cells := line.split("|"))
    }
    paper = [cell.strip() for cell in rows["SharpZO, preset paper"]]
    assert paper == ["20.0", "not run", "not run", "10.0", "7,000", "70.0"]
    by_task = "\n".join(table.by_task(runs.load(tmp_path)))
    assert "| SharpZO, preset paper | 20.0 (1 of 3 seeds) |" in by_task
    assert "| SharpZO, preset paper, in full | 90.0 (1 of 3 seeds) |" in by_task


def test_the_page_names_what_was_not_run(tmp_path: Path) -> None:
    write_run(tmp_path, Job("edge", "nouns", 16, 1, QUERIES), [moment(1, 2.0, 0.5)])
    there = runs.load(tmp_path)
    text = page.page(there, tmp_path)
    assert "- nouns, edge: 1/0, 1/1, 1/2, 4/0, 4/1, 4/2, 16/0, 16/2" in text
    assert "- nouns, cma: all" in text and "- digits: all" in text
    readme = page.readme_table(there)
    assert "not run" in readme and "Of 12 targets 0 are met, 12 not run." in readme


def test_the_page_and_the_readme_are_those_that_the_bench_wrote() -> None:
    there = runs.load(page.RESULTS)
    start, end = "<!-- accuracy: generated by bench -->\n", "\n<!-- accuracy: end -->"
    written = page.README.read_text(encoding="utf-8").split(start)[1].split(end)[0]
    assert page.PAGE.read_text(encoding="utf-8") == page.page(there, page.RESULTS)
    assert written == page.readme_table(there)
