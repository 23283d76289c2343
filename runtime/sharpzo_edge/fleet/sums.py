"""What a member answers from its pictures: sums over them, and nothing of any one of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..search.gauss_newton import quadratic_model
from ..search.losses import FeatureLoss
from ..tuning.judge import by_class
from ..types import Doubles, Floats, Halves, LabelledFeatures
from .messages import Counts, Judged, Modelled


@dataclass(frozen=True, eq=False)
class MemberPictures:
    """A member's shots, in all views, and its validation pictures; classes may be missing."""

    train: LabelledFeatures
    val: LabelledFeatures
    logit_scale: float

    def judged(self, class_features: Floats, smoothing: float) -> Judged:
        """class_features: (B, K, E)"""
        n_classes = class_features.shape[1]
        loss = np.zeros((len(class_features), 2, n_classes))
        right = np.zeros((len(class_features), 2, n_classes), np.int64)
        with np.errstate(invalid="ignore"):
            for i, T in enumerate(class_features):
                for j, pictures in enumerate((self.train, self.val)):
                    if len(pictures):
                        counts = counts_of(pictures, n_classes)
                        of_loss, of_right = by_class(T, pictures, self.logit_scale)
                        loss[i, j], right[i, j] = of_loss * counts, np.rint(of_right * counts)
        smoothed = self._loss(smoothing).values(class_features) * len(self.train)
        return Judged(loss, right, smoothed)

    def derived(self, class_features: Floats, columns: Floats, smoothing: float) -> Doubles:
        """class_features: (K, E);  columns: (n, K, E) -> (n,)"""
        return self._loss(smoothing).derivatives(class_features, columns) * len(self.train)

    def modelled(self, class_features: Floats, columns: Halves, smoothing: float) -> Modelled:
        """class_features: (K, E);  columns: (r, K, E)"""
        n, model = len(self.train), quadratic_model(self._loss(smoothing), class_features, columns)
        return Modelled(n * model.loss, n * model.gradient, n * triangle(model.curvature))

    def _loss(self, smoothing: float) -> FeatureLoss:
        return FeatureLoss(self.train, self.logit_scale, smoothing)


def counts_of(pictures: LabelledFeatures, n_classes: int) -> Counts:
    """(K,) pictures of each class."""
    return np.bincount(pictures.labels, minlength=n_classes).astype(np.int64)


def triangle(matrix: Doubles) -> Doubles:
    """The upper triangle of a matrix (n, n), row by row: (n (n + 1) / 2,)."""
    found: Doubles = matrix[_is_upper(len(matrix))]
    return found


def symmetric(upper: Doubles, n: int) -> Doubles:
    """The symmetric matrix (n, n) of its upper triangle."""
    matrix = np.zeros((n, n))
    matrix[_is_upper(n)] = upper
    matrix.T[_is_upper(n)] = upper
    return matrix


def _is_upper(n: int) -> NDArray[np.bool_]:
    return np.tri(n, dtype=bool).T
