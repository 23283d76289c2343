"""The step: the least value in a ball, and nothing below it."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpzo_edge.search.gauss_newton import LinearModel, ball_minimum, minimum_in_ball
from sharpzo_edge.search.losses import FeatureLoss
from support.features import SCALE, R, features_and_columns, pictures

seeds = st.integers(0, 2**32 - 1)


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
