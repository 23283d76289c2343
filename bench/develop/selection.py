"""Which evaluation of a run to keep where classes have unequal numbers of pictures to validate on.

    python -m develop.selection --work DIR [--seeds 0]

Tunes on many shapes of imbalance, and reckons what each rule of choosing would have kept. Writes
bench/results/develop/selection.json, and the table of docs/development.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shared.machine import ROOT, describe_machine, one_line
from shared.pages import keep_results, markdown_table, replace_between
from shared.workers import as_done, workers
from sharpzo_edge.run.files import write_json
from sharpzo_edge.search.losses import cross_entropies, logits_of
from sharpzo_edge.tuning.loop import Update
from sharpzo_edge.tuning.presets import EDGE
from sharpzo_edge.types import Floats, LabelledFeatures

from .data import MODELS, TASKS, Drawn, drawn, pictures_of, tuned

PAGE = ROOT / "docs" / "development.md"
RESULTS = ROOT / "bench" / "results" / "develop" / "selection.json"
QUERIES = 2_000
SHOTS, N_VAL = 8, 4
HELD_BACK = 5  # one picture in so many is held back where there are none beyond the shots

# How many pictures each of K classes has, by the class's number.
SHAPES: dict[str, Callable[[int], list[int]]] = {
    "all with validation": lambda K: [12] * K,
    "none with validation": lambda K: [8] * K,
    "one rich class": lambda K: [12] + [8] * (K - 1),
    "one class with one more": lambda K: [9] + [8] * (K - 1),
    "one poor class": lambda K: [3] + [12] * (K - 1),
    "one class without": lambda K: [8] + [12] * (K - 1),
    "every other rich": lambda K: [12 if k % 2 else 8 for k in range(K)],
    "long tail": lambda K: [max(1, round(12 * 0.8**k)) for k in range(K)],
    "long tail of small": lambda K: [max(1, round(20 * 0.6**k)) for k in range(K)],
    "one in five has one more": lambda K: [8 + (k % 5 == 0) for k in range(K)],
}


def split_as_now(n: int) -> tuple[slice, slice]:
    """Shots first; what is beyond them validates."""
    return slice(0, min(n, SHOTS)), slice(SHOTS, min(n, SHOTS + N_VAL))


def split_held_back(n: int) -> tuple[slice, slice]:
    """Some are held back where there are not enough beyond the shots."""
    n_val = min(N_VAL, max(n - SHOTS, n // HELD_BACK))
    n_shots = min(SHOTS, n - n_val)
    return slice(0, n_shots), slice(n_shots, n_shots + n_val)


SPLITS = {"as now": split_as_now, "held back": split_held_back}


@dataclasses.dataclass(frozen=True)
class Job:
    work: Path
    model: str
    task: str
    shape: str
    split: str
    seed: int


def by_class(T: Floats, pictures: LabelledFeatures, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean loss and accuracy of each class; NaN for a class without pictures."""
    n_classes = len(T)
    loss, right = np.full(n_classes, np.nan), np.full(n_classes, np.nan)
    if len(pictures):
        logits = logits_of(pictures.features[:], T, scale)
        losses, hits = cross_entropies(logits, pictures.labels), logits.argmax(axis=1) == pictures.labels
        for k in np.unique(pictures.labels):
            loss[k], right[k] = losses[pictures.labels == k].mean(), hits[pictures.labels == k].mean()
    return loss, right


def listed(values: np.ndarray) -> list[float | None]:
    """For JSON, which has no NaN."""
    return [None if np.isnan(value) else float(value) for value in values]


def figures_of(row: dict[str, Any], key: str) -> np.ndarray:
    """The same as an array again."""
    return np.array(row[key], float)


def run(job: Job) -> dict[str, Any]:
    """One tune without patience: what every rule needs of every evaluation, and the test accuracy there."""
    found: Drawn = drawn(job.work, job.model, job.task, job.seed)
    order = np.random.default_rng(job.seed).permutation(len(found.classes))
    sizes = np.empty(len(order), int)
    sizes[order] = SHAPES[job.shape](len(order))
    parts = [SPLITS[job.split](min(n, len(rows))) for n, rows in zip(sizes, found.classes, strict=True)]
    train = pictures_of(found.classes, [p[0] for p in parts])
    val = pictures_of(found.classes, [p[1] for p in parts])
    scale = found.bundle.manifest.logit_scale
    rows: list[dict[str, Any]] = []

    def see(update: Update) -> None:
        T = update.state.latest.class_features
        train_loss, train_right = by_class(T, train, scale)
        val_loss, val_right = by_class(T, val, scale)
        test = found.tests["test"]
        hit = logits_of(test.features[:], T, scale).argmax(axis=1) == test.labels
        rows.append(
            {
                "queries": update.state.queries,
                "is_stage2": update.state.stage > 1,
                "train_loss": listed(train_loss),
                "train_right": listed(train_right),
                "val_loss": listed(val_loss),
                "val_right": listed(val_right),
                "test": float(hit.mean()),
            }
        )

    settings = dataclasses.replace(EDGE, patience=0)
    tuned(found.bundle, found.task.class_names, settings, train, val, job.seed, QUERIES, see)
    n_val = np.bincount(val.labels, minlength=len(order)).tolist()
    about = {k: v for k, v in dataclasses.asdict(job).items() if k != "work"}
    return {**about, "n_val": n_val, "rows": rows}


