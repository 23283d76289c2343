"""Losses: by hand, in blocks of any size, smoothed, and with derivatives that differences confirm."""

import math

import numpy as np
import pytest

from sharpzo_edge import types
from sharpzo_edge.search import gauss_newton, losses
from sharpzo_edge.search.gauss_newton import LinearModel, minimum_in_ball
from sharpzo_edge.search.losses import (
    FeatureLoss,
    cross_entropies,
    logits_of,
    scores,
)
from sharpzo_edge.types import LabelledFeatures
from support.features import SCALE, E, K, N, R, features_and_columns, pictures, unit

RNG = np.random.default_rng(0)
SCALE_OF_CLIP = 16.3


def units(*shape):
    x = RNG.standard_normal(shape)
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def test_cross_entropies_by_hand():
    logits = np.array([[0.0, math.log(3)], [2.0, 2.0]], np.float32)
    found = cross_entropies(logits, np.array([1, 0]))
    np.testing.assert_allclose(found, [math.log(4 / 3), math.log(2)], rtol=1e-6)
    assert found.dtype == np.float64


def test_extreme_logits_stay_finite_and_right():
    logits = np.array([[1e4, -1e4, 0], [-1e4, 1e4, 0], [-1e4, -1e4, -1e4]], np.float32)
    with np.errstate(all="raise", under="ignore"):
        found = cross_entropies(logits, np.array([0, 0, 2]))
    np.testing.assert_allclose(found, [0, 2e4, math.log(3)], rtol=1e-12)


@pytest.mark.parametrize("n_bytes", [1, 177, 500, 2000, 1 << 20])
def test_scores_are_the_same_in_blocks_of_any_size(monkeypatch, n_bytes):
    monkeypatch.setattr(losses, "SCORING_BYTES", n_bytes)
    features, T, labels = units(31, 8), units(6, 8), RNG.integers(0, 6, 31)
    logits = SCALE_OF_CLIP * features.astype(np.float64) @ T.T.astype(np.float64)
    direct = np.mean([np.log(np.exp(row).sum()) - row[y] for row, y in zip(logits, labels, strict=True)])
    found, turned = scores(np.stack([T, -T]), LabelledFeatures(features, labels), SCALE_OF_CLIP)
    assert turned.loss != found.loss
    assert found.loss == pytest.approx(direct, abs=3e-6)  # logits near 16 in float32
    assert found.accuracy == np.mean(logits.argmax(axis=1) == labels)
    np.testing.assert_allclose(logits_of(features, T, SCALE_OF_CLIP), logits, atol=1e-5)


def test_without_smoothing_it_is_the_objectives_loss():
    T = unit(np.random.default_rng(1).standard_normal((3, K, E))).astype(np.float32)
    expected = [score.loss for score in scores(T, pictures(), SCALE)]
    np.testing.assert_allclose(FeatureLoss(pictures(), SCALE).values(T), expected, rtol=1e-6)


def test_smoothing_by_hand():
    """Two classes, logits (1, 0), label 0, smoothing 0.2: targets 0.9 and 0.1."""
    one = LabelledFeatures(np.array([[1, 0]], np.float32), np.array([0]))
    expected = np.log(np.e + 1) - 0.9
    found = FeatureLoss(one, 1.0, smoothing=0.2).values(np.eye(2)[np.newaxis])
    np.testing.assert_allclose(found, [expected], rtol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_gradients_are_those_of_differences(smoothing):
    loss = FeatureLoss(pictures(), SCALE, smoothing)
    T, columns = features_and_columns()
    model, a, h = LinearModel(loss, T, columns), np.array([0.2, -0.1, 0.3]), 1e-6
    by_a = [(model.value(a + h * e) - model.value(a - h * e)) / (2 * h) for e in np.eye(R)]
    np.testing.assert_allclose(model.gauss_newton(a)[0], by_a, rtol=1e-6, atol=1e-9)
    T = T.astype(np.float64)
    units = h * np.eye(K * E).reshape(-1, K, E)
    by_T = (loss.values(T + units) - loss.values(T - units)) / (2 * h)
    np.testing.assert_allclose(loss.gradient(T).ravel(), by_T, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_the_gauss_newton_matrix_is_that_of_its_definition(monkeypatch, share):
    monkeypatch.setattr(gauss_newton, "SMALLEST_SHARE", share)
    loss, (T, columns) = FeatureLoss(pictures(), SCALE, 0.1), features_and_columns()
    X = pictures().features[:].astype(np.float64)
    a, h = np.array([0.2, -0.1, 0.3]), 1e-6

    def logits(b):
        return SCALE * X @ unit(T + np.tensordot(b, columns.astype(np.float64), 1)).T

    D = np.stack([(logits(a + h * e) - logits(a - h * e)) / (2 * h) for e in np.eye(R)], axis=2)
    p = np.exp(logits(a)) / np.exp(logits(a)).sum(axis=1, keepdims=True)
    H = np.zeros((R, R))
    for D_n, p_n in zip(D, np.where(p < share / K, 0, p), strict=True):
        H += D_n.T @ (np.diag(p_n) - np.outer(p_n, p_n)) @ D_n / N
    found = LinearModel(loss, T, columns).gauss_newton(a)[1]
    np.testing.assert_allclose(found, H, rtol=1e-5, atol=1e-6)
    assert (p < share / K).any() == (share > 0)
    assert np.linalg.eigvalsh(found)[0] > 0


@pytest.mark.parametrize("block_bytes", [1, 1000, 3000])
def test_the_size_of_blocks_changes_round_off_only(block_bytes):
    T, columns = features_and_columns()
    a = np.array([0.2, -0.1, 0.3])
    whole = FeatureLoss(pictures(), SCALE, 0.1)
    parts = FeatureLoss(pictures(), SCALE, 0.1, block_bytes)
    models = LinearModel(parts, T, columns), LinearModel(whole, T, columns)
    for found, expected, atol in (
        (parts.values(T[np.newaxis]), whole.values(T[np.newaxis]), 1e-9),
        (parts.gradient(T), whole.gradient(T), 1e-9),
        (*[model.gauss_newton(a)[0] for model in models], 1e-9),
        (*[model.gauss_newton(a)[1] for model in models], 1e-5),
        (*[minimum_in_ball(model, 2.0, np.zeros(R), 6) for model in models], 1e-5),
    ):
        np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("classes", [1, 3])
def test_some_classes_at_a_time_change_round_off_only(monkeypatch, classes):
    """Of float32, in which the class features of many classes are kept."""
    T, columns = features_and_columns()
    a, loss = np.array([0.2, -0.1, 0.3]), FeatureLoss(pictures(), SCALE, 0.1)

    def found():
        model = LinearModel(loss, T, columns)
        return loss.values(T[np.newaxis]), loss.gradient(T), model.value(a), *model.gauss_newton(a)

    whole = found()
    for module in (types, losses):
        monkeypatch.setattr(module, "CLASS_BLOCK_BYTES", classes * 8 * E)
    parts = found()
    assert parts[1].dtype == np.float32
    for less, more in zip(parts, whole, strict=True):
        np.testing.assert_allclose(less, more, rtol=1e-6, atol=1e-7)


def test_features_that_are_not_finite_have_no_finite_loss():
    T = np.stack([features_and_columns()[0]] * 3)
    T[1, 0, 0], T[2, 2, 1] = np.nan, np.inf
    np.testing.assert_array_equal(np.isfinite(FeatureLoss(pictures(), SCALE).values(T)), [True, False, False])
