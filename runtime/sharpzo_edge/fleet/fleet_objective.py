"""The objective and the losses of a fleet: interfaces of `tuning` and `search`, answered by its members."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..clip.class_prompts import ClassPrompts
from ..run.files import checksum
from ..search.ask_tell import Centre
from ..search.gauss_newton import QuadraticModel
from ..search.losses import Score
from ..tuning.objective import BaseObjective, Evaluation
from ..types import Doubles, Floats, Halves, LabelledFeatures
from .messages import Derive, Features, Judge, Judged, Model, Tangents
from .sums import symmetric
from .waves import Fleet

MOST_AT_ONCE = 64  # points in a wave
MOST_BYTES = 32 << 20  # and what their class features take
REMEMBERED = 2 * MOST_AT_ONCE  # verdicts: a round asks for the same class features several times


def points_at_once(n_classes: int, embed_dim: int) -> int:
    """How many points to ask a fleet for at once."""
    return max(1, min(MOST_AT_ONCE, MOST_BYTES // (4 * n_classes * embed_dim)))


@dataclass
class FleetTower:
    """A text tower whose points are shared out among the members.

    in_half: whether tangents travel in half precision
    """

    fleet: Fleet
    run: str
    in_half: bool = False

    def class_features(self, context: Floats, prompts: ClassPrompts) -> Floats:
        """context (B, m, D) -> class features (B, K, E) float32. Costs B queries, and a wave."""
        found = self.fleet.shares(len(context), lambda part: Features(self.run, context[part]))
        return np.concatenate([each.features for each in found])

    def class_feature_tangents(self, context: Floats, directions: Floats, prompts: ClassPrompts) -> Floats:
        """context (m, D), directions (n, m, D) -> (n, K, E) float32. Costs n + 1 queries, and a wave."""
        found = self.fleet.shares(
            len(directions), lambda part: Tangents(self.run, context, directions[part], self.in_half)
        )
        return np.concatenate([each.tangents for each in found]).astype(np.float32)


@dataclass(frozen=True)
class Verdict:
    """What class features are worth on the pictures of all members. smoothed: the loss of stage 2"""

    train: Score
    val: Score | None
    watched: Score
    smoothed: float


class FleetPictures:
    """What all members' pictures say of class features. It remembers the last verdicts."""

    def __init__(self, fleet: Fleet, run: str, smoothing: float):
        """smoothing: of stage 2, so that one wave answers for both stages"""
        self.fleet, self.run, self.smoothing = fleet, run, smoothing
        self._verdicts: OrderedDict[str, tuple[int, Verdict]] = OrderedDict()

    def verdicts(self, class_features: Floats) -> list[Verdict]:
        """Of class features (B, K, E). Costs a wave, unless all are remembered."""
        keys = [checksum(np.ascontiguousarray(T).data) for T in class_features]
        new = [i for i, key in enumerate(keys) if not self._remembers(key)]
        if new:
            asked = np.asarray(class_features[new], np.float32)
            answers = self.fleet.sums(Judge(self.run, asked, self.smoothing))
            for i, verdict in zip(new, self._judged(answers), strict=True):
                self._verdicts[keys[i]] = self.fleet.epoch, verdict
        found = [self._verdicts[key][1] for key in keys]
        while len(self._verdicts) > REMEMBERED:
            self._verdicts.popitem(last=False)
        return found

    def _remembers(self, key: str) -> bool:
        """Whether a verdict is known, of the pictures that count now."""
        epoch, _ = self._verdicts.get(key, (-1, None))
        return epoch == self.fleet.epoch

    def _judged(self, answers: dict[str, Judged]) -> list[Verdict]:
        parts = self.fleet.parts
        counts = np.sum([np.stack((parts[name].train, parts[name].val)) for name in answers], axis=0)
        loss, right, smoothed = (
            sum(getattr(a, f) for a in answers.values()) for f in ("loss", "right", "smoothed")
        )
        n_train, n_val = counts.sum(axis=1)
        has_val = counts[1] > 0
        per_class = np.maximum(counts, 1)
        verdicts = []
        for of_loss, of_right, of_smoothed in zip(loss, right, smoothed, strict=True):
            train = Score(float(of_loss[0].sum() / n_train), float(of_right[0].sum() / n_train))
            val, watched = None, train
            if n_val:
                val = Score(float(of_loss[1].sum() / n_val), float(of_right[1].sum() / n_val))
                # As Judge: every class alike, and its shots stand in for a class without validation pictures.
                means = (np.where(has_val, m[1], m[0]) for m in (of_loss / per_class, of_right / per_class))
                watched = Score(*(float(each.mean()) for each in means))
            verdicts.append(Verdict(train, val, watched, float(of_smoothed / n_train)))
        return verdicts

    def loss(self, smoothing: float) -> FleetLoss:
        """The loss on all shots."""
        return FleetLoss(self, smoothing)


