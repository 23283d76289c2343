"""The part of docs/accuracy.md on pictures of no class, from what bench/strangers.py measured."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from shared.machine import ROOT, one_line
from shared.pages import markdown_table, read_results

RESULTS = ROOT / "bench" / "results" / "strangers.json"

ABOUT = """\
Strangers are test pictures of other tasks, without the classes that share a picture with a class of the task.
(Digits are no strangers to `subgroups`, which has a class alphanum.) A picture is called none of the classes
where its largest logit is lower than all but {share} of left-out pictures' (`tune --none`). The head alone,
up to 16 shots and 4 more pictures a class, {seeds} draws; emoji tasks have no more pictures, so their draws
are alike. *Told by tune*: the share of strangers that it expects beforehand, each class left out in turn.
The score was chosen on the development set ([development.md](development.md)). `make bench-strangers`
measures this. All figures in percent, with the number of strangers in brackets."""

OF_FIGURES = """\
Known test pictures are called none more often than left-out ones. In the emoji tasks, the model never saw
the test emoji in any style, while it knows those to tune on in other styles. The model was trained on emoji
alone, and by the largest logit it takes most digits for known emoji. Emoji among digits are seen at once."""


def section() -> list[str | list[str]]:
    """Its paragraphs; nothing where it was not measured."""
    if not RESULTS.exists():
        return []
    results = read_results(RESULTS)
    tasks = list(results["tasks"])
    header = ["task", "accuracy", "right and not called none", "known called none", "told by tune"]
    rows = [
        [
            name,
            *(_mean(runs, key) for key in ("accuracy", "kept", "called_none", "told")),
            *_caught(runs, tasks),
        ]
        for name, runs in results["tasks"].items()
    ]
    seeds = len(next(iter(results["tasks"].values())))
    return [
        "## None of the classes",
        ABOUT.format(share=f"{100 * results['share']:.0f} %", seeds=seeds),
        markdown_table([*header, *(f"strangers caught: {task}" for task in tasks)], rows),
        OF_FIGURES,
        one_line(results["machine"]),
    ]


def _mean(runs: Sequence[dict[str, Any]], key: str) -> str:
    return f"{100 * statistics.fmean(run[key] for run in runs):.1f}"


def _caught(runs: Sequence[dict[str, Any]], tasks: Sequence[str]) -> list[str]:
    """For each task of strangers the share that is caught, and how many there are."""
    cells = []
    for task in tasks:
        found = [run["strangers"][task] for run in runs if task in run["strangers"]]
        share = statistics.fmean(each["caught"] for each in found) if found else 0.0
        cells.append(f"{100 * share:.1f} ({found[0]['pictures']})" if found else "")
    return cells
