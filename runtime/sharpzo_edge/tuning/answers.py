"""The four ways to label pictures after a tune: what each is worth, and which one is used.

words:  the class features of the initial context
prompt: those of the tuned context
head:   a head on the words, fitted to all drawn pictures
both:   a head on the tuned prompt, likewise

Each is judged on pictures that it has not been fitted to. The words are fitted to none. The heads answer for
each picture as if it were left out. The prompt was tuned on the shots, so it is judged on validation pictures
alone, and so are both together. The head is used unless the words were better: choosing the prompt by its
validation pictures was worse on the development set (docs/development.md).

The heads' probabilities are calibrated by left-out answers, and those of the words by all drawn pictures. The
prompt was tuned by a loss of probabilities, which has the same effect.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..heads.fit import best_head
from ..heads.halves import accuracy_by_halves
from ..heads.leave_one_out import TEMPERATURES, Chosen, LeftOut, Pictures
from ..requests import NONE_SHARE
from ..search.losses import cross_entropies
from ..types import Doubles, Floats, LabelledFeatures
from .known import Known
from .strangers import Caught, caught_by_class_features, caught_by_head

WORDS, PROMPT, HEAD, BOTH = USES = ("words", "prompt", "head", "both")
MOST_DOUBTFUL = 10


@dataclass(frozen=True)
class ByUse:
    """A fraction for each way to label; None where it does not apply, or was not measured."""

    words: float | None = None
    prompt: float | None = None
    head: float | None = None
    both: float | None = None


@dataclass(frozen=True)
class Doubtful:
    """A picture that the head, fitted without it, finds to be of another class.

    number: of the picture, among those drawn;  label, answer: numbers of classes
    """

    number: int
    label: int
    answer: int


@dataclass(frozen=True, eq=False)
class PictureAnswers:
    """How one way labels pictures, (N,) each.

    answers: the class that each is given;  scores: its probability;  label_scores: that of the label
    tops: the largest logit of each
    """

    answers: NDArray[np.int64]
    scores: Doubles
    label_scores: Doubles
    tops: Doubles


@dataclass(frozen=True, eq=False)
class Answers:
    """What was found. Accuracies weigh every class alike.

    head, both: None without
    use:       the way that predict and eval will take
    left_out:  accuracy on pictures left out: of words and head on all drawn ones, of prompt and both on the
               validation pictures
    validated: accuracy of all four on the validation pictures
    covered:   the share of classes that left_out is measured on
    by_halves: of the head, when it is fitted to half of the pictures
    doubtful:  the pictures that look least like their label, the worst first
    of_use:    how the way in use labels every drawn picture; None of a head that was not judged
    has_say:   (N,) whether left_out counts a picture for the words and the head
    words_temperature: by which logits of the words are multiplied
    known:     for each way that left_out measures, the largest logits of those pictures
    threshold: of the way in use: the largest logit below which a picture is none of the classes; None where
               too few pictures were left out
    called_none: the share of left-out pictures below it
    caught:    strangers below it; None where there is no threshold, or no way to leave a class out
    """

    use: str
    head: Chosen | None
    both: Chosen | None
    left_out: ByUse
    validated: ByUse
    covered: ByUse
    by_halves: float | None
    doubtful: tuple[Doubtful, ...]
    of_use: PictureAnswers | None
    has_say: NDArray[np.bool_]
    words_temperature: float
    known: dict[str, Known]
    threshold: float | None
    called_none: float | None
    caught: Caught | None


def compare(
    kind: str,
    drawn: LabelledFeatures,
    n_shots: int,
    words: Floats,
    prompt: Floats | None,
    logit_scale: float,
    share: float = NONE_SHARE,
    before_each: Callable[[], None] = lambda: None,
) -> Answers:
    """Fit the heads and judge all four ways. Costs no query.

    kind:    of head, see heads.fit; "none": no head
    drawn:   the shots, n_shots of them, and then the validation pictures
    words, prompt: class features (K, E); prompt is None when nothing was tuned
    share:   of known pictures that may be called none of the classes
    before_each: see best_head
    """
    of_words = Pictures(drawn, words, logit_scale)
    of_prompt = None if prompt is None else Pictures(drawn, prompt, logit_scale)
    head = both = None
    if kind != "none":
        head = best_head(of_words, kind, before_each)
        both = None if of_prompt is None else best_head(of_prompt, kind, before_each)
    words_temperature = calibrated(of_words)
    answers = {
        WORDS: answers_by(of_words, words_temperature),
        PROMPT: None if of_prompt is None else answers_by(of_prompt),
        HEAD: _left_out(head),
        BOTH: _left_out(both),
    }
    is_val = np.arange(len(drawn)) >= n_shots
    validated = {use: _accuracy(found, drawn.labels, is_val) for use, found in answers.items()}
    counts = of_words.counts[drawn.labels]
    has_say = counts > 1 if head and head.accuracy is not None else counts > 0
    measured = {WORDS: has_say, PROMPT: is_val, HEAD: has_say, BOTH: is_val}
    left_out = {use: _accuracy(answers[use], drawn.labels, which) for use, which in measured.items()}
    covered = {
        use: _share(drawn.labels, which, len(words))
        for use, which in measured.items()
        if left_out[use] is not None
    }
    use = use_of(left_out, head)
    tops = {use: found.tops[measured[use]] for use, found in answers.items() if found}
    known = {use: Known.of(found) for use, found in tops.items() if len(found)}
    threshold = known[use].threshold(share) if use in known else None
    caught = None
    if threshold is not None:
        if use == HEAD and head:
            caught = caught_by_head(head.head, of_words, threshold, before_each)
        elif use == WORDS:
            caught = caught_by_class_features(of_words, words_temperature, threshold)
        elif of_prompt:
            caught = caught_by_class_features(of_prompt.some(is_val), 1.0, threshold)
    return Answers(
        use=use,
        head=head,
        both=both,
        left_out=ByUse(**left_out),
        validated=ByUse(**validated),
        covered=ByUse(**covered),
        by_halves=accuracy_by_halves(head.head, of_words) if head and head.accuracy is not None else None,
        doubtful=doubtful(head.left_out, drawn.labels, of_words.counts) if head and head.left_out else (),
        of_use=answers[use] or (answers_by(of_words) if use == PROMPT else None),
        has_say=has_say,
        words_temperature=words_temperature,
        known=known,
        threshold=threshold,
        called_none=None if threshold is None else float((tops[use] < threshold).mean()),
        caught=caught,
    )


def use_of(left_out: dict[str, float | None], head: Chosen | None) -> str:
    """The way to take, by accuracies on pictures left out."""
    words, of_head = left_out[WORDS], left_out[HEAD]
    if head is None:
        return PROMPT
    if words is None or of_head is None or of_head >= words:
        return HEAD
    return WORDS


def calibrated(pictures: Pictures) -> float:
    """The temperature of TEMPERATURES with the lowest loss of the class features alone on all pictures."""
    return TEMPERATURES[int(losses_by_temperature(pictures).argmin())]


def losses_by_temperature(pictures: Pictures) -> Doubles:
    """The class features' loss at each of TEMPERATURES, summed over all pictures: (temperatures,)."""
    totals = np.zeros(len(TEMPERATURES))
    for _, _, labels, logits in pictures.blocks():
        for i, temperature in enumerate(TEMPERATURES):
            totals[i] += cross_entropies(np.float32(temperature) * logits, labels).sum()
    return totals


