"""Sketched descent: on a smooth tower without any model; masks; resuming to the bit at every ask."""

import copy
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpzo_edge.errors import NumericsError, UsageError
from sharpzo_edge.search.losses import FeatureLoss
from sharpzo_edge.search.sketched_descent import (
    SMALLEST_DELTA,
    Settings,
    SketchedDescent,
    accepted,
    drawn_directions,
    next_delta,
)
from sharpzo_edge.types import LabelledFeatures
from support.answers import answered
from support.states import assert_same_bits, through_a_file

D, K, E = 12, 3, 5
SETTINGS = Settings(dim=D, rank=5)
WEIGHTS = np.random.default_rng(0).standard_normal((K, D, E))


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def tower(points):
    """(n, D) -> unit class features (n, K, E) that bend with w."""
    return unit(np.tanh(np.einsum("nd,kde->nke", points + 0.3, WEIGHTS) / 3)).astype(np.float32)


def make_loss(smoothing=0.1):
    rng = np.random.default_rng(1)
    X = unit(rng.standard_normal((20, E))).astype(np.float32)
    return FeatureLoss(LabelledFeatures(X, rng.integers(0, K, 20)), 8.0, smoothing)


LOSS = make_loss()


def start(x0=None, seed=4, **options):
    x0 = np.zeros(D) if x0 is None else x0
    own = replace(SETTINGS, **options)
    return SketchedDescent.start(own, LOSS, x0, tower(x0[np.newaxis])[0], np.random.SeedSequence(seed))


def run(descent, rounds=6, f=tower, limit=1000):
    points = []
    while descent.state.step < rounds and not descent.finished:
        asked = descent.ask(limit)
        points.append(asked.points)
        descent.tell(answered(asked, f))
    return np.vstack(points or [np.empty((0, D))])


def loss_at(descent):
    return LOSS.values(descent.solution_features[np.newaxis])[0]


def test_rounds_lower_the_loss_and_never_raise_it():
    descent = start(kept_rounds=0)
    losses = [loss_at(descent)]
    for rounds in range(1, 16):
        asked = run(descent, rounds)
        assert len(asked) == 5 + 4
        losses.append(loss_at(descent))
    assert (np.diff(losses) <= 0).all()
    assert losses[-1] < 0.6 * losses[0]
    np.testing.assert_array_equal(tower(descent.solution[np.newaxis])[0], descent.solution_features)


def test_directions_of_the_whole_space_find_the_minimum():
    """The sketch's model is then the truth, so one round from a wide region does nearly all there is."""
    columns = np.random.default_rng(3).standard_normal((2, K, E))

    def linear(points):
        return unit(tower(np.zeros((1, D))) + np.tensordot(points[:, :2], columns, 1)).astype(np.float32)

    descent = start(rank=D)
    run(descent, 6, linear)
    axis = np.linspace(-4, 4, 81)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    values = LOSS.values(linear(np.pad(grid, ((0, 0), (0, D - 2)))))
    assert loss_at(descent) < values.min() + 1e-3


def test_a_sketch_then_trials_along_it():
    descent = start(np.full(D, 0.5), kept_rounds=0)
    w = descent.solution
    sketch = descent.ask(1000)
    assert sketch.wants == "tangents" and sketch.centre.is_new
    np.testing.assert_array_equal(sketch.centre.w, w)
    np.testing.assert_array_equal(sketch.centre.class_features, descent.solution_features)
    U = sketch.points
    np.testing.assert_allclose(U @ U.T, np.eye(5), atol=1e-12)
    descent.tell(answered(sketch, tower))
    trials = descent.ask(1000)
    assert trials.wants == "features" and trials.centre is None
    steps = trials.points - w
    np.testing.assert_allclose(steps @ U.T @ U, steps, atol=1e-12)
    radii = np.array([0.25, 0.5, 1, 2]) * np.sqrt(1 + w @ w)
    assert (np.linalg.norm(steps, axis=1) <= radii * (1 + 1e-9)).all()


