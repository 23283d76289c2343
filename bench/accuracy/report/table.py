"""The tables: methods by tasks, by shots, by styles; what a fixed accuracy takes; what each part adds."""

from __future__ import annotations

import json
import math
import operator
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from shared.pages import markdown_table, mean_and_spread

from ..harness.ablations import ABLATIONS, BASE
from ..harness.ablations import QUERIES as ABLATION_QUERIES
from ..harness.ablations import TASKS as ABLATION_TASKS
from ..harness.jobs import MOST_SHOTS, QUERIES, RUN_IN_FULL, SEEDS, SHOTS, shots_of
from ..harness.runs import (
    DASH,
    EDGE,
    NOT_RUN,
    PICTURES,
    REFUSED,
    Figures,
    Pairs,
    Run,
    Runs,
    by_use,
    first_to_reach,
    in_full,
    paired,
    shift,
    until,
)
from ..methods.all_methods import METHODS
from ..methods.method import IN_USE
from .targets import COOP, EDGE_QUERIES, PAPER, counted


def plain(values: Sequence[float], digits: int = 2) -> str:
    """Mean and spread (standard deviation over the seeds)."""
    return mean_and_spread(values, digits) if values else NOT_RUN


def percent(values: Sequence[float]) -> str:
    """The same of fractions."""
    return plain([100 * value for value in values], digits=1)


def over_tasks(
    runs: Runs,
    row: Row,
    shots: int,
    figure: Callable[[Figures], float | None] = lambda f: f["test_accuracy"],
) -> str:
    """The mean over tasks of the means over seeds, and the spread over seeds of the means over tasks.

    Only seeds and tasks that are there; how many tasks, when not all of those that have the figure are.
    """
    by_seed: dict[int, list[float]] = {}
    tasks, of = set(), 0
    for task in runs.tasks:
        of += any(figure(r["best"]) is not None for (_, t, _, _), r in runs.by_key.items() if t == task)
        for run in runs.of(row.method, task, shots):
            value = figure(until(run, row.queries))
            if value is not None:
                by_seed.setdefault(run["seed"], []).append(value)
                tasks.add(task)
    if not tasks:
        is_left_out = METHODS[row.method].kind == "picture" and shots < MOST_SHOTS
        return "" if is_left_out else runs.absence(row.method, shots)
    complete = [statistics.fmean(v) for v in by_seed.values() if len(v) == len(tasks)]
    if not complete:
        complete = [statistics.fmean(v for values in by_seed.values() for v in values)]
    return percent(complete) + (f" ({len(tasks)} of {of} tasks)" if len(tasks) < of else "")


@dataclass(frozen=True)
class Row:
    """A row of the tables: what a method returns within so many queries; None: the runs in full alone."""

    method: str
    label: str
    queries: int | None = QUERIES

    def takes(self, run: Run) -> bool:
        return self.queries is not None or in_full(run)


def rows_of() -> list[Row]:
    """Edge as it ships, and with the rivals' budget."""
    rows = [Row(name, method.label) for name, method in METHODS.items()]
    edge = next(i for i, row in enumerate(rows) if row.method == EDGE)
    label = METHODS[EDGE].label
    both = [Row(EDGE, f"**{label}**", EDGE_QUERIES), Row(EDGE, f"{label}, {QUERIES:,} queries")]
    return [*rows[:edge], *both, *rows[edge + 1 :]]


def rows_in_full(runs: Runs) -> list[Row]:
    """Of the methods that were run for their own length somewhere."""
    there = {run["method"] for run in runs.by_key.values() if in_full(run)}
    return [Row(name, f"{METHODS[name].label}, in full", None) for name in RUN_IN_FULL if name in there]


def pictures(runs: Runs, results: Path) -> list[str]:
    """Of every task, in a draw of 16 shots."""
    try:
        counts = json.loads((results / PICTURES).read_bytes())
    except FileNotFoundError:
        return [NOT_RUN]
    drawn = [(task, counts[task], counts[task]["shots"][str(MOST_SHOTS)]) for task in runs.tasks]
    rows = [
        [
            task,
            str(about["classes"]),
            f"{of['train']}, {of['train'] / about['classes']:.1f} a class",
            f"{of['val']}, of {of['val_classes']} classes",
        ]
        for task, about, of in drawn
    ]
    return markdown_table(["16 shots", "classes", "to tune on", "to validate on"], rows)


def by_task(runs: Runs) -> list[str]:
    """Test accuracy."""
    rows = [*rows_of(), *rows_in_full(runs)]
    return markdown_table(["", *runs.tasks], cells_by_task(runs, rows, lambda f: f["test_accuracy"], percent))


def losses(runs: Runs) -> list[str]:
    """What the training loss is at the results, and how many exact gradients edge's is worth."""
    rows = [row for row in rows_of() if row.method == EDGE or METHODS[row.method].kind == "backprop"]
    rows += [row for row in rows_in_full(runs) if row.method == PAPER]
    steps = [f"steps of {METHODS[COOP].label} to edge's at {EDGE_QUERIES:,}"]
    steps += [steps_to_edge(runs, task) for task in runs.tasks]
    cells = cells_by_task(runs, rows, lambda f: f["train_loss"], plain)
    return markdown_table(["training loss", *runs.tasks], [*cells, steps])


