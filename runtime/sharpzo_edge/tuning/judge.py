"""Which evaluation is better: by validation pictures, where every class weighs alike.

A class without validation pictures is judged by its shots. Otherwise the classes that have some would choose
for all: one class with 20 pictures beside nine with 16 once chose prompts that were no better than the words
alone. docs/development.md compares this choice with others over ten shapes of imbalance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..search.losses import Score, cross_entropies, logits_of, picture_block
from ..types import Doubles, Floats, LabelledFeatures


@dataclass(frozen=True)
class Judge:
    """shots: one or more pictures of every class;  validation: of some or all classes, at least one"""

    shots: LabelledFeatures
    validation: LabelledFeatures

    def score(self, class_features: Floats, logit_scale: float) -> Score:
        """Mean loss and accuracy over classes, for class features (K, E). Costs no query."""
        n_classes = len(class_features)
        n_validated = np.bincount(self.validation.labels, minlength=n_classes)
        loss, right = by_class(class_features, self.validation, logit_scale)
        if not n_validated.all():
            shots_loss, shots_right = by_class(class_features, self.shots, logit_scale)
            loss = np.where(n_validated > 0, loss, shots_loss)
            right = np.where(n_validated > 0, right, shots_right)
        return Score(float(loss.mean()), float(right.mean()))


def by_class(
    class_features: Floats, pictures: LabelledFeatures, logit_scale: float
) -> tuple[Doubles, Doubles]:
    """Mean loss and accuracy of each class: (K,) and (K,). 0 for a class without pictures."""
    n_classes = len(class_features)
    loss, right = np.zeros(n_classes), np.zeros(n_classes)
    for features, labels in pictures.blocks(picture_block(*class_features.shape)):
        logits = logits_of(features, class_features, logit_scale)
        np.add.at(loss, labels, cross_entropies(logits, labels))
        np.add.at(right, labels, logits.argmax(axis=1) == labels)
    counts = np.maximum(1, np.bincount(pictures.labels, minlength=n_classes))
    return loss / counts, right / counts
