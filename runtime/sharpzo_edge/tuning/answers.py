"""The four ways to label pictures after a tune: what each is worth, and which one is used.

words:  the class features of the initial context
prompt: those of the tuned context
head:   a head on the words, fitted to all drawn pictures
both:   a head on the tuned prompt, likewise

Each is judged on pictures that it has not been fitted to. The words are fitted to none. The heads answer for
each picture as if it were left out. The prompt was tuned on the shots, so it is judged on validation pictures
alone, and so are both together. The head is used unless the words were better: choosing the prompt by its
validation pictures was worse on the development set (docs/development.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..heads.fit import best_head
from ..heads.halves import accuracy_by_halves
from ..heads.leave_one_out import Chosen, Pictures
from ..search.losses import cross_entropies
from ..types import Doubles, Floats, LabelledFeatures

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
    """

    answers: NDArray[np.int64]
    scores: Doubles
    label_scores: Doubles


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


def compare(
    kind: str,
    drawn: LabelledFeatures,
    n_shots: int,
    words: Floats,
    prompt: Floats | None,
    logit_scale: float,
    before_each: Callable[[], None] = lambda: None,
) -> Answers:
    """Fit the heads and judge all four ways. Costs no query.

    kind:    of head, see heads.fit; "none": no head
    drawn:   the shots, n_shots of them, and then the validation pictures
    words, prompt: class features (K, E); prompt is None when nothing was tuned
    before_each: see best_head
    """
    of_words = Pictures(drawn, words, logit_scale)
    of_prompt = None if prompt is None else Pictures(drawn, prompt, logit_scale)
    head = both = None
    if kind != "none":
        head = best_head(of_words, kind, before_each)
        both = None if of_prompt is None else best_head(of_prompt, kind, before_each)
    answers = {
        WORDS: _answers(of_words),
        PROMPT: None if of_prompt is None else _answers(of_prompt),
        HEAD: _left_out(head),
        BOTH: _left_out(both),
    }
    is_val = np.arange(len(drawn)) >= n_shots
    validated = {use: _accuracy(found, drawn.labels, is_val) for use, found in answers.items()}
    counts = of_words.counts[drawn.labels]
    has_say = counts > 1 if head and head.accuracy is not None else counts > 0
    left_out = validated | {use: _accuracy(answers[use], drawn.labels, has_say) for use in (WORDS, HEAD)}
    shares = [_share(drawn.labels, which, len(words)) for which in (has_say, is_val, has_say, is_val)]
    covered = {use: s for use, s in zip(USES, shares, strict=True) if left_out[use] is not None}
    use = use_of(left_out, head)
    return Answers(
        use=use,
        head=head,
        both=both,
        left_out=ByUse(**left_out),
        validated=ByUse(**validated),
        covered=ByUse(**covered),
        by_halves=accuracy_by_halves(head.head, of_words) if head and head.accuracy is not None else None,
        doubtful=_doubtful(head, drawn.labels),
        of_use=answers[use] or (answers[WORDS] if use == PROMPT else None),
        has_say=has_say,
    )


def use_of(left_out: dict[str, float | None], head: Chosen | None) -> str:
    """The way to take, by accuracies on pictures left out."""
    words, of_head = left_out[WORDS], left_out[HEAD]
    if head is None:
        return PROMPT
    if words is None or of_head is None or of_head >= words:
        return HEAD
    return WORDS


def _answers(pictures: Pictures) -> PictureAnswers:
    """Of the class features alone, to all pictures."""
    n = len(pictures.pictures)
    found = PictureAnswers(np.empty(n, np.int64), np.empty(n), np.empty(n))
    for rows, _, labels, logits in pictures.blocks():
        block = answers_of(logits, labels)
        found.answers[rows], found.scores[rows] = block.answers, block.scores
        found.label_scores[rows] = block.label_scores
    return found


def answers_of(logits: Floats, labels: NDArray[np.int64]) -> PictureAnswers:
    """By logits (N, K), for labels (N,)."""
    answers = logits.argmax(axis=1)
    scores, label_scores = (np.exp(-cross_entropies(logits, of)) for of in (answers, labels))
    return PictureAnswers(answers, scores, label_scores)


def _left_out(head: Chosen | None) -> PictureAnswers | None:
    """Of a head, to all pictures, each left out of its fit; None of a head that was not chosen that way."""
    if head is None or head.answers is None or head.scores is None or head.losses is None:
        return None
    return PictureAnswers(head.answers, head.scores, np.exp(-head.losses))


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


def _doubtful(head: Chosen | None, labels: NDArray[np.int64]) -> tuple[Doubtful, ...]:
    if head is None or head.margins is None or head.answers is None:
        return ()
    counts = np.bincount(labels)[labels]
    worst = np.argsort(np.where(counts > 1, head.margins, np.inf), kind="stable")[:MOST_DOUBTFUL]
    found = [Doubtful(int(n), int(labels[n]), int(head.answers[n])) for n in worst if counts[n] > 1]
    return tuple(each for each in found if each.answer != each.label)
