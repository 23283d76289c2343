"""Heads of a fleet: those that are made of sums over pictures, the Gaussian and the linear ridge head.

A kernel needs all pairs of pictures, so it is none of them. What is fitted here is what `heads` fits to all
pictures in one place, up to round-off.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..heads import gaussian, ridge
from ..heads.fit import AUTO, ENOUGH_COVERED
from ..heads.gaussian import Gaussian
from ..heads.head import Head
from ..heads.leave_one_out import TEMPERATURES, Chosen, Group, Pictures, margin
from ..heads.ridge import Ridge
from ..search.losses import cross_entropies
from ..tuning.answers import BOTH, HEAD, MOST_DOUBTFUL, PROMPT, USES, WORDS, Answers, ByUse, Doubtful, use_of
from ..types import Doubles, Floats, LabelledFeatures
from .messages import Counts, Moments, Tried

KINDS = (AUTO, ridge.KIND, gaussian.KIND)


# On a member.


@dataclass(frozen=True, eq=False)
class Drawn:
    """A member's pictures as they are: n_shots shots, and then validation pictures."""

    pictures: LabelledFeatures
    n_shots: int
    logit_scale: float

    def moments(self, words: Floats, prompt: Floats, with_head: bool) -> Moments:
        """See Measure."""
        n_classes, embed_dim = words.shape
        size = (n_classes, embed_dim) if with_head else (0, 0)
        classes, second = np.zeros(size), np.zeros((size[1], size[1]))
        by = {WORDS: np.zeros((size[0], size[1] + with_head)), PROMPT: np.zeros((0, size[1] + with_head))}
        right = np.zeros((2, 2, n_classes), np.int64)
        for i, (name, T) in enumerate(((WORDS, words), (PROMPT, prompt))):
            if not len(T):
                continue
            by[name] = np.zeros((size[0], size[1] + with_head))
            for rows, features, labels, logits in self._of(T).blocks():
                self._count(right[i], rows, labels, logits)
                if with_head:
                    x = np.ones((len(features), embed_dim + 1))
                    x[:, :-1] = features
                    by[name] += logits.T @ x
                    if name == WORDS:
                        np.add.at(classes, labels, x[:, :-1])
                        second += x[:, :-1].T @ x[:, :-1]
        counts = np.bincount(self.pictures.labels, minlength=n_classes).astype(np.int64)
        return Moments(counts, right, classes, second, by[WORDS], by[PROMPT])

    def tried(self, kind: str, moments: Moments, words: Floats, prompt: Floats) -> Tried:
        """See Try."""
        found = [self._tried(fitted(kind, moments, of), moments.counts, T) for of, T in _both(words, prompt)]
        if len(found) == 1:
            found.append((np.zeros_like(found[0][0]), np.zeros_like(found[0][1])))
        return Tried(*(np.stack(each) for each in zip(*found, strict=True)))

    def doubtful(self, kind: str, moments: Moments, words: Floats, option: int) -> list[Doubtful]:
        """The pictures that an option on the words, fitted without them, finds to be of another class."""
        found: list[tuple[float, Doubtful]] = []
        for group, first in _numbered(fitted(kind, moments, HEAD)):
            if not first <= option < first + group.n_options:
                continue
            for rows, features, labels, logits in self._of(words).blocks():
                left_out = list(group.left_out(rows, features, labels, logits))[option - first]
                answers, margins = left_out.argmax(axis=1), margin(left_out, labels)
                for i, (label, answer) in enumerate(zip(labels, answers, strict=True)):
                    if label != answer and moments.counts[label] > 1:
                        found.append((float(margins[i]), Doubtful(rows.start + i, int(label), int(answer))))
        return [each for _, each in sorted(found, key=lambda pair: pair[0])[:MOST_DOUBTFUL]]

    def _tried(self, groups: Iterator[Group], counts: Counts, T: Floats) -> tuple[Counts, Doubles]:
        rights, losses = [], []
        weights = weights_of(counts)
        for group in groups:
            right = np.zeros((group.n_options, 2, len(counts)), np.int64)
            loss = np.zeros((group.n_options, len(TEMPERATURES)))
            for rows, features, labels, words in self._of(T).blocks():
                for option, logits in enumerate(group.left_out(rows, features, labels, words)):
                    self._count(right[option], rows, labels, logits)
                    for j, temperature in enumerate(TEMPERATURES):
                        found = cross_entropies(np.asarray(temperature * logits, np.float32), labels)
                        loss[option, j] += weights[labels] @ found
            rights.append(right)
            losses.append(loss)
            del group  # it is large, and the next one is made now
        return np.concatenate(rights), np.concatenate(losses)

    def _of(self, T: Floats) -> Pictures:
        return Pictures(self.pictures, T, self.logit_scale)

    def _count(self, right: Counts, rows: slice, labels: Counts, logits: Floats | Doubles) -> None:
        is_right = logits.argmax(axis=1) == labels
        is_val = np.arange(rows.start, rows.stop) >= self.n_shots
        np.add.at(right[0], labels[is_right & ~is_val], 1)
        np.add.at(right[1], labels[is_right & is_val], 1)