def test_the_trust_region_follows_the_step_that_was_taken():
    assert accepted(1.0, np.array([0.9, 0.7, 0.7, 2.0])) == 1
    assert accepted(1.0, np.array([1.0, 1.0 - 1e-6, np.nan, np.inf])) is None
    assert [next_delta(1.0, best) for best in (0, 1, 2, 3, None)] == [0.25, 0.5, 1, 2, 0.25]
    assert next_delta(3.0, 3) == 4 and next_delta(SMALLEST_DELTA, None) == SMALLEST_DELTA


def test_pruning_nothing_is_the_unmasked_method_bit_for_bit():
    plain, never = start(), start(prune_interval=1)
    assert run(plain).tobytes() == run(never).tobytes()
    assert_same_bits(plain.state, never.state)
    z = np.random.default_rng(0).standard_normal((5, D))
    everything = drawn_directions(z, np.ones(D, bool), np.empty((0, D)))
    np.testing.assert_allclose(everything, np.linalg.qr(z.T)[0].T, atol=1e-12)


def test_masked_rounds_move_kept_coordinates_only():
    """A coordinate that was masked can be kept again by a later mask."""
    descent = start(np.full(D, 0.5), prune_ratio=0.5, prune_interval=3)
    masks = []
    for rounds in range(1, 13):
        before = descent.solution
        run(descent, rounds)
        masks.append(descent.state.mask)
        assert masks[-1].sum() == D // 2
        if (rounds - 1) % 3:
            assert (descent.solution == before)[~masks[-1]].all()
    assert not np.array_equal(masks[0], masks[-1])
    assert (masks[-1] & ~masks[0]).any()  # something dropped came back


@given(seed=st.integers(0, 2**32 - 1), ratio=st.sampled_from([0.0, 0.5]))
@settings(max_examples=20, deadline=None)
def test_parts_and_interruptions_change_no_bit(seed, ratio):
    rng = np.random.default_rng(seed)
    own = replace(SETTINGS, prune_ratio=ratio, prune_interval=2)
    whole = start(prune_ratio=ratio, prune_interval=2)
    asked = run(whole, 4)
    descent, parts = start(prune_ratio=ratio, prune_interval=2), []
    while descent.state.step < 4:
        part = descent.ask(int(rng.integers(1, 9)))
        parts.append(part.points[: rng.integers(0, len(part.points) + 1)])
        descent.tell(answered(replace(part, points=parts[-1]), tower))
        if rng.random() < 0.2:
            read_back = rng.choice([copy.deepcopy, through_a_file])
            descent = SketchedDescent(own, LOSS, read_back(descent.state))
    assert np.vstack(parts).tobytes() == asked.tobytes()
    assert_same_bits(descent.state, whole.state)


def test_resuming_at_every_single_answer():
    whole = start(prune_ratio=0.5, prune_interval=2)
    run(whole, 3)
    descent = start(prune_ratio=0.5, prune_interval=2)
    while descent.state.step < 3:
        descent.tell(answered(descent.ask(1), tower))
        own = replace(SETTINGS, prune_ratio=0.5, prune_interval=2)
        descent = SketchedDescent(own, LOSS, through_a_file(descent.state))
    assert_same_bits(descent.state, whole.state)


def test_asking_again_gives_the_same_points():
    """A sketch's points and trial steps are never in one answer."""
    descent = start()
    assert descent.between_updates
    first = descent.ask(1000).points
    assert first.shape == (5, D)
    assert first.tobytes() == descent.ask(1000).points.tobytes()
    descent.tell(answered(descent.ask(2), tower))
    assert not descent.between_updates
    rest = descent.ask(1000)
    assert rest.points.tobytes() == first[2:].tobytes() and not rest.centre.is_new
    descent.tell(answered(rest, tower))
    assert descent.ask(1000).points.shape == (4, D)
    assert not descent.between_updates


def test_an_earlier_state_is_a_value_of_its_own():
    descent = start()
    before = descent.state
    kept = copy.deepcopy(before)
    run(descent)
    assert_same_bits(before, kept)


def test_two_that_go_on_from_one_state_leave_each_other_alone():
    one = start()
    one.tell(answered(one.ask(2), tower))
    other = SketchedDescent(SETTINGS, LOSS, one.state)
    one.tell(answered(one.ask(2), tower))
    state, kept = one.state, copy.deepcopy(one.state)
    other.tell(-answered(other.ask(2), tower))
    assert_same_bits(state, kept)
    assert not np.array_equal(other.state.columns[2:], state.columns[2:])


