"""Which score tells that a picture is of no class, and do probabilities mean what they say?

    python -m develop.known_study --work DIR [--models NAME ...] [--seeds 0 1 2]

A fourth of a task's classes is left out. Its test pictures are near strangers; far ones are test pictures of
the other kind of tasks, emoji or icons, of classes that share no word with the task's. The demo's model
serves as a model, too, where DIR/demo/bundle is its bundle. Writes bench/results/develop/known.json, and two
tables of docs/development.md.
"""

from __future__ import annotations

import argparse
import itertools
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.machine import ROOT, describe_machine, one_line
from shared.pages import keep_results, markdown_table, replace_between
from sharpzo_edge.heads.fit import best_head
from sharpzo_edge.heads.leave_one_out import Pictures
from sharpzo_edge.search.losses import logits_of, softmax
from sharpzo_edge.tuning.answers import calibrated
from sharpzo_edge.tuning.known import Known
from sharpzo_edge.tuning.strangers import caught_by_head
from sharpzo_edge.types import Doubles, Floats, LabelledFeatures

from .data import MODELS, TASKS, drawn, opened, pictures_of, words_features
from .names import IN_OTHER_WORDS
from .together import left_out_logits

RESULTS = ROOT / "bench" / "results" / "develop" / "known.json"
PAGE = ROOT / "docs" / "development.md"
PICTURES = (8, 12, 20)  # of a class, shots and validation pictures together
LEFT_OUT = 4  # one class in so many
SHARE = 0.05
NEAREST = 3
EMOJI = ("groups", "families", "themes")
BORDERS = (0.0, 0.3, 0.5, 0.7, 0.9, 1.0)  # of probabilities


@dataclass(frozen=True, eq=False)
class Asked:
    """Pictures as one way answers them.

    logits:  (N, K)
    nearest: (N,) how alike the nearest known pictures are
    """

    logits: Doubles
    nearest: Doubles

    @property
    def sorted_logits(self) -> Doubles:
        return np.sort(self.logits, axis=1)


Score = Callable[[Asked], Doubles]
SCORES: dict[str, Score] = {
    "the largest probability": lambda asked: softmax(asked.logits).max(axis=1),
    "the two largest logits' difference": lambda asked: (
        asked.sorted_logits[:, -1] - asked.sorted_logits[:, -2]
    ),
    "the largest logit": lambda asked: asked.logits.max(axis=1),
    "log-sum-exp of the logits": lambda asked: np.logaddexp.reduce(asked.logits, axis=1),
    "the nearest pictures": lambda asked: asked.nearest,
}
TOGETHER = "the largest logit and the nearest pictures"


@dataclass(frozen=True, eq=False)
class Case:
    """A task without some of its classes. near, far: features of strangers"""

    pictures: Pictures
    test: LabelledFeatures
    near: Floats
    far: Floats


