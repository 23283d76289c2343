"""The loss of class features: by hand, by differences, whatever the blocks; and the minimum in a ball."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpzo_edge import types
from sharpzo_edge.search import losses
from sharpzo_edge.search.losses import FeatureLoss, LinearModel, ball_minimum, minimum_in_ball, scores
from sharpzo_edge.types import LabelledFeatures

N, K, E, R = 23, 4, 6, 3
SCALE = 7.0
seeds = st.integers(0, 2**32 - 1)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


class InSlices:
    """Features that can only be read as a file's would be: slice by slice."""

    def __init__(self, features):
        self._features = features

    def __getitem__(self, rows):
        assert isinstance(rows, slice)
        return self._features[rows]


def pictures(seed=0, n=N):
    rng = np.random.default_rng(seed)
    features = unit(rng.standard_normal((n, E))).astype(np.float32)
    return LabelledFeatures(InSlices(features), rng.integers(0, K, n))


def features_and_columns(seed=0):
    rng = np.random.default_rng(seed)
    T = unit(rng.standard_normal((K, E))).astype(np.float32)
    return T, rng.standard_normal((R, K, E)).astype(np.float32)


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
    monkeypatch.setattr(losses, "SMALLEST_SHARE", share)
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


@given(seed=seeds, radius=st.sampled_from([1e-3, 0.3, 1.0, 5.0]), curved=st.integers(0, 2))
@settings(max_examples=60, deadline=None)
def test_nothing_in_the_ball_is_below_its_minimum(seed, radius, curved):
    """Against every point of a fine polar grid in the plane, H of rank 0, 1 and 2."""
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((curved, 2))
    g, H = rng.standard_normal(2), root.T @ root
    a = ball_minimum(g, H, radius)
    assert np.linalg.norm(a) <= radius * (1 + 1e-9)
    angles, lengths = np.meshgrid(np.linspace(0, 2 * np.pi, 721), np.linspace(0, radius, 41))
    grid = np.stack([lengths * np.cos(angles), lengths * np.sin(angles)], axis=-1).reshape(-1, 2)
    values = grid @ g + np.einsum("ni,ij,nj->n", grid, H, grid) / 2
    assert g @ a + a @ H @ a / 2 <= values.min() + 1e-9 * np.abs(values).max()


def test_ball_minimum_in_known_cases():
    H = np.diag([1.0, 4.0])
    np.testing.assert_allclose(ball_minimum(np.array([-1.0, -4.0]), H, 10.0), [1, 1])  # Newton's step
    np.testing.assert_allclose(ball_minimum(np.array([3.0, 4.0]), np.zeros((2, 2)), 2.0), [-1.2, -1.6])
    np.testing.assert_array_equal(ball_minimum(np.zeros(2), H, 1.0), [0, 0])
    # (1 + mu) a = 3 on the sphere of radius 1: mu = 2.
    np.testing.assert_allclose(ball_minimum(np.array([-3.0, 0.0]), H, 1.0), [1, 0], atol=1e-12)


@given(seed=seeds, radius=st.sampled_from([0.05, 0.5, 3.0]))
@settings(max_examples=25, deadline=None)
def test_gauss_newton_finds_what_a_grid_finds(seed, radius):
    """Along one direction the model's loss can be seen whole: no point of the interval is much lower than
    where Gauss-Newton ends when it begins there, and it never ends above its start.
    """
    T, columns = features_and_columns(seed)
    model = LinearModel(FeatureLoss(pictures(seed), SCALE, 0.1), T, columns[:1])
    values = np.array([model.value(np.array([a])) for a in np.linspace(-radius, radius, 41)])
    best = np.linspace(-radius, radius, 41)[[values.argmin()]]
    for start in (np.zeros(1), best):
        a = minimum_in_ball(model, radius, start, 20)
        assert abs(a[0]) <= radius * (1 + 1e-9)
        assert model.value(a) <= model.value(start)
    assert model.value(minimum_in_ball(model, radius, best, 20)) <= values.min()


def test_a_minimum_far_away_is_reached_step_by_step():
    T, columns = features_and_columns()
    model = LinearModel(FeatureLoss(pictures(), SCALE, 0.1), T, columns)
    a, values = np.zeros(R), [model.value(np.zeros(R))]
    for radius in (0.1, 0.2, 0.5, 1.0):
        a = minimum_in_ball(model, radius, a, 6)
        values.append(model.value(a))
    assert all(later <= earlier for earlier, later in pairwise(values))
    assert values[-1] < 0.9 * values[0]
