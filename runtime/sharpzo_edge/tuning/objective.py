"""The black box that tuning minimises: a point w in, a loss out, for one query each.

    context = p0 + reshape(A w, (m, D))
    T       = unit class features of the text tower            (K, E)
    logits  = s F T^T                                          s: the model's logit scale
    L(w)    = mean cross-entropy(logits, labels)

One query is one pass of the text tower over all classes for one context, whatever for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..clip.class_prompts import ClassPrompts
from ..search.losses import scores
from ..types import Doubles, Floats, LabelledFeatures

if TYPE_CHECKING:
    from ..clip.towers import TextTower


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