def case_of(work: Path, model: str, task: str, seed: int, n_pictures: int) -> Case:
    found = drawn(work, model, task, seed)
    n, rng = len(found.classes), np.random.default_rng(seed)
    is_known = np.ones(n, bool)
    is_known[rng.permutation(n)[: max(1, n // LEFT_OUT)]] = False
    names = [IN_OTHER_WORDS.get(name, name) for name in found.task.class_names]
    words = words_features(found.bundle, names)[is_known]
    classes = [rows for rows, known in zip(found.classes, is_known, strict=True) if known]
    train = pictures_of(classes, [slice(0, n_pictures)] * len(classes))
    test, numbers = found.tests["test"], np.cumsum(is_known) - 1
    features, labels = test.features[:], test.labels
    known = is_known[labels]
    return Case(
        Pictures(train, words, found.bundle.manifest.logit_scale),
        LabelledFeatures(features[known], numbers[labels[known]]),
        features[~known],
        far_strangers(work, model, task, names),
    )


def far_strangers(work: Path, model: str, task: str, names: list[str]) -> Floats:
    words = {word for name in names for word in name.split()}
    rows = []
    for other in TASKS:
        if (other in EMOJI) != (task in EMOJI):
            of_other, test = opened(work, model, other)[1], drawn(work, model, other, 0).tests["test"]
            are_other = [not words & {*name.split()} for name in of_other.class_names]
            rows.append(test.features[:][np.array(are_other)[test.labels]])
    return np.concatenate(rows)


def nearest(features: Floats, known: Floats, is_among: bool = False) -> Doubles:
    """The mean cosine to the NEAREST known pictures. is_among: features are the known ones themselves."""
    alike = (features @ known.T).astype(np.float64)
    if is_among:
        np.fill_diagonal(alike, -1)
    found: Doubles = np.sort(alike, axis=1)[:, -NEAREST:].mean(axis=1)
    return found


def auroc(known: Doubles, strangers: Doubles) -> float:
    """How often a known picture's score is above a stranger's."""
    above = np.searchsorted(np.sort(strangers), known) + np.searchsorted(np.sort(strangers), known, "right")
    return float(above.mean() / 2 / len(strangers))


def together(asked: dict[str, Asked]) -> dict[str, Doubles]:
    """Both scores, each in units of its spread over left-out pictures."""
    total = {name: np.zeros(len(each.logits)) for name, each in asked.items()}
    for score in (SCORES["the largest logit"], SCORES["the nearest pictures"]):
        left_out = score(asked["left out"])
        for name, each in asked.items():
            total[name] += (score(each) - left_out.mean()) / left_out.std()
    return total


def judged(scores: dict[str, Doubles]) -> list[float]:
    """AUROC on near and far strangers; the shares of known, near and far pictures that are called none."""
    threshold = Known.of(scores["left out"]).threshold(SHARE)
    below = [
        float((scores[name] < threshold).mean()) if threshold else 0.0 for name in ("known", "near", "far")
    ]
    return [auroc(scores["known"], scores["near"]), auroc(scores["known"], scores["far"]), *below]


def sureness(logits: Doubles, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """(borders - 1, 3): pictures, the sum of their probabilities, and how many are right, by probability."""
    said, right = softmax(logits).max(axis=1), logits.argmax(axis=1) == labels
    place = np.digitize(said, BORDERS[1:-1])
    sums = (np.bincount(place, of, len(BORDERS) - 1) for of in (np.ones(len(said)), said, right))
    return np.stack(list(sums), axis=1)


def measured(work: Path, models: list[str], seeds: list[int]) -> dict[str, Any]:
    figures: dict[str, dict[str, list[list[float]]]] = defaultdict(lambda: defaultdict(list))
    sums: dict[str, NDArray[np.float64]] = defaultdict(lambda: np.zeros((len(BORDERS) - 1, 3)))
    expected: list[tuple[float, float]] = []
    for model, task, seed, n_pictures in itertools.product(models, TASKS, seeds, PICTURES):
        case = case_of(work, model, task, seed, n_pictures)
        pictures, shots = case.pictures, case.pictures.pictures.features[:]
        T, scale = pictures.class_features, pictures.logit_scale
        chosen = best_head(pictures)
        assert chosen is not None and chosen.left_out is not None  # pictures of the development set differ
        head, labels = chosen.head, case.test.labels
        asked_for = {"known": case.test.features[:], "near": case.near, "far": case.far}
        near_by = {name: nearest(F, shots) for name, F in asked_for.items()}
        near_by["left out"] = nearest(shots, shots, is_among=True)
        temperature = calibrated(pictures)
        logits = {
            "head": {name: head.logits(F, T, scale).astype(np.float64) for name, F in asked_for.items()}
            | {"left out": left_out_logits(head, pictures)},
            "words": {
                name: temperature * logits_of(F, T, scale).astype(np.float64)
                for name, F in (asked_for | {"left out": shots}).items()
            },
        }
        for way, by_name in logits.items():
            asked = {name: Asked(z, near_by[name]) for name, z in by_name.items()}
            for name, score in SCORES.items():
                figures[way][name].append(judged({which: score(each) for which, each in asked.items()}))
            figures[way][TOGETHER].append(judged(together(asked)))
            sums[way] += sureness(by_name["known"], labels)
        sums["words, not calibrated"] += sureness(logits["words"]["known"] / temperature, labels)
        if (threshold := Known.of(chosen.left_out.tops).threshold(SHARE)) is not None:
            caught = caught_by_head(head, pictures, threshold, lambda: None)
            assert caught is not None
            actual = (logits["head"]["near"].max(axis=1) < threshold).mean()
            expected.append((caught.share, float(actual)))
        print(model, task, seed, n_pictures, flush=True)
    return {
        "scores": {
            way: {name: np.mean(rows, axis=0).round(4).tolist() for name, rows in by_name.items()}
            for way, by_name in figures.items()
        },
        "sureness": {way: table.round(2).tolist() for way, table in sums.items()},
        "strangers": dict(zip(("told", "caught"), np.mean(expected, axis=0).round(4).tolist(), strict=True)),
    }


def write_page(results: dict[str, Any]) -> None:
    header = ["way", "score", "AUROC, near", "far", "known called none", "near strangers", "far strangers"]
    rows = [
        [
            f"the {way}",
            name,
            *(f"{value:.3f}" for value in values[:2]),
            *(f"{100 * v:.1f} %" for v in values[2:]),
        ]
        for way, by_name in results["scores"].items()
        for name, values in by_name.items()
    ]
    told, caught = (f"{100 * results['strangers'][name]:.1f} %" for name in ("told", "caught"))
    said = [
        f"{results['cases']} cases a figure, models: {', '.join(results['models'])}. With the head and the "
        f"largest logit, `tune` tells beforehand that {told} of strangers are caught, on average: each known "
        f"class is left out. Of the near strangers here it is {caught}.",
        "",
        one_line(results["machine"]),
    ]
    replace_between(PAGE, "known", "\n".join([*markdown_table(header, rows), "", *said]))
    ranges = [f"{100 * low:.0f} to {100 * high:.0f} %" for low, high in itertools.pairwise(BORDERS)]
    rows = [
        [
            f"the {way}",
            *(
                f"{100 * said / n:.0f} / {100 * right / n:.0f} ({n:,.0f})" if n else ""
                for n, said, right in table
            ),
        ]
        for way, table in results["sureness"].items()
    ]
    replace_between(PAGE, "sureness", "\n".join(markdown_table(["way", *ranges], rows)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    found = measured(given.work, given.models, given.seeds)
    cases = len(given.models) * len(TASKS) * len(given.seeds) * len(PICTURES)
    results = {"machine": describe_machine(), "models": list(given.models), "cases": cases, **found}
    write_page(keep_results(results, RESULTS))


if __name__ == "__main__":
    main()
