"""Edge's defaults, and which way to label is the best, on the development set.

    python -m develop.defaults --work DIR [--seeds 0]

Runs a tune for each candidate, as `tune` would, and reads what words, prompt, head and both are worth on test
pictures. Runs that are in DIR/defaults already are kept. Writes bench/results/develop/defaults.json, and
tables of docs/development.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shared.machine import ROOT, describe_machine, one_line
from shared.pages import keep_results, markdown_table, replace_between
from sharpzo_edge.search.losses import logits_of
from sharpzo_edge.tuning.answers import BOTH, HEAD, PROMPT, USES, WORDS, compare
from sharpzo_edge.tuning.loop import Update
from sharpzo_edge.tuning.objective import Evaluation
from sharpzo_edge.tuning.presets import EDGE
from sharpzo_edge.tuning.stopping import is_better
from sharpzo_edge.types import Floats, joined

from .data import MODELS, TASKS, drawn, pictures_of, tuned, words_features
from .jobs import Job, all_kept

PAGE = ROOT / "docs" / "development.md"
RESULTS = ROOT / "bench" / "results" / "develop" / "defaults.json"
MOST_QUERIES, FEWER_QUERIES = 8_000, 2_000
SPLITS = ((16, 4), (4, 4), (1, 0))  # shots and validation pictures a class
CANDIDATES: dict[str, dict[str, Any]] = {
    "sigma0 1, smoothing 0.1": {"sigma0": 1.0, "label_smoothing": 0.1},  # the default
    "sigma0 0.44, smoothing 0.1": {"sigma0": 0.44, "label_smoothing": 0.1},
    "sigma0 1, smoothing 0": {"sigma0": 1.0, "label_smoothing": 0.0},
    "sigma0 0.44, smoothing 0": {"sigma0": 0.44, "label_smoothing": 0.0},
}
FIRST = next(iter(CANDIDATES))


def run(job: Job) -> dict[str, Any]:
    """One tune: its result within fewer and within all queries, and what each way to label is worth."""
    found = drawn(job.work, job.model, job.task, job.seed)
    shots = slice(0, job.shots), slice(job.shots, job.shots + job.n_val)
    train, val = (pictures_of(found.classes, [part] * len(found.classes)) for part in shots)
    scale, test = found.bundle.manifest.logit_scale, found.tests["test"]
    best: dict[int, Evaluation] = {}
    spent = 0

    def see(update: Update) -> None:
        nonlocal spent
        spent, latest = update.state.queries, update.state.latest
        for most in (FEWER_QUERIES, MOST_QUERIES):
            if spent <= most and (most not in best or is_better(latest, best[most])):
                best[most] = latest

    settings = dataclasses.replace(EDGE, **CANDIDATES[job.candidate])
    tuned(found.bundle, found.task.class_names, settings, train, val, job.seed, MOST_QUERIES, see)
    words = words_features(found.bundle, found.task.class_names)

    def right(logits: Floats) -> float:
        return float((logits.argmax(axis=1) == test.labels).mean())

    T = best[MOST_QUERIES].class_features
    answers = compare("auto", joined(train, val), len(train), words, T, scale)
    F = test.features[:]
    accuracy = {WORDS: right(logits_of(F, words, scale)), PROMPT: right(logits_of(F, T, scale))}
    for use, head, of in ((HEAD, answers.head, words), (BOTH, answers.both, T)):
        accuracy[use] = right(head.head.logits(F, of, scale)) if head else accuracy[WORDS]
    about = {k: v for k, v in dataclasses.asdict(job).items() if k != "work"}
    return {
        **about,
        "queries": spent,
        "loss": {str(most): each.train.loss for most, each in best.items()},
        "test": {str(most): right(logits_of(F, e.class_features, scale)) for most, e in best.items()},
        "by": accuracy,
        "use": answers.use,
        "left_out": dataclasses.asdict(answers.left_out),
        "validated": dataclasses.asdict(answers.validated),
        "by_halves": answers.by_halves,
    }


def mean(values: Sequence[float]) -> float:
    return round(100 * float(np.mean(values)), 2)


def figures(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Split -> what was found there."""
    found: dict[str, Any] = {}
    for shots, n_val in SPLITS:
        some = [r for r in runs if (r["shots"], r["n_val"]) == (shots, n_val)]
        own = {name: [r for r in some if r["candidate"] == name] for name in CANDIDATES}
        found[f"{shots} + {n_val}"] = {
            "candidates": {
                name: {
                    "runs": len(each),
                    "queries": round(float(np.mean([r["queries"] for r in each]))),
                    **{f"test at {most}": mean([r["test"][most] for r in each]) for most in each[0]["test"]},
                    **{
                        f"loss at {most}": round(float(np.mean([r["loss"][most] for r in each])), 3)
                        for most in each[0]["loss"]
                    },
                }
                for name, each in own.items()
                if each
            },
            "by": {use: mean([r["by"][use] for r in own[FIRST]]) for use in USES},
            "in use": mean([r["by"][r["use"]] for r in own[FIRST]]),
            "the best by validation": mean([r["by"][_by_validation(r)] for r in own[FIRST]]),
            "the best on test": mean([max(r["by"].values()) for r in own[FIRST]]),
        }
    return found


def _by_validation(run: dict[str, Any]) -> str:
    """The way that is the best on validation pictures; the head among equals, and without them."""
    order = (HEAD, BOTH, PROMPT, WORDS)
    return max(order, key=lambda use: (run["validated"][use] or 0, -order.index(use)))


def write_page(results: dict[str, Any]) -> None:
    rows, uses = [], []
    for split, found in results["splits"].items():
        for name, each in found["candidates"].items():
            cells = [f"{each[f'test at {most}']:.1f}" for most in (FEWER_QUERIES, MOST_QUERIES)]
            cells += [f"{each[f'loss at {most}']:.2f}" for most in (FEWER_QUERIES, MOST_QUERIES)]
            rows.append([split, name, str(each["runs"]), *cells, f"{each['queries']:,}"])
        figures = [
            *found["by"].values(),
            *(found[n] for n in ("in use", "the best by validation", "the best on test")),
        ]
        uses.append([split, *(f"{value:.1f}" for value in figures)])
    header = ["shots + validation", "candidate", "runs"]
    header += [f"accuracy, {FEWER_QUERIES:,} queries", f"{MOST_QUERIES:,}", f"loss, {FEWER_QUERIES:,}"]
    said = one_line(results["machine"])
    table = markdown_table([*header, f"{MOST_QUERIES:,}", "queries"], rows)
    replace_between(PAGE, "defaults", "\n".join([*table, "", said]))
    header = ["shots + validation", *USES, "what tune uses", "the best by validation", "the best on test"]
    replace_between(PAGE, "use", "\n".join([*markdown_table(header, uses), "", said]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    jobs = [
        Job(given.work, model, task, shots, n_val, candidate, seed)
        for (shots, n_val), seed, candidate, model, task in itertools.product(
            SPLITS, given.seeds, CANDIDATES, MODELS, TASKS
        )
        if candidate == FIRST or shots == SPLITS[0][0]  # elsewhere only what to use is asked
    ]
    runs = all_kept("defaults", run, jobs, given.processes)
    write_page(keep_results({"machine": describe_machine(), "splits": figures(runs)}, RESULTS))


if __name__ == "__main__":
    main()
