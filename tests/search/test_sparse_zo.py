"""Stage 2: the paper's formulas by hand, dense ZO as the base case, and resuming to the bit."""

import copy
import warnings
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpzo_edge.errors import NumericsError, UsageError
from sharpzo_edge.search.pruning import keep_mask, pruning_score, z_score
from sharpzo_edge.search.sparse_zo import Settings, SparseZOSGD, sgd_step
from support.states import assert_same_bits, through_a_file

D = 7
TARGET = np.linspace(-1, 2, D)
SCALES = np.linspace(0.5, 3, D)


def loss(w):
    return float(np.sum(SCALES * (w - TARGET) ** 2))


SETTINGS = Settings(dim=D, steps=30, eta=0.02, prune_interval=10)


def start(x0=None, seed=4, **options):
    x0 = np.full(D, 0.3) if x0 is None else x0
    return SparseZOSGD.start(replace(SETTINGS, **options), x0, np.random.SeedSequence(seed))


def run(descent, f=loss, limit=1000):
    points = []
    while not descent.finished:
        points.append(descent.ask(limit).points)
        descent.tell([f(w) for w in points[-1]])
    return np.vstack(points)


def test_score_by_hand():
    """g^2 = 1, 1, 4, 4: mean 2.5, std 1.5, z = -1, -1, 1, 1; times w^2 = 4, 1, 1, 9."""
    w, g = np.array([2.0, 1.0, -1.0, 3.0]), np.array([1.0, -1.0, 2.0, -2.0])
    np.testing.assert_array_equal(z_score(g**2), [-1, -1, 1, 1])
    np.testing.assert_array_equal(pruning_score(w, g), [-4, -1, 1, 9])
    np.testing.assert_array_equal(keep_mask(pruning_score(w, g), 0.5), [0, 0, 1, 1])


def test_the_z_score_of_equal_values_is_zero():
    """Although their standard deviation is round-off, and not 0."""
    x = np.full(7, 0.1)
    assert x.std() > 0
    np.testing.assert_array_equal(z_score(x), np.zeros(7))


@pytest.mark.parametrize(
    ("dim", "ratio", "kept"),
    [(4, 0.0, 4), (4, 0.5, 2), (5, 0.5, 3), (10, 0.9, 1), (10, 0.26, 7), (3, 0.99, 1)],
)
def test_mask_keeps_a_rounded_share_and_the_lower_index_of_ties(dim, ratio, kept):
    np.testing.assert_array_equal(keep_mask(np.zeros(dim), ratio), np.arange(dim) < kept)


def test_keeping_everything_is_dense_zo_bit_for_bit():
    x0, eta, mu = np.linspace(-1, 1, D), 0.02, 1e-2
    descent = start(x0, steps=40, eta=eta, mu_rge=mu, prune_ratio=0.0)
    asked = run(descent)
    assert len(asked) == 80  # no sweep

    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(4)))
    w = x0.copy()
    for _ in range(40):
        u = rng.standard_normal(D)
        w = w - eta * (u * ((loss(w + mu * u) - loss(w - mu * u)) / (2 * mu)))
    assert w.tobytes() == descent.solution.tobytes()


def test_sparse_steps_against_the_algorithm_written_out():
    """Algorithm 1 with q = 2 and a mask every 10 steps; the stream of u is that of dense ZO."""
    eta, mu, mu_cge, q = 0.02, 1e-2, 1e-3, 2
    descent = start(eta=eta, mu_rge=mu, mu_cge=mu_cge, prune_ratio=0.4, directions=q)
    asked = run(descent)
    assert len(asked) == 30 * 2 * q + 3 * 2 * D

    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(4)))
    w, masks = np.full(D, 0.3), []
    for step in range(30):
        if step % 10 == 0:
            units = np.eye(D) * mu_cge
            g = np.array([(loss(w + e) - loss(w - e)) / (2 * mu_cge) for e in units])
            score = w**2 * (g**2 - np.mean(g**2)) / np.std(g**2)
            masks.append(np.isin(np.arange(D), np.argsort(-score)[:4]))  # 0.6 * 7 = 4.2
        us = rng.standard_normal((q, D)) * masks[-1]
        slopes = [(loss(w + mu * u) - loss(w - mu * u)) / (2 * mu) for u in us]
        w = w - eta * np.mean([s * u for s, u in zip(slopes, us, strict=True)], axis=0)
    assert any((a != b).any() for a, b in pairwise(masks))
    np.testing.assert_allclose(descent.solution, w, rtol=1e-12)
    np.testing.assert_array_equal(descent.state.mask, masks[-1])