def _both(words: Floats, prompt: Floats) -> list[tuple[str, Floats]]:
    return [(HEAD, words), *([(BOTH, prompt)] if len(prompt) else [])]


def _numbered(groups: Iterator[Group]) -> Iterator[tuple[Group, int]]:
    """Each group, and the number of its first option among all."""
    first = 0
    for group in groups:
        yield group, first
        first += group.n_options


# On both sides: heads by moments.


def fitted(kind: str, moments: Moments, of: str) -> Iterator[Group]:
    """The candidates on words (HEAD) or on the prompt (BOTH), in the order of heads.fit.

    Empty where none can be made.
    """
    if kind != gaussian.KIND and (found := ridge_of(moments, of)):
        yield from found.groups()
    if kind in (AUTO, gaussian.KIND) and (gda := gaussian_of(moments)):
        yield from gda.groups()


def weights_of(counts: Counts) -> Doubles:
    """(K,) of each picture of a class: classes that have a say weigh alike, and all pictures sum to 1."""
    has_say = counts > 1
    return np.where(has_say, 1 / np.maximum(counts, 1), 0.0) / max(1, int(has_say.sum()))


def gaussian_of(moments: Moments) -> Gaussian | None:
    """As Gaussian.of, from sums."""
    counts, n = moments.counts, int(moments.counts.sum())
    means = moments.classes / counts[:, np.newaxis]
    scatter = moments.second - (means * counts[:, np.newaxis]).T @ means
    trace = float(np.trace(scatter))
    if not trace > gaussian.ROUND_OFF * n:
        return None
    values, vectors = np.linalg.eigh((scatter + scatter.T) / 2)
    return Gaussian(counts, means @ vectors, vectors, np.maximum(values, 0), trace / (n - 1))


def ridge_of(moments: Moments, of: str) -> Ridge | None:
    """As Ridge.of, from sums."""
    counts, n = moments.counts, int(moments.counts.sum())
    centre = moments.classes.sum(axis=0) / n
    variance = float(np.trace(moments.second) / n - centre @ centre)
    if not variance > ridge.ROUND_OFF:
        return None
    spread, width = np.sqrt(variance), len(centre) + 1
    gram = np.zeros((width, width))
    gram[:-1, :-1] = (moments.second - n * np.outer(centre, centre)) / variance
    gram[-1, -1] = n
    values, vectors = np.linalg.eigh((gram + gram.T) / 2)
    by = moments.by_words if of == HEAD else moments.by_prompt

    def standardised(sums: Doubles, ones: Doubles) -> Doubles:
        """Sums of x and of 1 -> sums of phi, in V: (d, K)."""
        phi = np.column_stack(((sums - ones[:, np.newaxis] * centre) / spread, ones))
        return np.ascontiguousarray((phi @ vectors).T)

    return Ridge(
        centre=centre,
        spread=float(spread),
        vectors=vectors,
        values=np.maximum(values, 0),
        targets=standardised(moments.classes, counts.astype(np.float64)),
        words=standardised(by[:, :-1], by[:, -1]),
        unit=len(counts) / n,
    )


