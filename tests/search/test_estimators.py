"""Estimators: exact where the paper says so, made on demand, and silent about nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpzo_edge.errors import NumericsError, UsageError
from sharpzo_edge.search.estimators import (
    CoordinateWise,
    Randomised,
    difference_step,
    directional_derivatives,
    forward_differences,
    orthonormal_rows,
    projected_gradient,
    reach,
)

dims = st.integers(1, 9)
seeds = st.integers(0, 2**32 - 1)
steps = st.sampled_from([1e-3, 0.1, 2.0])


@given(dim=dims, seed=seeds, mu=steps)
@settings(max_examples=50, deadline=None)
def test_coordinate_wise_is_exact_on_linear_functions(dim, seed, mu):
    rng = np.random.default_rng(seed)
    centre, slope = rng.standard_normal((2, dim))
    cge = CoordinateWise(centre, mu)
    assert cge.n_points == 2 * dim
    losses = cge.points(0, 2 * dim) @ slope + 0.7
    # Round-off of the losses, about 1e-15, over 2 mu = 2e-3.
    np.testing.assert_allclose(cge.gradient(losses), slope, rtol=0, atol=1e-11)


@given(dim=dims, q=st.integers(1, 4), seed=seeds, mu=steps)
@settings(max_examples=50, deadline=None)
def test_randomised_is_the_mean_projection_on_linear_functions(dim, q, seed, mu):
    rng = np.random.default_rng(seed)
    centre, slope = rng.standard_normal((2, dim))
    directions = rng.standard_normal((q, dim))
    rge = Randomised(centre, directions, mu)
    assert rge.n_points == 2 * q
    losses = rge.points(0, 2 * q) @ slope
    expected = np.mean([u * (u @ slope) for u in directions], axis=0)
    np.testing.assert_allclose(rge.gradient(losses), expected, rtol=0, atol=1e-10)


@given(dim=dims, seed=seeds, step=steps)
@settings(max_examples=50, deadline=None)
def test_forward_differences_are_exact_on_linear_features(dim, seed, step):
    """So is the gradient's projection that they give."""
    rng = np.random.default_rng(seed)
    centre, jacobian = rng.standard_normal(dim), rng.standard_normal((dim, 3, 2))
    U = orthonormal_rows(rng.standard_normal((rng.integers(1, dim + 1), dim)))

    def features(points):
        return np.tensordot(points, jacobian, 1).astype(np.float32)

    columns = forward_differences(features(centre), features(centre + step * U), step)
    assert columns.dtype == np.float32
    # Round-off of float32 features, about 1e-6, over h.
    np.testing.assert_allclose(columns, np.tensordot(U, jacobian, 1), rtol=0, atol=1e-5 / step)
    by_features = rng.standard_normal((3, 2))
    exact = directional_derivatives(np.tensordot(U, jacobian, 1).astype(np.float32), by_features)
    found = projected_gradient(centre, U, exact)
    np.testing.assert_allclose(found, U.T @ U @ np.tensordot(jacobian, by_features, 2), rtol=0, atol=1e-5)


def test_the_step_of_differences_grows_with_w():
    assert difference_step(np.zeros(3)) == 0.02
    assert difference_step(np.array([0.0, 3.0, 4.0])) == pytest.approx(0.02 * np.sqrt(26))


def test_directions_without_a_finite_answer_are_left_out():
    by_features = np.ones((1, 2))

    def gradient(tangents):
        return projected_gradient(np.zeros(2), np.eye(2), directional_derivatives(tangents, by_features))

    tangents = np.array([[[2, 2]], [[0, np.inf]]], np.float32)
    np.testing.assert_array_equal(gradient(tangents), [4, 0])
    with pytest.raises(NumericsError, match=r"no finite class features.*--sigma0"):
        gradient(tangents * np.nan)