def test_what_the_mask_drops_does_not_move():
    descent = start(steps=10)
    run(descent)
    np.testing.assert_array_equal(descent.solution != 0.3, descent.state.mask)
    assert descent.state.mask.sum() == 4


def test_same_seed_same_bits_and_another_seed_others():
    a, b, c = start(), start(), start(seed=5)
    for descent in (a, b, c):
        run(descent)
    assert_same_bits(a.state, b.state)
    assert (a.solution != c.solution).all()


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_parts_and_interruptions_change_no_bit(seed):
    """Asks of any size, answered in part, with a checkpoint read back at one moment in five."""
    rng = np.random.default_rng(seed)
    whole = start()
    asked = run(whole)

    descent, parts = start(), []
    while not descent.finished:
        points = descent.ask(int(rng.integers(1, 20))).points
        parts.append(points[: rng.integers(0, len(points) + 1)])
        descent.tell([loss(w) for w in parts[-1]])
        if rng.random() < 0.2:
            read_back = rng.choice([copy.deepcopy, through_a_file])
            descent = SparseZOSGD(SETTINGS, read_back(descent.state))
    assert np.vstack(parts).tobytes() == asked.tobytes()
    assert_same_bits(descent.state, whole.state)


def test_asking_again_gives_the_same_points():
    """A sweep's points and a step's points are never in one answer."""
    descent = start()
    assert descent.between_updates
    first = descent.ask(1000).points
    assert first.shape == (2 * D, D)  # the sweep alone: the mask is not known yet
    assert first.tobytes() == descent.ask(1000).points.tobytes()
    descent.tell([loss(w) for w in first])
    assert not descent.between_updates
    assert descent.ask(1000).points.shape == (2, D)


def test_an_earlier_state_is_a_value_of_its_own():
    descent = start()
    before = descent.state
    kept = copy.deepcopy(before)
    run(descent)
    assert_same_bits(before, kept)


def test_more_steps_go_on_like_a_longer_run():
    short, long = start(steps=12), start(steps=20)
    run(short), run(long)
    assert short.ask(5).points.shape == (0, D)
    resumed = SparseZOSGD(replace(SETTINGS, steps=20), short.state)
    run(resumed)
    assert_same_bits(resumed.state, long.state)


def test_the_callers_arrays_stay_as_they_were():
    x0, losses = np.arange(float(D)), np.arange(2.0 * D)[::-1].copy()
    descent = start(x0)
    descent.tell(losses)
    descent.solution[:] = 0
    x0[:] = -1
    np.testing.assert_array_equal(descent.solution, np.arange(D))
    np.testing.assert_array_equal(losses, np.arange(2.0 * D)[::-1])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_changes_no_state(value):
    """It is refused."""
    descent = start()
    descent.tell(np.zeros(3))
    before = copy.deepcopy(descent.state)
    with pytest.raises(NumericsError, match=rf"{value} at the plus point of coordinate 2"):
        descent.tell([0.0, value])
    assert_same_bits(descent.state, before)
    descent.tell([loss(w) for w in descent.ask(1000).points])
    with pytest.raises(NumericsError, match=rf"{value} at the minus point of direction 0.*eta"):
        descent.tell([0.0, value])


def test_numbers_that_overflow_are_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(NumericsError, match=r"--eta 10 times .*Try --eta 1\."):
            sgd_step(np.zeros(2), np.array([1.0, 1e308]), 10.0)
        with pytest.raises(NumericsError, match="mu-cge"):
            pruning_score(np.ones(2), np.array([1.0, 1e200]))


@pytest.mark.parametrize(
    "options",
    [{"eta": 0}, {"eta": np.nan}, {"mu_rge": -1}, {"prune_ratio": 1.0}, {"prune_interval": 0}],
)
def test_settings_that_cannot_be_used_name_their_option(options):
    with pytest.raises(UsageError, match="--" + next(iter(options)).replace("_", "-")):
        Settings(dim=2, steps=1, **options)


def test_misuse_is_refused():
    descent = start()
    with pytest.raises(ValueError, match="limit is 0"):
        descent.ask(0)
    with pytest.raises(ValueError, match="14 are outstanding"):
        descent.tell(np.zeros(15))
    with pytest.raises(ValueError, match="x0"):
        start(np.zeros(D + 1))
    with pytest.raises(UsageError, match="other settings"):
        SparseZOSGD(Settings(dim=D + 1, steps=3), descent.state)
