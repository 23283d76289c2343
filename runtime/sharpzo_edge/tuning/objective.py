"""The function that tuning minimises: from a point w to a loss, for one query each. It counts the queries.

    context = p0 + reshape(A w, (m, D))                    p0: the initial context
    T       = class features of the text tower             (K, E), rows of length one
    logits  = s F T^T                                      s: the model's logit scale; F: image features
    L(w)    = mean cross-entropy(logits, labels)

One query is one pass of the text tower over all classes for one context, whatever for. A tangent, the class
features' derivative along one direction, is one query too. No other file counts them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..clip.class_prompts import ClassPrompts
from ..errors import NumericsError
from ..search.ask_tell import Centre
from ..search.estimators import difference_step, forward_differences
from ..search.losses import Score, scores
from ..types import Doubles, Floats, LabelledFeatures
from .judge import Judge


class Tower(Protocol):
    """What the objective needs of a text tower."""

    def class_features(self, context: Floats, prompts: ClassPrompts) -> Floats:
        """context (B, m, D) -> class features (B, K, E) of length one, float32. Costs B queries."""

    def class_feature_tangents(self, context: Floats, directions: Floats, prompts: ClassPrompts) -> Floats:
        """context (m, D), directions (n, m, D) -> tangents (n, K, E). Only where the plan has tangents."""


@dataclass(frozen=True)
class Evaluation:
    """One w with all that is known of it.

    w:              (d,)
    class_features: (K, E), rows of length one
    train:          loss and accuracy on the shots
    val:            the same on the validation pictures; None without them
    watched:        what decides: by validation, every class alike (judge.py), or on the shots without it
    """

    w: Doubles
    class_features: Floats
    train: Score
    val: Score | None
    watched: Score


def projection(seed: np.random.SeedSequence, n_out: int, dim: int, std: float) -> Floats:
    """A random A: (n_out, dim) float32, entries ~ N(0, std²). It is never stored: its seed gives it again."""
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((n_out, dim), dtype=np.float32)
    A *= np.float32(std)
    return A


def projection_bytes(n_out: int, dim: int) -> int:
    """Bytes of A as a matrix."""
    return 4 * n_out * dim


def moved(A: Floats, points: Doubles) -> Floats:
    """The change of the context: A w for points (B, d), as (B, n_out) float32.

    A: (n_out, d), or a single number of shape (), which stands for that number times the identity
    """
    w = points.astype(np.float32)
    result: Floats = w @ A.T if A.ndim else w * A
    return result


class BaseObjective(ABC):
    """Computes class features for batches of points, and counts all queries. The pictures may be anywhere.

    batch: how many points to ask for at once
    A:     see moved
    """

    def __init__(
        self,
        tower: Tower,
        prompts: ClassPrompts,
        initial_context: Floats,
        A: Floats,
        batch: int,
        has_tangents: bool = False,
    ):
        """See Objective."""
        self.queries = 0
        self.batch = batch
        self._tower = tower
        self._prompts = prompts
        self._p0 = initial_context
        self.A = A
        self._has_tangents = has_tangents

    @abstractmethod
    def losses(self, points: Doubles) -> Doubles:
        """points (B, d) float64, B <= batch -> losses on the shots (B,) float64. Costs B queries.

        If the tower's answer is not finite, the loss is not. The optimisers decide what to do then.
        """

    @abstractmethod
    def evaluation(self, w: Doubles, class_features: Floats, validation: LabelledFeatures) -> Evaluation:
        """Evaluate w with its known class features (K, E). Costs no query.

        validation: the validation pictures of this machine
        """

    @property
    def primal_queries(self) -> int:
        """Queries of a sketch beside those of its directions: tangents share a pass at the centre."""
        return int(self._has_tangents)

    def contexts(self, points: Doubles) -> Floats:
        """p0 + reshape(A w): points (B, d) float64 -> (B, m, D) float32. Infinite where float32 overflows."""
        with np.errstate(over="ignore"):
            offsets = moved(self.A, points)
        return self._p0 + offsets.reshape(len(points), *self._p0.shape)

    def class_features(self, points: Doubles) -> Floats:
        """points (B, d) -> class features (B, K, E) of length one. Costs B queries."""
        self.queries += len(points)
        return self._tower.class_features(self.contexts(points), self._prompts)

    def tangents(self, centre: Centre, directions: Doubles) -> Floats:
        """The class features' derivatives at a centre along directions (n, d), n > 0: (n, K, E) float32.

        Costs n queries, and for the first directions of a centre `primal_queries` more.
        """
        self.queries += self.primal_queries if centre.is_new else 0
        if not self._has_tangents:
            step = difference_step(centre.w)
            answers = self.class_features(centre.w + step * directions)
            return forward_differences(centre.class_features, answers, step)
        self.queries += len(directions)
        (context,) = self.contexts(centre.w[np.newaxis])
        # One by one: the last bits of a product depend on how many rows it has.
        changes = np.concatenate([moved(self.A, direction[np.newaxis]) for direction in directions])
        return self._tower.class_feature_tangents(context, changes.reshape(-1, *context.shape), self._prompts)

    def finite_features(self, w: Doubles) -> Floats:
        """Class features (K, E) at one point (d,). Costs one query.

        Raises NumericsError unless they are finite.
        """
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
        """Compute the class features at w again. Raises NumericsError when they differ. Costs one query.

        If they differ, no run can be repeated, and no finite difference can be trusted.
        """
        again = self.class_features(w[np.newaxis])[0]
        if not np.array_equal(class_features, again):
            raise NumericsError(
                f"The text tower answers one prompt differently when it is asked twice, by up to "
                f"{np.abs(class_features - again).max():.1e}. The same input must give the same answer, "
                f"bit for bit. Try --threads 1, and check the bundle with: "
                f"sharpzo-edge doctor --bundle BUNDLE"
            )


class Objective(BaseObjective):
    """An objective on pictures of this machine."""

    def __init__(
        self,
        tower: Tower,
        prompts: ClassPrompts,
        initial_context: Floats,
        A: Floats,
        pictures: LabelledFeatures,
        logit_scale: float,
        batch: int,
        has_tangents: bool = False,
    ):
        """tower, prompts:  the text tower, and the class names as its input
        initial_context: p0, (m, D)
        A:               (m D, d) or (), see moved
        pictures:        the shots
        batch:           how many points to ask for at once, from the plan
        has_tangents:    whether the tower computes tangents; otherwise they are forward differences
        """
        super().__init__(tower, prompts, initial_context, A, batch, has_tangents)
        self.pictures = pictures
        self.logit_scale = logit_scale

    def losses(self, points: Doubles) -> Doubles:
        with np.errstate(invalid="ignore"):
            answers = scores(self.class_features(points), self.pictures, self.logit_scale)
        return np.array([each.loss for each in answers])

    def evaluation(self, w: Doubles, class_features: Floats, validation: LabelledFeatures) -> Evaluation:
        T = class_features[np.newaxis]
        (train,) = scores(T, self.pictures, self.logit_scale)
        if not len(validation):
            return Evaluation(w, class_features, train, None, train)
        (val,) = scores(T, validation, self.logit_scale)
        watched = Judge(self.pictures, validation).score(class_features, self.logit_scale)
        return Evaluation(w, class_features, train, val, watched)
