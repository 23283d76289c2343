"""Which runs the accuracy bench makes, and with which settings."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from accuracy.harness import ablations, jobs
from accuracy.harness.jobs import FULL, QUERIES, Job, all_jobs
from sharpzo_edge.tuning.presets import EDGE
from support.accuracy import task


def test_the_papers_length_is_run_where_classes_are_fewest() -> None:
    tasks = [task("subgroups", 10), task("words", 55), task("digits", 10), task("nouns", 11)]
    tasks.append(task("textile", 3))
    found = all_jobs(tasks)
    full = {(job.method, job.task, job.shots) for job in found if job.max_queries == FULL}
    assert full == {(m, t, 16) for m in ("paper", "released") for t in ("subgroups", "digits", "textile")}
    lengths = {FULL, QUERIES, ablations.QUERIES, ablations.DIFFERENCES_QUERIES}
    assert {job.max_queries for job in found} == lengths
    assert len({job.path(Path()) for job in found}) == len(found)
    assert {(j.task, j.shots) for j in found if j.method == "black_vip"} == {("subgroups", 16)}


def test_a_method_with_a_grid_is_not_run_before_its_choice() -> None:
    with pytest.raises(SystemExit, match="choose"):
        jobs.settings_of(Job("cma", "subgroups", 16, 0, 100), {})
    values = jobs.settings_of(Job("paper", "eurosat", 16, 0, 100), {})
    assert (values["sigma0"], values["change_point"], values["std"]) == (0.4, 500, 1.0)


def test_every_ablation_changes_a_setting_that_there_is() -> None:
    fields = dataclasses.asdict(EDGE)
    for _, change in ablations.CHANGES.values():
        assert all(fields[name] != value for name, value in change.items())
