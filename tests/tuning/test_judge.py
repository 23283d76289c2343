"""Every class weighs alike in the choice of an evaluation, and shots stand in where validation has none."""

from __future__ import annotations

import numpy as np
import pytest

from sharpzo_edge.search.losses import scores
from sharpzo_edge.tuning.judge import Judge
from sharpzo_edge.types import Floats, LabelledFeatures

SCALE = 5.0


def unit(rows: np.ndarray) -> Floats:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def pictures(labels: list[int], seed: int = 0) -> LabelledFeatures:
    rng = np.random.default_rng(seed)
    return LabelledFeatures(unit(rng.normal(size=(len(labels), 8))), np.array(labels, np.int64))


def features(n_classes: int, seed: int = 1) -> Floats:
    return unit(np.random.default_rng(seed).normal(size=(n_classes, 8)))


def test_with_equal_numbers_it_is_the_mean_over_pictures() -> None:
    T, validation = features(3), pictures([0, 0, 1, 1, 2, 2])
    (expected,) = scores(T[np.newaxis], validation, SCALE)
    found = Judge(pictures([0, 1, 2], seed=5), validation).score(T, SCALE)
    assert found.loss == pytest.approx(expected.loss, rel=1e-12)
    assert found.accuracy == pytest.approx(expected.accuracy)


def test_a_class_with_many_pictures_counts_as_one_with_few() -> None:
    T, once = features(2), pictures([0, 1])
    many = LabelledFeatures(once.features[:][[0] * 9 + [1]], np.array([0] * 9 + [1]))
    shots = pictures([0, 1], seed=5)
    assert Judge(shots, many).score(T, SCALE).loss == pytest.approx(Judge(shots, once).score(T, SCALE).loss)


def test_shots_stand_in_for_a_class_without_validation() -> None:
    T, shots, validation = features(3), pictures([0, 0, 1, 2, 2]), pictures([0, 0], seed=5)
    together = LabelledFeatures(
        np.concatenate((validation.features[:], shots.features[2:3], shots.features[3:5])),
        np.array([0, 0, 1, 2, 2]),
    )
    expected = Judge(shots, together).score(T, SCALE)
    assert Judge(shots, validation).score(T, SCALE) == expected


def test_one_class_does_not_choose_for_all() -> None:
    """Nine classes get better and the only validated one a little worse: that is better."""
    axes = np.eye(10, dtype=np.float32)
    shots, validation = LabelledFeatures(axes, np.arange(10)), LabelledFeatures(axes[:1], np.array([0]))
    judge = Judge(shots, validation)
    poor = unit(axes + 0.5 * np.roll(axes, 1, axis=0))
    better = axes.copy()
    better[0] = unit(axes[:1] + 0.9 * axes[-1:])[0]
    of_one = [scores(T[np.newaxis], validation, SCALE)[0].loss for T in (poor, better)]
    assert of_one[1] > of_one[0]
    assert judge.score(better, SCALE).loss < judge.score(poor, SCALE).loss