def answers_by(pictures: Pictures, temperature: float = 1.0) -> PictureAnswers:
    """Of the class features alone, to all pictures."""
    n = len(pictures.pictures)
    found = PictureAnswers(np.empty(n, np.int64), np.empty(n), np.empty(n), np.empty(n))
    for rows, _, labels, logits in pictures.blocks():
        block = answers_of(np.float32(temperature) * logits, labels)
        for name in ("answers", "scores", "label_scores", "tops"):
            getattr(found, name)[rows] = getattr(block, name)
    return found


def answers_of(logits: Floats, labels: NDArray[np.int64]) -> PictureAnswers:
    """By logits (N, K), for labels (N,)."""
    answers = logits.argmax(axis=1)
    scores, label_scores = (np.exp(-cross_entropies(logits, of)) for of in (answers, labels))
    return PictureAnswers(answers, scores, label_scores, logits.max(axis=1).astype(np.float64))


def _left_out(head: Chosen | None) -> PictureAnswers | None:
    """Of a head, to all pictures, each left out of its fit; None of a head that was not chosen that way."""
    if head is None or head.left_out is None:
        return None
    found = head.left_out
    return PictureAnswers(found.answers, found.scores, np.exp(-found.losses), found.tops)


def _accuracy(
    found: PictureAnswers | None, labels: NDArray[np.int64], which: NDArray[np.bool_]
) -> float | None:
    """On some of the pictures, every class alike; None where there are none, or no answers."""
    if found is None or not which.any():
        return None
    counts: Doubles = np.bincount(labels[which]).astype(np.float64)
    right = np.bincount(labels[which], found.answers[which] == labels[which], len(counts))
    there = counts > 0
    return float((right[there] / counts[there]).mean())


def _share(labels: NDArray[np.int64], which: NDArray[np.bool_], n_classes: int) -> float:
    return len(set(labels[which].tolist())) / n_classes


def doubtful(left_out: LeftOut, labels: NDArray[np.int64], counts: NDArray[np.int64]) -> tuple[Doubtful, ...]:
    """The pictures (N,) that look least like their label, the worst first; those of a class of one aside.

    counts: (K,) pictures of each class, in the head's fit
    """
    has_say = counts[labels] > 1
    worst = np.argsort(np.where(has_say, left_out.margins, np.inf), kind="stable")[:MOST_DOUBTFUL]
    found = [Doubtful(int(n), int(labels[n]), int(left_out.answers[n])) for n in worst if has_say[n]]
    return tuple(each for each in found if each.answer != each.label)