# On the driver.


def total(parts: Sequence[Moments]) -> Moments:
    """The moments of all members together."""
    first, *rest = parts
    added = {name: value.copy() for name, value in vars(first).items()}
    for part in rest:
        for name, value in vars(part).items():
            added[name] += value
    return Moments(**added)


def is_measured(moments: Moments) -> bool:
    """Whether enough classes have two pictures to choose a head by pictures that are left out."""
    return float((moments.counts > 1).mean()) >= ENOUGH_COVERED


def unmeasured(kind: str, moments: Moments, of: str) -> Chosen | None:
    """The head where there is nothing to choose by."""
    found = gaussian_of(moments) if kind == gaussian.KIND else ridge_of(moments, of)
    return None if found is None else Chosen(found.unmeasured())


@dataclass(frozen=True, eq=False)
class Choice:
    """The best head. option: its number among all;  right: (2, K) how many it labels right, left out"""

    chosen: Chosen
    option: int
    right: Counts


def best(kind: str, moments: Moments, of: str, right: Counts, losses: Doubles) -> Choice | None:
    """As leave_one_out.choose. From all members: right (options, 2, K), losses (options, temperatures)."""
    if not len(right):
        return None
    has_say = moments.counts > 1
    by_class = right.sum(axis=1)[:, has_say] / moments.counts[has_say]
    accuracies = by_class.mean(axis=1).round(12)
    top = accuracies.max()
    among = np.where((accuracies == top)[:, np.newaxis], losses, np.inf)
    option, hottest = (int(i) for i in np.unravel_index(among.argmin(), among.shape))
    head = _head(kind, moments, of, option).at(TEMPERATURES[hottest])
    return Choice(Chosen(head, float(top)), option, right[option])


def _head(kind: str, moments: Moments, of: str, option: int) -> Head:
    for group, first in _numbered(fitted(kind, moments, of)):
        if option < first + group.n_options:
            return group.head(option - first)
    raise ValueError(f"there is no option {option}")


def answers_of(
    moments: Moments,
    n_val: Counts,
    head: Choice | Chosen | None,
    both: Choice | Chosen | None,
    has_prompt: bool,
) -> Answers:
    """What each way to label is worth, as answers.compare finds it. n_val: (K,) validation pictures"""
    counts = moments.counts
    right: dict[str, Counts | None] = {
        WORDS: moments.right[0],
        PROMPT: moments.right[1] if has_prompt else None,
        HEAD: head.right if isinstance(head, Choice) else None,
        BOTH: both.right if isinstance(both, Choice) else None,
    }
    validated = {use: None if found is None else _accuracy(found[1], n_val) for use, found in right.items()}
    say = np.where(counts > 1, counts, 0) if isinstance(head, Choice) else counts
    left_out = dict(validated)
    for use in (WORDS, HEAD):
        found = right[use]
        left_out[use] = None if found is None else _accuracy(found.sum(axis=0), say)
    shares = [float((each > 0).mean()) for each in (say, n_val, say, n_val)]
    covered = {use: share for use, share in zip(USES, shares, strict=True) if left_out[use] is not None}
    of_head, of_both = (each.chosen if isinstance(each, Choice) else each for each in (head, both))
    return Answers(
        use=use_of(left_out, of_head),
        head=of_head,
        both=of_both,
        left_out=ByUse(**left_out),
        validated=ByUse(**validated),
        covered=ByUse(**covered),
        by_halves=None,
        doubtful=(),
        of_use=None,
        has_say=np.zeros(0, bool),
        words_temperature=1.0,
        known={},  # a threshold for pictures of no class is made of each picture's own logit
        threshold=None,
        called_none=None,
        caught=None,
    )


def _accuracy(right: Counts, counts: Counts) -> float | None:
    """Every class alike; None where there are no pictures."""
    there = counts > 0
    return float((right[there] / counts[there]).mean()) if there.any() else None