def steps_to_edge(runs: Runs, task: str) -> str:
    """The median of the first looks of CoOp in w whose loss is no higher; a look is every so many steps."""
    found = []
    for seed in SEEDS:
        edge, coop = (runs.get(m, task, MOST_SHOTS, seed) for m in (EDGE, COOP))
        if edge and coop:
            is_enough = partial(operator.ge, until(edge, EDGE_QUERIES)["train_loss"])
            reached = first_to_reach(coop, "train_loss", is_enough)
            found.append(math.inf if reached is None else reached[0] - 1)  # its first query is no step
    middle = statistics.median(found) if found else None
    return NOT_RUN if middle is None else "never" if middle == math.inf else f"{middle:.0f}"


def cells_by_task(
    runs: Runs,
    rows: Sequence[Row],
    figure: Callable[[Figures], float],
    show: Callable[[Sequence[float]], str],
) -> Iterable[list[str]]:
    """Of every row its label, then of every task the figure of the results at 16 shots."""

    def cell(row: Row, task: str) -> str:
        if not shots_of(METHODS[row.method], task, runs.tasks[0]):
            return ""
        found = [figure(until(r, row.queries)) for r in runs.of(row.method, task) if row.takes(r)]
        if not found:
            return "" if row.queries is None else runs.absence(row.method, MOST_SHOTS, task)
        lacking = f" ({len(found)} of {len(SEEDS)} seeds)" * (0 < len(found) < len(SEEDS))
        return show(found) + lacking

    return ([row.label, *(cell(row, task) for task in runs.tasks)] for row in rows)


def by_shots(runs: Runs) -> list[str]:
    """The short table: every method over all tasks."""
    header = ["mean over tasks, %", *(f"{n} shot{'s'[: n > 1]}" for n in reversed(SHOTS))]
    header += ["shifted styles, 16 shots", "queries", "seconds"]
    return markdown_table(
        header,
        (
            [
                row.label,
                *(over_tasks(runs, row, n) for n in reversed(SHOTS)),
                over_tasks(runs, row, MOST_SHOTS, shift),
                *spent(runs, row.method, row.queries),
            ]
            for row in rows_of()
        ),
    )


def ways_to_label(runs: Runs) -> list[str]:
    """What `tune` has at its end, by each way to label: means over tasks, spread over seeds."""
    rows = []
    for use in ("words", "prompt", "head", "both", IN_USE):
        cells = []
        for shots in reversed(SHOTS):
            found: dict[int, list[float]] = {}
            for task in runs.tasks:
                for run in runs.of(EDGE, task, shots):
                    if way := by_use(run, use):
                        found.setdefault(run["seed"], []).append(way["test_accuracy"])
            cells.append(percent([statistics.fmean(values) for values in found.values()]))
        rows.append([f"**{use}**" if use == IN_USE else use, *cells])
    header = ["tune with no options, %", *(f"{n} shot{'s'[: n > 1]}" for n in reversed(SHOTS))]
    return markdown_table(header, rows)


def spent(runs: Runs, method: str, queries: int | None) -> tuple[str, str]:
    """Means of what a run takes at 16 shots, or has taken when so many queries are spent; None: all."""
    found = [run for task in runs.tasks for run in runs.of(method, task)]
    if not found:
        absence = runs.absence(method)
        return absence, absence
    ends = [end_of(run, queries) for run in found]
    n, seconds = (statistics.fmean(column) for column in zip(*ends, strict=True))
    return f"{n:,.0f}", f"{seconds:,.1f}"


def end_of(run: Run, queries: int | None) -> tuple[int, float]:
    """Queries and seconds when a run ends, or at the last moment before its budget does."""
    pairs = zip(run["curve"]["queries"], run["curve"]["seconds"], strict=True)
    return max(pair for pair in pairs if queries is None or pair[0] <= queries)


def accuracy_in(style: str) -> Callable[[Figures], float | None]:
    return lambda figures: figures["shift_accuracy"].get(style)


def by_style(runs: Runs) -> list[str]:
    styles = sorted({style for run in runs.by_key.values() for style in run["best"]["shift_accuracy"]})
    return markdown_table(
        ["mean over tasks, %", *styles],
        (
            [
                row.label,
                *(over_tasks(runs, row, MOST_SHOTS, accuracy_in(style)) for style in styles),
            ]
            for row in rows_of()
        ),
    )