def breaks_beyond(length):
    def broken(points):
        T = tower(points)
        T[np.linalg.norm(points, axis=1) > length] = np.nan
        return T

    return broken


def test_of_steps_that_break_the_tower_shorter_ones_are_taken():
    descent = start()
    first = loss_at(descent)
    run(descent, 12, breaks_beyond(0.4))
    assert 0 < np.linalg.norm(descent.solution) <= 0.4
    assert np.isfinite(descent.solution_features).all() and loss_at(descent) < first


def test_new_directions_are_orthogonal_to_kept_ones():
    descent = start(kept_rounds=1)
    run(descent, 1)
    U = descent.state.directions
    assert U.shape == (10, D) and descent.state.columns.shape == (5, K, E)
    np.testing.assert_allclose(U @ U.T, np.eye(10), atol=1e-12)
    assert len(descent.ask(1000).points) == 5
    many = start(kept_rounds=9)
    run(many, 5)
    assert len(many.state.directions) == D  # never more than there are


def test_a_kept_column_answers_for_the_step_that_was_taken():
    descent = start(kept_rounds=1)
    before = descent.solution_features
    run(descent, 1)
    state = descent.state
    w = descent.solution
    a = state.directions[:5] @ w  # from 0
    change = np.tensordot(a, state.columns.astype(np.float64), 1) * np.sqrt(1 + w @ w)
    np.testing.assert_allclose(change, descent.solution_features - before, atol=5e-3)


def test_kept_columns_lower_the_loss_faster():
    """Averaged over seeds, and never worse than what the sketch alone reaches."""
    losses = {kept: [] for kept in (0, 1)}
    for kept, found in losses.items():
        for seed in range(8):
            descent = start(seed=seed, rank=3, kept_rounds=kept)
            run(descent, 6)
            found.append(loss_at(descent))
    assert np.mean(losses[1]) < np.mean(losses[0])


def test_a_direction_without_a_finite_answer_is_left_out():
    descent = start()
    sketch = descent.ask(1000)
    told = answered(sketch, tower)
    told[2, 0, 0] = np.inf
    descent.tell(told)
    steps = descent.ask(1000).points - descent.solution
    np.testing.assert_allclose(steps @ sketch.points[2], 0, atol=1e-14)
    assert np.abs(steps @ sketch.points[1]).max() > 0


def test_nothing_finite_around_w_is_an_error():
    """It leaves the state as it was."""
    descent = start()
    descent.tell(np.full((4, K, E), np.nan))
    before = copy.deepcopy(descent.state)
    with pytest.raises(NumericsError, match=r"no finite class features .*any of 5 points.*--sigma0"):
        descent.tell(np.full((1, K, E), np.nan))
    assert_same_bits(descent.state, before)


def test_it_ends_when_no_step_lowers_the_loss():
    descent = start()
    still = tower(np.zeros((1, D)))
    while not descent.finished:
        descent.tell(answered(descent.ask(1000), lambda points: np.repeat(still, len(points), axis=0)))
    assert descent.state.step == 5 and not descent.solution.any()
    assert descent.ask(7).points.shape == (0, D)


@pytest.mark.parametrize("options", [{"rank": 0}, {"prune_ratio": 1.0}, {"prune_interval": 0}])
def test_settings_that_cannot_be_used_name_their_option(options):
    with pytest.raises(UsageError, match="--" + next(iter(options)).replace("_", "-")):
        Settings(dim=2, **options)


def test_misuse_is_refused():
    descent = start()
    with pytest.raises(ValueError, match="limit is 0"):
        descent.ask(0)
    with pytest.raises(ValueError, match="5 of"):
        descent.tell(np.zeros((6, K, E)))
    with pytest.raises(ValueError, match="5 of"):
        descent.tell(np.zeros(3))
    with pytest.raises(ValueError, match="x0"):
        start(np.full(D, np.nan))
    with pytest.raises(UsageError, match="other settings"):
        SketchedDescent(replace(SETTINGS, rank=4), LOSS, descent.state)