# The rules: the rows of a run and how many pictures each class has to validate on -> the row that is kept.


def _last(rows: Sequence[Any], n_val: np.ndarray) -> int:
    return len(rows) - 1


def _least(losses: Sequence[float]) -> int:
    return int(np.argmin(losses))


def _by_picture(rows: Sequence[Any], n_val: np.ndarray) -> int:
    if not n_val.any():
        return len(rows) - 1
    return _least([float(np.nansum(figures_of(r, "val_loss") * n_val) / n_val.sum()) for r in rows])


def _by_class(rows: Sequence[Any], n_val: np.ndarray) -> int:
    if not n_val.any():
        return len(rows) - 1
    return _least([float(np.nanmean(figures_of(r, "val_loss"))) for r in rows])


def _shots_stand_in(rows: Sequence[Any], n_val: np.ndarray) -> int:
    def worth(row: Any) -> float:
        return float(np.where(n_val > 0, figures_of(row, "val_loss"), figures_of(row, "train_loss")).mean())

    return _least([worth(r) for r in rows]) if n_val.any() else len(rows) - 1


def _all_or_last(rows: Sequence[Any], n_val: np.ndarray) -> int:
    return _by_class(rows, n_val) if n_val.all() else len(rows) - 1


def _half_or_last(rows: Sequence[Any], n_val: np.ndarray) -> int:
    return _by_class(rows, n_val) if 2 * (n_val > 0).sum() > len(n_val) else len(rows) - 1


def _half_stand_in(rows: Sequence[Any], n_val: np.ndarray) -> int:
    return _shots_stand_in(rows, n_val) if 2 * (n_val > 0).sum() > len(n_val) else len(rows) - 1


def _best(rows: Sequence[Any], n_val: np.ndarray) -> int:
    return int(np.argmax([r["test"] for r in rows]))


Rule = Callable[[Sequence[Any], np.ndarray], int]
RULES: dict[str, Rule] = {
    "the last one": _last,
    "by picture": _by_picture,
    "by class": _by_class,
    "by class if all have some": _all_or_last,
    "by class if half have some": _half_or_last,
    "shots stand in": _shots_stand_in,
    "shots stand in if half have some": _half_stand_in,
    "best on test": _best,
}
ALL_SHAPES = "all shapes"


def accuracy(runs: Sequence[dict[str, Any]], rule: Rule) -> float:
    """The mean test accuracy of what a rule keeps, in percent."""
    kept = [run["rows"][rule(run["rows"], np.array(run["n_val"]))]["test"] for run in runs]
    return round(100 * float(np.mean(kept)), 2)


def figures(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Split -> shape, or all shapes -> rule -> accuracy."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for split, shape in itertools.product(SPLITS, (*SHAPES, ALL_SHAPES)):
        some = [r for r in runs if r["split"] == split and shape in (r["shape"], ALL_SHAPES)]
        found.setdefault(split, {})[shape] = {name: accuracy(some, rule) for name, rule in RULES.items()}
    return found


def write_page(results: dict[str, Any]) -> None:
    """The table of docs/development.md."""
    for split, name in (("as now", "selection"), ("held back", "selection, held back")):
        by_shape = results["test_accuracy"][split]
        rows = [[shape, *(f"{value:.1f}" for value in by_shape[shape].values())] for shape in by_shape]
        if split != "as now":
            rows = rows[-1:]
        lines = [
            *markdown_table(["pictures", *RULES], rows),
            "",
            f"{results['runs'][split]} runs. {one_line(results['machine'])}",
        ]
        replace_between(PAGE, name, "\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--jobs", type=int, default=1)
    given = parser.parse_args()
    each = itertools.product(given.models, TASKS, SHAPES, SPLITS, given.seeds)
    jobs = [Job(given.work, *values) for values in each]
    kept = given.work / "selection"
    kept.mkdir(exist_ok=True)

    def path(job: Job) -> Path:
        name = f"{job.model}-{job.task}-{job.shape}-{job.split}-{job.seed}.json"
        return Path(kept, name.replace(" ", "_"))

    todo = [job for job in jobs if not path(job).exists()]
    with workers(given.jobs) as client:
        for number, result in as_done(client, run, [(job,) for job in todo]):
            if result is not None:
                write_json(path(todo[number]), result)
    runs = [json.loads(path(job).read_bytes()) for job in jobs]
    counts = {split: sum(r["split"] == split for r in runs) for split in SPLITS}
    results = {"machine": describe_machine(), "runs": counts, "test_accuracy": figures(runs)}
    write_page(keep_results(results, RESULTS))


if __name__ == "__main__":
    main()
