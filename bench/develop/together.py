"""Prompt and head tuned together, on the development set: does a prompt learn what the head lacks?

    python -m develop.together --work DIR [--models NAME ...] [--tasks NAME ...] [--seeds 0]

The loss of both stages is that of the prompt's logits and the head's together. The head is fitted to the
words and all drawn pictures, and answers for each shot as if that one were left out. Every run has the same
limit of queries. Runs that are in DIR/together already are kept. Prints the table of docs/development.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accuracy.harness.runs import bootstrap
from shared.pages import markdown_table
from sharpzo_edge.heads import gaussian, kernel
from sharpzo_edge.heads.fit import best_head
from sharpzo_edge.heads.gaussian import Gaussian
from sharpzo_edge.heads.head import Head
from sharpzo_edge.heads.kernel import Kernel
from sharpzo_edge.heads.leave_one_out import Group, Pictures
from sharpzo_edge.heads.ridge import Ridge
from sharpzo_edge.search.losses import FeatureLoss, Score, cross_entropies, logits_of
from sharpzo_edge.tuning.loop import Update
from sharpzo_edge.tuning.methods import EdgeMethod
from sharpzo_edge.tuning.objective import Evaluation, Objective
from sharpzo_edge.tuning.presets import EDGE
from sharpzo_edge.tuning.settings import EdgeSettings
from sharpzo_edge.types import Doubles, Floats, LabelledFeatures, joined

from .data import MODELS, TASKS, drawn, pictures_of, tuned, words_features
from .jobs import Job, all_kept

QUERIES = 2_000
SPLITS = ((16, 4), (4, 4))  # shots and validation pictures a class


@dataclasses.dataclass(frozen=True)
class Candidate:
    """What the loss sees: prompt's share times the prompt's logits, and weight times the head's.

    replaces_words: the prompt stands where the words stand in the head, and counts what they count there
    """

    weight: float
    replaces_words: bool = False


ALONE = "the prompt alone"
TOGETHER, AGAIN = "together", "a head on it"  # as they were tuned; a head that is fitted to the tuned prompt
CANDIDATES = {
    ALONE: Candidate(0.0),
    "and 0.3 of the head": Candidate(0.3),
    "and the head": Candidate(1.0),
    "and 3 times the head": Candidate(3.0),
    "in place of the head's words": Candidate(1.0, replaces_words=True),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Beside:
    """Logits = share times the prompt's + those of the head.

    shots, validation: the head's (N, K) and (M, K), each picture left out of the fit
    """

    share: float
    shots: Doubles
    validation: Doubles


class LossBeside(FeatureLoss):
    """The loss of class features whose logits have others added to them."""

    def __init__(self, pictures: LabelledFeatures, logit_scale: float, smoothing: float, added: Doubles):
        super().__init__(pictures, logit_scale, smoothing)
        self._added = added
        self._rows = slice(0, 0)  # those of the block that is at work

    def blocks(self, shape: tuple[int, ...], rank: int = 0) -> Iterator[tuple[Doubles, Doubles]]:
        start = 0
        for X, Y in super().blocks(shape, rank):
            self._rows = slice(start, start := start + len(X))
            yield X, Y

    def logits(self, X: Doubles, class_features: Floats | Doubles) -> Doubles:
        return super().logits(X, class_features) + self._added[self._rows]


class EdgeBeside(EdgeMethod):
    """The preset edge on that loss."""

    def __init__(
        self, settings: EdgeSettings, pictures: LabelledFeatures, logit_scale: float, beside: Beside
    ):
        scale = beside.share * logit_scale
        super().__init__(settings, functools.partial(LossBeside, pictures, scale, added=beside.shots))


class ObjectiveBeside(Objective):
    """Losses and evaluations by the logits of both together."""

    def __init__(self, *parts: Any, beside: Beside):
        super().__init__(*parts)
        self._beside = beside
        self._loss = LossBeside(self.pictures, beside.share * self.logit_scale, 0.0, beside.shots)

    def losses(self, points: Doubles) -> Doubles:
        return self._loss.values(self.class_features(points))

    def evaluation(self, w: Doubles, class_features: Floats, validation: LabelledFeatures) -> Evaluation:
        """As the product's: every class alike, and shots stand in for classes without validation pictures."""
        shots, n_classes = self.pictures, len(class_features)
        is_alone = np.bincount(validation.labels, minlength=n_classes)[shots.labels] == 0

        def judged(pictures: LabelledFeatures, added: Doubles) -> tuple[Doubles, NDArray[np.bool_]]:
            logits = logits_of(pictures.features[:], class_features, self._beside.share * self.logit_scale)
            logits += added.astype(np.float32)
            return cross_entropies(logits, pictures.labels), logits.argmax(axis=1) == pictures.labels

        (loss, right), (val_loss, val_right) = (
            judged(shots, self._beside.shots),
            judged(validation, self._beside.validation),
        )
        labels = np.concatenate((validation.labels, shots.labels[is_alone]))
        weights = 1 / np.bincount(labels)[labels]
        watched = Score(
            float(np.average(np.concatenate((val_loss, loss[is_alone])), weights=weights)),
            float(np.average(np.concatenate((val_right, right[is_alone])), weights=weights)),
        )
        train = Score(float(loss.mean()), float(right.mean()))
        return Evaluation(w, class_features, train, watched, watched)


