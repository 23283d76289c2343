"""The black box that tuning minimises: a point w in, a loss out, for one query each.

    context = p0 + reshape(A w, (m, D))
    T       = unit class features of the text tower            (K, E)
    logits  = s F T^T                                          s: the model's logit scale
    L(w)    = mean cross-entropy(logits, labels)

One query is one pass of the text tower over all classes for one context, whatever for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .arrays import Doubles, Floats, LabelledFeatures
from .class_prompts import ClassPrompts
from .memory import picture_block

if TYPE_CHECKING:
    from .towers import TextTower


@dataclass(frozen=True)
class Score:
    """loss: mean cross-entropy at the model's logit scale; accuracy: a fraction."""

    loss: float
    accuracy: float


def scores(class_features: Floats, pictures: LabelledFeatures, logit_scale: float) -> list[Score]:
    """Loss and accuracy of each of (B, K, E) on one or more pictures, which are read once. Costs no query."""
    totals, right = np.zeros(len(class_features)), np.zeros(len(class_features), int)
    step = picture_block(*class_features.shape[1:])
    for start in range(0, len(pictures), step):
        rows = slice(start, start + step)
        features, labels = pictures.features[rows], pictures.labels[rows]
        for i, T in enumerate(class_features):
            logits = logits_of(features, T, logit_scale)
            totals[i] += cross_entropies(logits, labels).sum()
            right[i] += (logits.argmax(axis=1) == labels).sum()
    n = len(pictures)
    return [Score(float(t / n), float(r / n)) for t, r in zip(totals, right, strict=True)]


def logits_of(features: Floats, class_features: Floats, logit_scale: float) -> Floats:
    """s F T^T: (N, K) float32."""
    return np.float32(logit_scale) * (features @ class_features.T)


def cross_entropies(logits: Floats, labels: NDArray[np.int64]) -> Doubles:
    """-log softmax(logits)[label], a row each: (N,) float64."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    picked = shifted[np.arange(len(labels)), labels]
    losses: Doubles = np.log(np.exp(shifted, out=shifted).sum(axis=1)) - picked
    return losses


def softmax(logits: Floats) -> Doubles:
    """Probabilities along the last axis: (N, K) float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    probabilities: Doubles = shifted / shifted.sum(axis=-1, keepdims=True)
    return probabilities


def projection(seed: np.random.SeedSequence, n_out: int, dim: int, std: float) -> Floats:
    """A: (n_out, dim) float32, entries ~ N(0, std²). Never stored; its seed is."""
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((n_out, dim), dtype=np.float32)
    A *= np.float32(std)
    return A


def moved(A: Floats, points: Doubles) -> Floats:
    """A w of points (B, d): (B, n_out) float32. An A of one number, (), is that times the identity."""
    w = points.astype(np.float32)
    result: Floats = w @ A.T if A.ndim else w * A
    return result


class Objective:
    """L(w) for batches of points, counting queries."""

    def __init__(
        self,
        tower: TextTower,
        prompts: ClassPrompts,
        initial_context: Floats,
        A: Floats,
        pictures: LabelledFeatures,
        logit_scale: float,
        batch: int,
    ):
        """A: (m D, d), or (), see moved; batch: how many points are evaluated together (the plan's)."""
        self.queries = 0
        self.batch = batch
        self.pictures = pictures
        self.logit_scale = logit_scale
        self._tower = tower
        self._prompts = prompts
        self._p0 = initial_context
        self._A = A

    def contexts(self, points: Doubles) -> Floats:
        """p0 + reshape(A w): points (B, d) float64 -> (B, m, D) float32; infinite where float32 ends."""
        with np.errstate(over="ignore"):
            offsets = moved(self._A, points)
        return self._p0 + offsets.reshape(len(points), *self._p0.shape)

    def class_features(self, points: Doubles) -> Floats:
        """points (B, d) -> unit class features (B, K, E). Costs B queries."""
        self.queries += len(points)
        return self._tower.class_features(self.contexts(points), self._prompts)

    def losses(self, points: Doubles) -> Doubles:
        """points (B, d) float64, at most `batch` of them -> (B,) float64. Costs B queries.

        Where a tower's answer is not finite, neither is the loss: the optimisers decide what then.
        """
        with np.errstate(invalid="ignore"):
            answers = scores(self.class_features(points), self.pictures, self.logit_scale)
        return np.array([each.loss for each in answers])
