"""Targets, tables and pages of the accuracy bench."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from accuracy.harness import runs
from accuracy.harness.jobs import FULL, QUERIES, Job
from accuracy.report import page, strangers, table, targets
from support.accuracy import moment, write_run


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


def test_tables_compare_equal_budgets(tmp_path: Path) -> None:
    """Runs of the paper's full length have rows of their own."""
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


def test_a_refused_run_is_a_dash_and_a_reason(tmp_path: Path) -> None:
    for shots in (16, 4):
        write_run(tmp_path, Job("gda", "nouns", shots, 0, QUERIES), [moment(1, 2.0, 0.5)])
    path = Job("gda", "nouns", 1, 0, QUERIES).path(tmp_path)
    about = {"method": "gda", "task": "nouns", "shots": 1, "seed": 0, "max_queries": QUERIES}
    path.write_text(json.dumps(about | {runs.REFUSED: "11 pictures. Try more"}))
    there = runs.load(tmp_path)
    (row,) = (line for line in table.by_shots(there) if "GDA" in line)
    assert row == "| GDA head (published shrinkage) | 50.0 | 50.0 | – | 25.0 | 1 | 0.0 |"
    text = page.page(there, tmp_path)
    assert "–: GDA head (published shrinkage) refuses 1 shot: on nouns, for example, “11 pictures”." in text
    assert "- nouns, gda: 1/1, 1/2, 4/1, 4/2, 16/1, 16/2" in text
    assert "All 3 runs (1 of them refused) took" in text


def test_the_page_names_what_was_not_run(tmp_path: Path) -> None:
    write_run(tmp_path, Job("edge", "nouns", 16, 1, QUERIES), [moment(1, 2.0, 0.5)])
    there = runs.load(tmp_path)
    text = page.page(there, tmp_path)
    assert "- nouns, edge: 1/0, 1/1, 1/2, 4/0, 4/1, 4/2, 16/0, 16/2" in text
    assert "- nouns, cma: all" in text and "- digits: all" in text
    assert "| not run |" in text and "Of 32 targets 0 are met, 0 are not, 32 are not run." in text


def test_the_page_is_the_one_that_the_bench_wrote() -> None:
    there = runs.load(runs.RESULTS)
    assert page.PAGE.read_text(encoding="utf-8") == page.page(there, runs.RESULTS)


def test_strangers_are_told_with_how_many_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = {"accuracy": 0.7, "kept": 0.65, "called_none": 0.06, "told": 0.3, "strangers": {}}
    with_some = run | {"strangers": {"nouns": {"pictures": 61, "caught": 0.25}}}
    results = {"machine": {}, "share": 0.05, "tasks": {"subgroups": [with_some] * 2, "nouns": [run] * 2}}
    path = tmp_path / "strangers.json"
    monkeypatch.setattr(strangers, "RESULTS", path)
    assert strangers.section() == []
    path.write_text(json.dumps(results), encoding="utf-8")
    monkeypatch.setattr(strangers, "one_line", str)
    _, said, table_lines, *_ = strangers.section()
    assert "all but 5 %" in said and "2 draws" in said
    assert table_lines[2] == "| subgroups | 70.0 | 65.0 | 6.0 | 30.0 | | 25.0 (61) |"
