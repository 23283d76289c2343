"""What the answers to pictures come to: right and wrong by class, mistakes, and the pictures to look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from ..wording import shortened
from .answered import BY_SHOTS_TOO, Answered
from .data import ClassFigures, Confusion, Estimate, Mistake, Picture, Sureness
from .groups import grouped
from .intervals import wilson
from .source import Source

MOST_CELLS = 40  # rows of the confusion matrix
MOST_MISTAKES = 12
MOST_WORST = 50
PROBABILITIES = (0.0, 0.3, 0.5, 0.7, 0.9, 1.0)  # borders of the ranges that answers are sorted into
NOTHING = Answered("", [], [], [], [], [], [], [], [])


@dataclass(frozen=True)
class Judged:
    """The pictures that count.

    numbers: of these pictures, among the answered ones;  on: which they are, in words
    """

    answered: Answered
    numbers: list[int]
    on: str

    @classmethod
    def of(cls, source: Source) -> Judged:
        """Those that the way in use has not learnt from; all of them where there are none."""
        answered = source.answered
        if answered is None:
            return cls(NOTHING, [], "")
        if source.kind == "eval":
            return cls(answered, answered.measured, "the folder’s pictures")
        if not answered.measured:  # a prompt without validation pictures
            return cls(answered, list(range(len(answered.files))), "the shots, which the prompt was tuned on")
        by_shots_too = answered.use in BY_SHOTS_TOO
        on = "drawn pictures, each left out of what answers it" if by_shots_too else "validation pictures"
        return cls(answered, answered.measured, f"the {on}")

    @cached_property
    def counts(self) -> Counter[tuple[int, int]]:
        """How often each label got each answer, right ones too."""
        return Counter((self.answered.labels[n], self.answered.answers[n]) for n in self.numbers)

    @cached_property
    def wrong(self) -> list[int]:
        """Numbers of the pictures that are answered wrongly."""
        return [n for n in self.numbers if self.answered.labels[n] != self.answered.answers[n]]

    @cached_property
    def classes(self) -> list[ClassFigures]:
        """Of every class that has pictures, the worst first."""
        names = self.answered.names
        sizes = Counter(self.answered.labels[n] for n in self.numbers)
        taken: dict[int, tuple[int, int]] = {}
        for (label, answer), count in sorted(self.counts.items()):
            if label != answer and count > taken.get(label, (0, 0))[0]:
                taken[label] = count, answer
        found = []
        for k, n in sorted(sizes.items()):
            right, (taken_count, answer) = self.counts[k, k], taken.get(k, (0, 0))
            low, high = wilson(right / n, n)
            taken_for = shortened(names[answer]) if taken_count else ""
            found.append(
                ClassFigures(shortened(names[k]), n, right, right / n, low, high, taken_for, taken_count)
            )
        return sorted(found, key=lambda each: (each.accuracy, -each.pictures))

    def mistakes(self) -> tuple[Mistake, ...]:
        """The most frequent confusions of two classes."""
        wrong = [(count, pair) for pair, count in self.counts.items() if pair[0] != pair[1]]
        wrong.sort(key=lambda each: (-each[0], each[1]))
        names = self.answered.names
        return tuple(
            Mistake(shortened(names[label]), shortened(names[answer]), count)
            for count, (label, answer) in wrong[:MOST_MISTAKES]
        )

    def confusion(self) -> Confusion | None:
        """None without pictures."""
        if not self.numbers:
            return None
        groups = grouped(len(self.answered.names), self.counts, MOST_CELLS)
        row_of = {k: row for row, group in enumerate(groups) for k in group}
        cells = [[0] * len(groups) for _ in groups]
        for (label, answer), count in self.counts.items():
            cells[row_of[label]][row_of[answer]] += count
        named = tuple(tuple(shortened(self.answered.names[k]) for k in group) for group in groups)
        names = tuple(group[0] + f" + {len(group) - 1}" * (len(group) > 1) for group in named)
        return Confusion(names, named, tuple(map(tuple, cells)))

    def sureness(self) -> tuple[Sureness, ...]:
        """Of each range of PROBABILITIES that an answer is in."""
        found, scores = [], self.answered.scores
        wrong = set(self.wrong)
        for low, high in pairwise(PROBABILITIES):
            some = [n for n in self.numbers if low <= scores[n] < high or scores[n] == high == 1]
            if some:
                right = sum(n not in wrong for n in some) / len(some)
                said = sum(scores[n] for n in some) / len(some)
                found.append(Sureness(low, high, said, Estimate(right, *wilson(right, len(some)), len(some))))
        return tuple(found)

    def worst(self, shown: Iterable[Picture]) -> tuple[Picture, ...]:
        """The wrong pictures whose label seemed least likely, without those that are shown already."""
        already = {picture.image for picture in shown}
        scores = self.answered.label_scores
        worst = sorted(self.wrong, key=lambda n: (scores[n], n))[: MOST_WORST + len(already)]
        found = map(self._picture, worst)
        return tuple(picture for picture in found if picture.image not in already)[:MOST_WORST]

    def _picture(self, n: int) -> Picture:
        found = self.answered
        label, answer = found.names[found.labels[n]], found.names[found.answers[n]]
        return Picture(found.files[n], label, answer, found.scores[n], found.label_scores[n])


def doubtful(source: Source) -> tuple[Picture, ...]:
    """Those that a tune's result names; their scores are known where the head that found them is in use."""
    if source.result is None or source.kind == "eval":
        return ()
    answered = source.answered if source.answered and source.answered.use == "head" else NOTHING
    numbers = {file: n for n, file in enumerate(answered.files)}
    found = []
    for each in source.result["doubtful"]:
        n = numbers.get(each["image"])
        score, label_score = (None, None) if n is None else (answered.scores[n], answered.label_scores[n])
        found.append(Picture(each["image"], each["label"], each["answer"], score, label_score))
    return tuple(found)