def test_random_rows_become_orthonormal_and_keep_their_span():
    rows = np.random.default_rng(0).standard_normal((3, 5))
    U = orthonormal_rows(rows)
    assert U.flags.c_contiguous
    np.testing.assert_allclose(U @ U.T, np.eye(3), atol=1e-14)
    np.testing.assert_allclose(rows @ U.T @ U, rows, atol=1e-14)


def test_reach_is_1_at_the_origin_and_the_length_far_away():
    assert reach(np.zeros(3)) == 1
    assert reach(np.array([0.0, 3e4, 4e4])) == pytest.approx(5e4)


def test_central_differences_have_no_first_order_bias():
    """On w^2 at w = 3 a forward difference with mu = 0.5 is 6.5, a central one 6."""
    cge = CoordinateWise([3.0], 0.5)
    assert cge.gradient(cge.points(0, 2)[:, 0] ** 2) == 6.0


def test_points_are_plus_then_minus():
    np.testing.assert_array_equal(
        CoordinateWise([1.0, 2.0], 0.5).points(0, 4), [[1.5, 2], [0.5, 2], [1, 2.5], [1, 1.5]]
    )
    np.testing.assert_array_equal(
        Randomised([1.0, 2.0], [[2.0, 0.0], [1.0, 1.0]], 0.5).points(0, 4),
        [[2, 2], [0, 2], [1.5, 2.5], [0.5, 1.5]],
    )


@given(seed=seeds, start=st.integers(0, 12), size=st.integers(0, 12))
@settings(max_examples=30, deadline=None)
def test_a_part_of_the_points_has_the_bits_of_the_whole(seed, start, size):
    rng = np.random.default_rng(seed)
    for estimator in (
        CoordinateWise(rng.standard_normal(6), 1e-3),
        Randomised(rng.standard_normal(6), rng.standard_normal((6, 6)), 1e-3),
    ):
        stop = min(start + size, 12)
        whole = estimator.points(0, 12)
        part = estimator.points(start, stop)
        assert part.dtype == np.float64 and part.shape == (stop - start, 6)
        assert part.tobytes() == whole[start:stop].tobytes()


def test_the_callers_arrays_are_neither_kept_nor_changed():
    centre, directions = np.ones(3), np.ones((2, 3))
    for estimator in (CoordinateWise(centre, 0.1), Randomised(centre, directions, 0.1)):
        before = estimator.points(0, 3)
        before[:] = 9
        centre[:], directions[:] = 5, 5
        assert np.abs(estimator.points(0, 3)).max() < 2
        centre[:], directions[:] = 1, 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_loss_that_is_not_finite_names_its_pair_and_value(value):
    losses = np.zeros(6)
    losses[3] = value
    with pytest.raises(NumericsError, match=rf"{value} at the minus point of coordinate 1.*mu-cge"):
        CoordinateWise(np.zeros(3), 0.1).gradient(losses)
    with pytest.raises(NumericsError, match=rf"{value} at the minus point of direction 1.*mu-rge"):
        Randomised(np.zeros(3), np.ones((3, 3)), 0.1).gradient(losses)


@pytest.mark.parametrize("mu", [0.0, -1e-3, np.nan, np.inf])
def test_an_unusable_step_is_refused(mu):
    with pytest.raises(UsageError, match="--mu-cge"):
        CoordinateWise(np.zeros(2), mu)
    with pytest.raises(UsageError, match="--mu-rge"):
        Randomised(np.zeros(2), np.ones((1, 2)), mu)


def test_wrong_shapes_and_ranges_are_refused():
    cge = CoordinateWise(np.zeros(3), 0.1)
    for start, stop in ((-1, 2), (0, 7), (4, 3)):
        with pytest.raises(ValueError, match="there are 0"):
            cge.points(start, stop)
    with pytest.raises(ValueError, match="6 points"):
        cge.gradient(np.zeros(5))
    with pytest.raises(ValueError, match="directions"):
        Randomised(np.zeros(3), np.ones(3), 0.1)