def left_out_logits(head: Head, pictures: Pictures) -> Doubles:
    """The logits (N, K) of a head for the pictures of its fit, each left out of it."""
    numbers, group = head.made_by, _group_of(head, pictures)
    found = np.empty((len(pictures.pictures), pictures.n_classes))
    for rows, features, labels, words in pictures.blocks():
        (found[rows],) = group.left_out(rows, features, labels, words)
    return found * numbers["temperature"]


def _group_of(head: Head, pictures: Pictures) -> Group:
    numbers = head.made_by
    if head.kind == gaussian.KIND:
        gda = Gaussian.of(pictures)
        assert gda is not None  # it was made before
        return gda.at(numbers["shrinkage"], (numbers["weight"],))
    regression = (Kernel if head.kind == kernel.KIND else Ridge).of(pictures)
    assert regression is not None
    return regression.at(numbers["penalty"], (numbers["base"],))


def run(job: Job) -> dict[str, Any]:
    """One tune, and test accuracies: of the head, of the tuned prompt, of both as they were tuned, and of a
    head that is fitted to the tuned prompt.
    """
    found = drawn(job.work, job.model, job.task, job.seed)
    parts = slice(0, job.shots), slice(job.shots, job.shots + job.n_val)
    train, val = (pictures_of(found.classes, [part] * len(found.classes)) for part in parts)
    scale, test = found.bundle.manifest.logit_scale, found.tests["test"]
    names, F = found.task.class_names, test.features[:]
    words = words_features(found.bundle, names)
    of_words = Pictures(joined(train, val), words, scale)
    chosen = best_head(of_words)
    assert chosen is not None  # pictures of the development set differ
    head, candidate = chosen.head, CANDIDATES[job.candidate]
    share, taken = (head.base, head.base) if candidate.replaces_words else (1.0, 0.0)
    drawn_features = of_words.pictures.features[: len(of_words.pictures)]
    added = left_out_logits(head, of_words) - taken * logits_of(drawn_features, words, scale)
    added *= candidate.weight
    beside = Beside(share, added[: len(train)], added[len(train) :])
    best: list[Evaluation] = []
    spent = 0

    def see(update: Update) -> None:
        nonlocal spent
        spent = update.state.queries
        best[:] = [update.state.best]

    tuned(
        found.bundle,
        names,
        EDGE,
        train,
        val,
        job.seed,
        QUERIES,
        see,
        functools.partial(EdgeBeside, beside=beside),
        functools.partial(ObjectiveBeside, beside=beside),
    )
    T = best[0].class_features

    def right(logits: Floats | Doubles) -> float:
        return float((logits.argmax(axis=1) == test.labels).mean())

    by_head = head.logits(F, words, scale)
    by_prompt = logits_of(F, T, scale)
    together = share * by_prompt + candidate.weight * (by_head - taken * logits_of(F, words, scale))
    again = best_head(Pictures(of_words.pictures, T, scale))
    about = {k: v for k, v in dataclasses.asdict(job).items() if k != "work"}
    return {
        **about,
        "kind": head.kind,
        "queries": spent,
        "head": right(by_head),
        "prompt": right(by_prompt),
        TOGETHER: right(together),
        AGAIN: right(again.head.logits(F, T, scale)) if again else right(by_prompt),
    }


def table(runs: Sequence[dict[str, Any]]) -> list[str]:
    """By how many points a way is better than the head alone, and than a head on the prompt that was tuned
    alone: the mean over draws that have all candidates, and its 95 % interval.
    """
    draws: dict[tuple[Any, ...], dict[str, Any]] = {}
    for r in runs:
        key = r["model"], r["task"], r["shots"], r["n_val"], r["seed"]
        draws.setdefault(key, {})[r["candidate"]] = r
    rows = []
    for split, name in itertools.product(SPLITS, CANDIDATES):
        own = [draw for key, draw in draws.items() if key[2:4] == split and draw.keys() == CANDIDATES.keys()]

        def gain(way: str, other: str, than: str, own: list[Any] = own, name: str = name) -> str:
            pairs = [100 * (draw[name][way] - draw[than][other]) for draw in own]
            return "{:+.1f} ({:+.1f} to {:+.1f})".format(*bootstrap(pairs))

        if not own:
            continue
        if name == ALONE:
            cells = ["", gain(AGAIN, "head", ALONE), "", ""]
        else:
            cells = [gain(way, "head", name) for way in (TOGETHER, AGAIN)]
            cells += [gain(way, AGAIN, ALONE) for way in (TOGETHER, AGAIN)]
        rows.append(["{} + {}".format(*split), name, str(len(own)), *cells])
    header = ["shots + validation", "the loss is of", "draws"]
    header += [
        f"{way}, less {than}" for than in ("the head", f"{AGAIN}, {ALONE}") for way in (TOGETHER, AGAIN)
    ]
    return markdown_table(header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR")
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    jobs = [
        Job(given.work, model, task, shots, n_val, candidate, seed)
        for seed, (shots, n_val), task, model, candidate in itertools.product(
            given.seeds, SPLITS, given.tasks, given.models, CANDIDATES
        )
    ]
    runs = all_kept("together", run, jobs, given.processes)
    print(*table(runs), sep="\n")


if __name__ == "__main__":
    main()