def to_fixed_accuracy(runs: Runs) -> list[str]:
    """Per task: paper's mean headline is the mark."""

    def mark(task: str) -> float | None:
        found = [r["best"]["test_accuracy"] for r in runs.of(PAPER, task)]
        return statistics.fmean(found) if found else None

    def cell(method: str, task: str) -> str:
        found, goal = runs.of(method, task), mark(task)
        if not shots_of(METHODS[method], task, runs.tasks[0]):
            return ""
        if goal is None or not found:
            return NOT_RUN if found else runs.absence(method, MOST_SHOTS, task)
        reached = [r for run in found if (r := first_to_reach(run, "test_accuracy", lambda a: a >= goal))]
        if not reached:
            return f"never (0 of {len(found)})"
        queries, seconds = (statistics.median(column) for column in zip(*reached, strict=True))
        return f"{queries:,.0f} in {seconds:,.1f} s ({len(reached)} of {len(found)})"

    marks = [f"{100 * goal:.1f} %" if (goal := mark(task)) is not None else NOT_RUN for task in runs.tasks]
    rows = [[m.label, *(cell(name, task) for task in runs.tasks)] for name, m in METHODS.items()]
    return markdown_table(["", *runs.tasks], [["the mark", *marks], *rows])


def differences(runs: Runs) -> list[str]:
    """Of the runs in full with those that ran in full alone."""
    rows = []
    rivals = [row for row in rows_of() if row.method != EDGE]
    for row in (*rivals, *rows_in_full(runs)):
        at_2000, at_8000 = (
            paired(runs, row.method, ours, row.queries, where=row.takes) for ours in (EDGE_QUERIES, QUERIES)
        )
        shifted = paired(runs, row.method, EDGE_QUERIES, row.queries, shift, row.takes)
        cells = [str(p) if p.differences else runs.absence(row.method) for p in (at_2000, at_8000, shifted)]
        rows.append([row.label, *cells, str(len(at_2000.differences))])
    header = [
        f"edge less …, at {QUERIES:,} queries",
        f"edge at {EDGE_QUERIES:,}",
        f"edge at {QUERIES:,}",
        f"shifted styles, edge at {EDGE_QUERIES:,}",
        "pairs",
    ]
    return markdown_table(header, rows)


def parts(runs: Runs) -> list[str]:
    """The ablations, each beside edge at as many queries."""

    def pairs(name: str, key: Callable[[Figures], float]) -> list[tuple[float, float]]:
        keys = [(task, seed) for task in ABLATION_TASKS for seed in SEEDS]
        both = ((runs.get(BASE, t, MOST_SHOTS, s), runs.get(name, t, MOST_SHOTS, s)) for t, s in keys)
        return [
            (key(until(a, ABLATION_QUERIES)), key(until(b, ABLATION_QUERIES))) for a, b in both if a and b
        ]

    rows = []
    whole = [until(run, ABLATION_QUERIES) for task in ABLATION_TASKS for run in runs.of(BASE, task)]
    if whole:
        accuracy = 100 * statistics.fmean(f["test_accuracy"] for f in whole)
        loss = statistics.fmean(f["train_loss"] for f in whole)
        rows.append([METHODS[BASE].label, f"{accuracy:.1f}", "", f"{loss:.3f}"])
    for name, method in ABLATIONS.items():
        found = pairs(name, lambda f: 100 * f["test_accuracy"])
        if not found:
            rows.append([method.label, NOT_RUN, "", ""])
            continue
        loss = statistics.fmean(b for _, b in pairs(name, lambda f: f["train_loss"]))
        change = Pairs([b - a for a, b in found])
        rows.append(
            [method.label, f"{statistics.fmean(b for _, b in found):.1f}", str(change), f"{loss:.3f}"]
        )
    return markdown_table(["", "test accuracy, %", "change, points", "training loss"], rows)


def refusals(runs: Runs, shots: Sequence[int]) -> list[str]:
    """Why a method has a dash in a table of these shots: what it said on the first such task."""
    reasons: dict[tuple[str, int], str] = {}
    for (method, task, n, _), run in runs.refused.items():
        reason, _, _ = run[REFUSED].partition(". ")
        if n in shots:
            reasons.setdefault((method, n), f"on {task}, for example, “{reason}”")
    return [
        f"{DASH}: {METHODS[method].label} refuses {counted(n, 'shot')}: {reason}."
        for (method, n), reason in reasons.items()
    ]


def chosen_settings(chosen: Mapping[str, Any]) -> list[str]:
    """Of chosen.json."""
    return markdown_table(
        ["", "chosen", "of", "validation, %"],
        (
            [
                METHODS[name].label,
                ", ".join(f"{key} {value}" for key, value in entry["chosen"].items()),
                f"{len(entry['points'])} points",
                f"{100 * max(point['val_accuracy'] or 0 for point in entry['points']):.1f}",
            ]
            for name, entry in chosen["methods"].items()
            if name in METHODS and entry["points"]
        ),
    )


def compared(new: Runs, old: Runs) -> list[str]:
    """Every run beside the one that it redoes."""
    rows = []
    for key, run in new.by_key.items():
        before = old.by_key.get(key)
        if before:
            pair = [100 * r["best"]["test_accuracy"] for r in (before, run)]
            losses = [r["best"]["train_loss"] for r in (before, run)]
            rows.append(
                [*map(str, key), *(f"{p:.1f}" for p in pair), f"{pair[1] - pair[0]:+.1f}", *map(str, losses)]
            )
    header = ["method", "task", "shots", "seed", "test before, %", "now", "change", "loss before", "now"]
    return markdown_table(header, rows)