@dataclass(frozen=True)
class FleetLoss:
    """What optimisers ask of a loss: see search.losses.Loss."""

    pictures: FleetPictures
    smoothing: float

    def values(self, class_features: Floats | Doubles) -> Doubles:
        verdicts = self.pictures.verdicts(np.asarray(class_features, np.float32))
        is_plain = self.smoothing == 0
        return np.array([v.train.loss if is_plain else v.smoothed for v in verdicts])

    def derivatives(self, class_features: Floats, columns: Floats | Halves) -> Doubles:
        ask = Derive(
            self.pictures.run, class_features, columns.astype(np.float32, copy=False), self.smoothing
        )
        answers = self.pictures.fleet.sums(ask)
        found: Doubles = sum(each.derivatives for each in answers.values()) / self._n_train(answers)
        return found

    def quadratic(self, class_features: Floats, columns: Halves) -> QuadraticModel:
        """The loss in the columns' subspace by its sums at the centre: one wave, whatever the model's use."""
        answers = self.pictures.fleet.sums(Model(self.pictures.run, class_features, columns, self.smoothing))
        n = self._n_train(answers)
        loss, gradient, curvature = (
            sum(getattr(each, name) for each in answers.values()) / n
            for name in ("loss", "gradient", "curvature")
        )
        return QuadraticModel(float(loss), gradient, symmetric(curvature, len(columns)))

    def _n_train(self, answers: dict[str, Any]) -> int:
        parts = self.pictures.fleet.parts
        return sum(int(parts[name].train.sum()) for name in answers)


def quadratic_model(loss: FleetLoss, class_features: Floats, columns: Halves) -> QuadraticModel:
    """Makes the models of stage 2; see SketchedDescent."""
    return loss.quadratic(class_features, columns)


class FleetObjective(BaseObjective):
    """An objective on the pictures of all members."""

    def __init__(
        self,
        tower: FleetTower,
        pictures: FleetPictures,
        prompts: ClassPrompts,
        initial_context: Floats,
        A: Floats,
        batch: int,
        has_tangents: bool,
    ):
        """See Objective. batch: see points_at_once"""
        super().__init__(tower, prompts, initial_context, A, batch, has_tangents)
        self._pictures, self._shared = pictures, tower

    def tangents(self, centre: Centre, directions: Doubles) -> Floats:
        self._shared.in_half = centre.in_half
        return super().tangents(centre, directions)

    def losses(self, points: Doubles) -> Doubles:
        verdicts = self._pictures.verdicts(self.class_features(points))
        return np.array([each.train.loss for each in verdicts])

    def evaluation(self, w: Doubles, class_features: Floats, validation: LabelledFeatures) -> Evaluation:
        (verdict,) = self._pictures.verdicts(class_features[np.newaxis])
        return Evaluation(w, class_features, verdict.train, verdict.val, verdict.watched)
