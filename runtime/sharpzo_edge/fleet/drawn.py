"""What a member answers, when the stages are over, of the pictures that it has drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..heads.leave_one_out import TEMPERATURES, Group, LeftOut, Pictures, left_out_by
from ..search.losses import cross_entropies
from ..tuning.answers import (
    BOTH,
    HEAD,
    PROMPT,
    USES,
    WORDS,
    Doubtful,
    answers_by,
    doubtful,
    losses_by_temperature,
)
from ..types import Doubles, Floats, LabelledFeatures
from .heads import fitted, group_of, weights_of
from .messages import Counts, Finish, Finished, Moments, Tried, Try
from .sums import triangle


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
        right, tops = np.zeros((2, 2, n_classes), np.int64), np.zeros((2, 2, 2))
        for i, (name, T) in enumerate(((WORDS, words), (PROMPT, prompt))):
            if not len(T):
                continue
            by[name] = np.zeros((size[0], size[1] + with_head))
            for rows, features, labels, logits in self._of(T).blocks():
                self._add(right[i], tops[i], rows, labels, logits)
                if with_head:
                    x = np.ones((len(features), embed_dim + 1))
                    x[:, :-1] = features
                    by[name] += logits.T @ x
                    if name == WORDS:
                        np.add.at(classes, labels, x[:, :-1])
                        second += x[:, :-1].T @ x[:, :-1]
        counts = np.bincount(self.pictures.labels, minlength=n_classes).astype(np.int64)
        losses = losses_by_temperature(self._of(words))
        return Moments(counts, right, tops, losses, classes, triangle(second), by[WORDS], by[PROMPT])

    def tried(self, kind: str, moments: Moments, words: Floats, prompt: Floats) -> Tried:
        """See Try."""
        found = [self._tried(fitted(kind, moments, of), moments.counts, T) for of, T in _both(words, prompt)]
        if len(found) == 1:
            found.append(tuple(np.zeros_like(each) for each in found[0]))
        return Tried(*(np.stack(each) for each in zip(*found, strict=True)))

    def finished(self, ask: Finish) -> tuple[Finished, tuple[Doubtful, ...]]:
        """See Finish. Also the pictures that the head on the words, fitted without them, finds doubtful."""
        tried, labels, counts = ask.tried, self.pictures.labels, ask.tried.moments.counts
        has_say = counts[labels] > (0 if ask.head is None else 1)
        is_val = np.arange(len(labels)) >= self.n_shots
        t = dict(zip(USES, ask.temperatures.tolist(), strict=True))
        tops = {WORDS: answers_by(self._of(tried.words), t[WORDS]).tops[has_say]}
        if len(tried.prompt):
            tops[PROMPT] = answers_by(self._of(tried.prompt), t[PROMPT]).tops[is_val]
        to_show: tuple[Doubtful, ...] = ()
        if ask.head is not None:
            of_head = self._left_out(tried, HEAD, ask.head, t[HEAD])
            tops[HEAD] = of_head.tops[has_say]
            to_show = doubtful(of_head, labels, counts)
        if ask.both is not None:
            tops[BOTH] = self._left_out(tried, BOTH, ask.both, t[BOTH]).tops[is_val]
        below = np.zeros(ask.levels.shape, np.int64)
        for i, use in enumerate(USES):
            if use in tops:
                below[i] = np.searchsorted(np.sort(tops[use]), ask.levels[i])
        return Finished(below), to_show

    def _tried(self, groups: Iterator[Group], counts: Counts, T: Floats) -> tuple[NDArray[Any], ...]:
        """right, tops and losses of all options."""
        rights, all_tops, losses = [], [], []
        weights = weights_of(counts)
        for group in groups:
            n = group.n_options
            right, tops = np.zeros((n, 2, len(counts)), np.int64), np.zeros((n, 2, 2))
            loss = np.zeros((n, len(TEMPERATURES)))
            for rows, features, labels, words in self._of(T).blocks():
                for option, logits in enumerate(group.left_out(rows, features, labels, words)):
                    self._add(right[option], tops[option], rows, labels, logits)
                    for j, temperature in enumerate(TEMPERATURES):
                        found = cross_entropies(np.asarray(temperature * logits, np.float32), labels)
                        loss[option, j] += weights[labels] @ found
            rights.append(right)
            all_tops.append(tops)
            losses.append(loss)
            del group  # it is large, and the next one is made now
        return np.concatenate(rights), np.concatenate(all_tops), np.concatenate(losses)

    def _left_out(self, tried: Try, of: str, option: int, temperature: float) -> LeftOut:
        """How an option labels the pictures, each left out."""
        group, first = group_of(tried.kind, tried.moments, of, option)
        pictures = self._of(tried.words if of == HEAD else tried.prompt)
        return left_out_by(pictures, group, option - first, temperature)

    def _of(self, T: Floats) -> Pictures:
        return Pictures(self.pictures, T, self.logit_scale)

    def _add(
        self, right: Counts, tops: Doubles, rows: slice, labels: Counts, logits: Floats | Doubles
    ) -> None:
        """Add a block of pictures to right (2, K) and tops (2, 2): see Moments."""
        is_right, top = logits.argmax(axis=1) == labels, logits.max(axis=1).astype(np.float64)
        is_val = np.arange(rows.start, rows.stop) >= self.n_shots
        for i, which in enumerate((~is_val, is_val)):
            np.add.at(right[i], labels[is_right & which], 1)
            tops[i] += top[which].sum(), np.square(top[which]).sum()


def _both(words: Floats, prompt: Floats) -> list[tuple[str, Floats]]:
    return [(HEAD, words), *([(BOTH, prompt)] if len(prompt) else [])]
