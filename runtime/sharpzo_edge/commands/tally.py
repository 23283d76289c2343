"""What pictures were labelled as, counted batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..tuning.answers import PictureAnswers, answers_of
from ..tuning.known import are_none
from ..types import Floats

Way = Callable[[Floats], Floats]  # from image features (N, E) to logits (N, K)


@dataclass(eq=False)
class Tally:
    """ways: by name;  use: the one in use
    threshold:     the largest logit below which a picture is none of the classes; None: nothing is
    labels:        (N,) of all pictures, in the order of their numbers
    n_classes:     K
    keeps_answers: whether a report wants them
    n_none:        how many pictures are called none
    seen:          (K,) pictures that were read;  right: by way, (K,) those that it labels rightly
    kept:          by batches the numbers of pictures, and their answers by the way in use
    """

    ways: Mapping[str, Way]
    use: str
    threshold: float | None
    labels: NDArray[np.int64]
    n_classes: int
    keeps_answers: bool
    n_none: int = 0

    def __post_init__(self) -> None:
        self.seen = np.zeros(self.n_classes, int)
        self.right = {way: np.zeros(self.n_classes, int) for way in self.ways}
        self.kept: list[tuple[list[int], PictureAnswers]] = []

    @property
    def n_images(self) -> int:
        return int(self.seen.sum())

    def add(self, numbers: list[int], image_features: Floats) -> None:
        """numbers: of the pictures, whose features (N, E) these are"""
        labels = self.labels[numbers]
        np.add.at(self.seen, labels, 1)
        for way, logits_by in self.ways.items():
            logits = logits_by(image_features)
            np.add.at(self.right[way], labels, logits.argmax(axis=1) == labels)
            if way == self.use:
                self.n_none += int(are_none(logits, self.threshold).sum())
                if self.keeps_answers:
                    self.kept.append((numbers, answers_of(logits, labels)))

    def accuracies(self) -> dict[str, float]:
        """By way, of all pictures."""
        return {way: float(right.sum() / self.n_images) for way, right in self.right.items()}

    def per_class(self, names: Sequence[str]) -> dict[str, float]:
        """The accuracy of the way in use, for classes that have pictures."""
        right = self.right[self.use]
        return {names[k]: float(right[k] / self.seen[k]) for k in np.flatnonzero(self.seen).tolist()}
