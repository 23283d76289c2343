"""The black box that tuning minimises: a point w in, a loss out, for one query each.

    context = p0 + reshape(A w, (m, D))
    T       = unit class features of the text tower            (K, E)
    logits  = s F T^T                                          s: the model's logit scale
    L(w)    = mean cross-entropy(logits, labels)

One query is one pass of the text tower over all classes for one context, whatever for. This file counts
them, and no other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..clip.class_prompts import ClassPrompts
from ..errors import NumericsError
from ..search.losses import Score, scores
from ..types import Doubles, Floats, LabelledFeatures


class Tower(Protocol):
    """What the objective needs of a text tower."""

    def class_features(self, context: Floats, prompts: ClassPrompts) -> Floats:
        """context (B, m, D) -> unit class features (B, K, E), float32. Costs B queries."""


@dataclass(frozen=True)
class Evaluation:
    """What a point is worth: w (d,), unit class features (K, E), scores on shots and validation pictures."""

    w: Doubles
    class_features: Floats
    train: Score
    val: Score | None

    @property
    def watched(self) -> Score:
        """On validation pictures, or on the shots where there are none."""
        return self.val or self.train


def projection(seed: np.random.SeedSequence, n_out: int, dim: int, std: float) -> Floats:
    """A: (n_out, dim) float32, entries ~ N(0, std²). Never stored; its seed is."""
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((n_out, dim), dtype=np.float32)
    A *= np.float32(std)
    return A


def projection_bytes(n_out: int, dim: int) -> int:
    """Of A as a matrix."""
    return 4 * n_out * dim


def moved(A: Floats, points: Doubles) -> Floats:
    """A w of points (B, d): (B, n_out) float32. An A of one number, (), is that times the identity."""
    w = points.astype(np.float32)
    result: Floats = w @ A.T if A.ndim else w * A
    return result


class Objective:
    """L(w) for batches of points, and the count of all queries."""

    def __init__(
        self,
        tower: Tower,
        prompts: ClassPrompts,
        initial_context: Floats,
        A: Floats,
        pictures: LabelledFeatures,
        logit_scale: float,
        batch: int,
    ):
        """A: (m D, d), or (), see moved; batch: how many points share a pass (the plan's)."""
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

    def finite_features(self, w: Doubles) -> Floats:
        """Class features (K, E) at one point (d,). Costs one query. Raises NumericsError unless finite."""
        T: Floats = self.class_features(w[np.newaxis])[0]
        if not np.isfinite(T).all():
            raise NumericsError(
                f"The text tower's answer is not finite, at query {self.queries}, for a w of norm "
                f"{np.linalg.norm(w):.3g}. Class features must be finite numbers. Use smaller steps "
                f"(--eta, --sigma0, --projection-std), or check the bundle with: "
                f"sharpzo-edge doctor --bundle BUNDLE"
            )
        return T

    def require_one_answer(self, w: Doubles, class_features: Floats) -> None:
        """Ask again; raise NumericsError when the answer is another. Costs one query.

        Without that no run could be repeated, nor a difference of losses be trusted.
        """
        again = self.class_features(w[np.newaxis])[0]
        if not np.array_equal(class_features, again):
            raise NumericsError(
                f"The text tower answers one prompt differently when it is asked twice, by up to "
                f"{np.abs(class_features - again).max():.1e}. The same input must give the same answer, "
                f"bit for bit. Try --threads 1, and check the bundle with: "
                f"sharpzo-edge doctor --bundle BUNDLE"
            )

    def evaluation(self, w: Doubles, class_features: Floats, validation: LabelledFeatures) -> Evaluation:
        """What w is worth, where its class features (K, E) are known. Costs no query."""
        T = class_features[np.newaxis]
        (train,) = scores(T, self.pictures, self.logit_scale)
        (val,) = scores(T, validation, self.logit_scale) if len(validation) else (None,)
        return Evaluation(w, class_features, train, val)
