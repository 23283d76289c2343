"""What the pictures of a result are labelled and answered as: answers.json of a tune's work folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..run.files import read_checked_json, write_checked_json

BY_SHOTS_TOO = ("words", "head")  # these are measured on the shots too, left out of the head's fit
SCORE_DIGITS = 4


@dataclass(frozen=True)
class Answered:
    """How the way in use labels N pictures.

    use:     "words", "prompt", "head" or "both";  names: (K,) of the classes
    files:   (N,) below the folder of pictures;  labels, answers: (N,) numbers of classes
    scores:  (N,) the probability of the answer;  label_scores: (N,) that of the label
    has_say: (N,) whether the words and the head are measured on it; is_val: (N,) the same for the prompt and
             both. In an evaluation every picture counts
    """

    use: str
    names: list[str]
    files: Sequence[str]
    labels: list[int]
    answers: list[int]
    scores: list[float]
    label_scores: list[float]
    has_say: list[bool]
    is_val: list[bool]

    @property
    def measured(self) -> list[int]:
        """Numbers of the pictures that the way in use is measured on."""
        counts = self.has_say if self.use in BY_SHOTS_TOO else self.is_val
        return [n for n, has in enumerate(counts) if has]

    def save(self, path: Path) -> None:
        """Raises SharpzoError when the disk does not take it."""
        write_checked_json(path, dataclasses.asdict(self))


def load_answered(path: Path) -> Answered | None:
    """None where there is none, or a damaged one. Raises SharpzoError when the system refuses to read it."""
    return answered_of(read_checked_json(path))


def answered_of(value: Any) -> Answered | None:
    """From parsed JSON; None where it is not what `save` writes."""
    try:
        found = Answered(**value)
        n_classes, n = len(found.names), len(found.files)
        numbers = (*found.labels, *found.answers)
        scores = (*found.scores, *found.label_scores)
        texts = (found.use, *found.names, *found.files)
        lists = (found.labels, found.answers, found.scores, found.label_scores, found.has_say, found.is_val)
        is_whole = (
            all(type(each) is list and len(each) == n for each in lists)
            and all(type(number) is int and 0 <= number < n_classes for number in numbers)
            and all(type(score) in (int, float) and 0 <= score <= 1 for score in scores)
            and all(type(text) is str for text in texts)
            and all(type(flag) is bool for flag in (*found.has_say, *found.is_val))
        )
    except TypeError:
        return None
    return found if is_whole else None
