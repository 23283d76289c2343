"""Which closed-form head to choose, and how, on the development set.

    python -m develop.head_study --work DIR [--seeds 0 1 2]

Every head is fitted to all drawn pictures and sees no others. Writes bench/results/develop/heads.json, and
the table of docs/development.md.
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
from sharpzo_edge.heads.fit import AUTO, best_head
from sharpzo_edge.heads.gaussian import Gaussian
from sharpzo_edge.heads.head import Head
from sharpzo_edge.heads.kernel import Kernel
from sharpzo_edge.heads.leave_one_out import Pictures, choose
from sharpzo_edge.search.losses import logits_of
from sharpzo_edge.types import Floats, LabelledFeatures

from .data import MODELS, TASKS, Drawn, drawn, pictures_of, words_features

RESULTS = ROOT / "bench" / "results" / "develop" / "heads.json"
PAGE = ROOT / "docs" / "development.md"
SHOTS = (1, 2, 4, 8, 16)
TIP_SHARPNESS, TIP_WEIGHTS = (1.0, 2.0, 4.0, 8.0), (0.0, 0.3, 1.0, 3.0, 10.0, 30.0)


@dataclass(frozen=True, eq=False)
class Case:
    """Pictures to fit to, words, and pictures to test on."""

    pictures: Pictures
    features: Floats
    words: Floats

    @property
    def labels(self) -> NDArray[np.int64]:
        return self.pictures.pictures.labels

    @property
    def shots(self) -> Floats:
        return self.pictures.pictures.features[:]

    @property
    def words_on_shots(self) -> Floats:
        return logits_of(self.shots, self.pictures.class_features, self.pictures.logit_scale)


Answer = Floats | NDArray[np.float64]


def only_words(case: Case) -> Answer:
    return case.words


def answered(head: Head | None, case: Case) -> Answer:
    if head is None:
        return case.words
    return head.logits(case.features, case.pictures.class_features, case.pictures.logit_scale)


def of_kind(kind: str) -> Callable[[Case], Answer]:
    def answer(case: Case) -> Answer:
        found = best_head(case.pictures, kind)
        return answered(found.head if found else None, case)

    return answer


def fixed_kernel(case: Case) -> Answer:
    found = Kernel.of(case.pictures)
    return answered(found.unmeasured() if found else None, case)


def fixed_gda(case: Case) -> Answer:
    """The published shrinkage, the weight by leave-one-out."""
    found = Gaussian.of(case.pictures)
    chosen = choose(case.pictures, [found.at(1.0)]) if found else None
    return answered(chosen.head if chosen else None, case)


def tip_adapter(case: Case) -> Answer:
    """Tip-Adapter, by left-out accuracy: a picture is no neighbour of itself."""
    X, onehot = case.shots.astype(np.float64), np.eye(case.words.shape[1])[case.labels]
    best = (-1.0, 0.0, 0.0)
    for sharpness, weight in itertools.product(TIP_SHARPNESS, TIP_WEIGHTS):
        k = np.exp(-sharpness * (1 - X @ X.T))
        np.fill_diagonal(k, 0)
        right = float(((case.words_on_shots + weight * k @ onehot).argmax(axis=1) == case.labels).mean())
        best = max(best, (right, sharpness, weight), key=lambda each: each[0])
    _, sharpness, weight = best
    return case.words + weight * np.exp(-sharpness * (1 - case.features @ X.T)) @ onehot


def text_and_means(case: Case) -> Answer:
    """SS-Text's kind: words and class means as one, nothing to choose."""
    K = case.words.shape[1]
    means = np.stack([case.shots[case.labels == k].mean(axis=0) for k in range(K)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    return np.asarray(case.features @ (means + case.pictures.class_features).T)


HEADS: dict[str, Callable[[Case], Answer]] = {
    "the words alone": only_words,
    "kernel, fixed numbers": fixed_kernel,
    "kernel": of_kind("kernel"),
    "ridge": of_kind("ridge"),
    "GDA, shrinkage 1": fixed_gda,
    "GDA": of_kind("gda"),
    "auto": of_kind(AUTO),
    "Tip-Adapter": tip_adapter,
    "words and class means": text_and_means,
}


def case_of(found: Drawn, words: Floats, shots: int) -> Case:
    train = pictures_of(found.classes, [slice(0, shots)] * len(found.classes))
    scale = found.bundle.manifest.logit_scale
    features = found.tests["test"].features[:]
    together = LabelledFeatures(train.features[:], train.labels)
    return Case(Pictures(together, words, scale), features, logits_of(features, words, scale))


def measured(work: Path, seeds: list[int]) -> dict[str, dict[str, float]]:
    """Head -> shots -> mean test accuracy in percent."""
    right: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for model, task, seed in itertools.product(MODELS, TASKS, seeds):
        found = drawn(work, model, task, seed)
        words = words_features(found.bundle, found.task.class_names)
        labels = found.tests["test"].labels
        for shots in SHOTS:
            case = case_of(found, words, shots)
            for name, answer in HEADS.items():
                right[name][str(shots)].append(float((answer(case).argmax(axis=1) == labels).mean()))
        print(model, task, seed, flush=True)
    return {
        name: {shots: round(100 * float(np.mean(values)), 2) for shots, values in of_shots.items()}
        for name, of_shots in right.items()
    }


def write_page(results: dict[str, Any]) -> None:
    rows = [
        [name, *(f"{value:.1f}" for value in of_shots.values())]
        for name, of_shots in results["test_accuracy"].items()
    ]
    header = ["shots a class", *map(str, SHOTS)]
    said = f"{results['runs']} draws for each figure. {one_line(results['machine'])}"
    replace_between(PAGE, "heads", "\n".join([*markdown_table(header, rows), "", said]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    found = measured(given.work, given.seeds)
    runs = len(MODELS) * len(TASKS) * len(given.seeds)
    write_page(keep_results({"machine": describe_machine(), "runs": runs, "test_accuracy": found}, RESULTS))


if __name__ == "__main__":
    main()
