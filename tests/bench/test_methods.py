"""The rivals of the accuracy bench: their budgets, their seeds, and their authors' formulas by hand."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from accuracy.methods import black_vip, heads, released, search_loop, zip_spsa, zo
from accuracy.methods.all_methods import METHODS
from accuracy.methods.method import Moment, Problem
from sharpzo_edge.clip.bundle import Bundle
from sharpzo_edge.clip.towers import TextTower
from sharpzo_edge.search.estimators import Randomised
from sharpzo_edge.seeds import seed_stream
from sharpzo_edge.tuning.objective import Objective
from support.noisy_problem import noisy_problem

N_SHOTS, N_VAL = 6, 3
OF_LOSSES = ("cma", "mezo", "sparse_mezo", "zip", "released", "paper", "edge")
HEADS = ("gda", "tip_adapter", "proker", "ss_text")
LIMIT = 120
QUICK = {"change_point": 2, "steps": 30}  # of stages that would not be reached otherwise


@pytest.fixture(scope="module")
def problem(bundle: Bundle) -> Iterator[Problem]:
    with noisy_problem(bundle, 0.05, N_SHOTS, N_VAL) as made:
        yield made


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The points that the text tower was asked for, a batch each."""
    batches: list[int] = []
    ask = TextTower.class_features

    def count(self, context, prompts):
        batches.append(len(context))
        return ask(self, context, prompts)

    monkeypatch.setattr(TextTower, "class_features", count)
    return batches


def run(problem: Problem, name: str, limit: int = LIMIT, **settings: object) -> list[Moment]:
    method = METHODS[name]
    return list(method.run(problem, limit, {**method.grid[0], **settings}))


# Budgets ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OF_LOSSES)
@pytest.mark.parametrize("limit", [1, 2, 57, LIMIT])
def test_no_method_passes_its_budget_and_every_query_counts(problem, counted, name, limit):
    moments = run(problem, name, limit)
    assert sum(counted) <= limit
    queries = [moment.queries for moment in moments]
    assert queries == sorted(queries) and queries[0] <= 2 and queries[-1] <= sum(counted)


@pytest.mark.parametrize("name", ["cma", "mezo", "sparse_mezo", "zip"])
def test_the_budget_is_spent_and_the_end_is_looked_at(problem, counted, name):
    last = run(problem, name)[-1]
    assert last.queries == sum(counted) > LIMIT - 41  # a generation


def test_methods_that_need_one_query_or_none(problem, counted):
    for name in ("zero_shot", *HEADS):
        (moment,) = run(problem, name)
        assert moment.queries == 1
    assert sum(counted) == 1 + len(HEADS)


@pytest.mark.parametrize("name", [*OF_LOSSES, *HEADS])
def test_a_seed_decides_everything(problem, name):
    first, again = ([m.train_loss for m in run(problem, name)] for _ in range(2))
    assert first == again


@pytest.mark.parametrize("name", [*OF_LOSSES, "zero_shot", *HEADS])
def test_losses_are_those_of_the_logits(problem, name):
    for moment in run(problem, name):
        if moment.use:  # of the prompt's loss, told beside another way to label
            continue
        found = heads.loss_of(moment.logits(problem.train.features), problem.train.labels)
        assert found == pytest.approx(moment.train_loss, abs=1e-6)


@pytest.mark.parametrize("name", ["cma", "mezo", "sparse_mezo", "zip", "edge", "gda", "tip_adapter"])
def test_methods_learn(problem, name):
    zero_shot = run(problem, "zero_shot")[0].train_loss
    assert run(problem, name, 400)[-1].train_loss < 0.9 * zero_shot


@pytest.mark.parametrize("name", ["released", "paper"])
def test_both_stages_of_sharpzo_learn(problem, name):
    zero_shot = run(problem, "zero_shot")[0].train_loss
    assert run(problem, name, 4_000, **QUICK)[-1].train_loss < 0.9 * zero_shot


def test_a_step_to_infinity_ends_a_run_at_the_look_before(problem):
    moments = run(problem, "mezo", eta=1e300)
    assert len(moments) >= 1 and all(np.isfinite(m.train_loss) for m in moments)


def test_every_grid_has_at_most_nine_points():
    assert all(1 <= len(method.grid) <= 9 for method in METHODS.values())


# Formulas -----------------------------------------------------------------------------------------


def losses_of(search: search_loop.Search, f, n_steps: int) -> np.ndarray:
    """Drive a search on a plain function; returns its w."""
    ask = next(search)
    for _ in range(n_steps):
        ask = search.send(np.array([f(x) for x in ask.points]))
    return ask.w


def quadratic(x: np.ndarray) -> float:
    return float(x @ (np.arange(1, x.size + 1) * x)) / 2 + x.sum()


def test_released_rows_are_momentum_and_a_smaller_step():
    """The released code's S rows, of which the objective sees the mean, against uncleared_descent."""
    S, d, eta, mu, steps = 40, 6, 0.02, 0.1, 12
    start = np.linspace(-1, 1, d)
    last_sweep = np.arange(d) / 10
    seed = np.random.SeedSequence(5)
    found = losses_of(
        released.uncleared_descent(start, last_sweep, S, steps, eta, mu, seed), quadratic, steps
    )
    rng = np.random.default_rng(seed)
    rows, buffer = start.copy(), np.tile(last_sweep, (S, 1))
    for step in range(steps):
        u = rng.standard_normal(d)
        if step == 0:
            z = u
        else:  # rows whose mean is u / sqrt(S), as independent rows' mean is distributed
            z = rng_rows(S, d, step)
            z += u / np.sqrt(S) - z.mean(axis=0)
        mean = [np.atleast_2d(rows + sign * mu * z).mean(axis=0) for sign in (1, -1)]
        slope = (quadratic(mean[0]) - quadratic(mean[1])) / (2 * mu)
        buffer += slope * z
        rows = rows - eta * buffer
    np.testing.assert_allclose(found, rows.mean(axis=0), rtol=1e-9)


def rng_rows(n: int, d: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d))


def test_zo_sgd_is_one_random_direction_a_step():
    search = zo.zo_sgd(0.1, 1e-3, zo.all_of, np.random.SeedSequence(1), dim=5)
    w = losses_of(search, quadratic, 1)
    z = np.random.default_rng(np.random.SeedSequence(1)).standard_normal(5)
    estimate = Randomised(np.zeros(5), z[np.newaxis], 1e-3)
    gradient = estimate.gradient([quadratic(x) for x in estimate.points(0, 2)])
    np.testing.assert_allclose(w, -0.1 * gradient, rtol=1e-9)


def test_sparse_mezo_moves_small_coordinates_only():
    w = np.array([0.0, -0.1, 0.2, -3.0, 4.0, 5.0, 6.0, 7.0])
    assert zo.smallest(w, 0.75).tolist() == [True, True] + 6 * [False]
    assert zo.smallest(np.zeros(8), 0.75).all()


def test_fastfood_keeps_norms_on_average_and_is_h_g_p_h_b():
    rng = np.random.default_rng(0)
    x = rng.standard_normal(62)
    lengths = [np.linalg.norm(zip_spsa.fastfood(rng, 62, 100) @ x) ** 2 for _ in range(400)]
    assert np.mean(lengths) == pytest.approx(x @ x, rel=0.05)
    H = zip_spsa.walsh_hadamard(np.eye(8))
    np.testing.assert_array_equal(H @ H, 8 * np.eye(8))
    assert H[1].tolist() == [1, -1] * 4


def test_zip_starts_at_its_context_and_counts_its_variables():
    start = zip_spsa.LowRank.start(8, 62, 5, np.random.default_rng(0))
    assert start.vector.size == 417
    assert not start.mixed.any()
    x = np.arange(417.0)
    there = start.with_vector(x)
    np.testing.assert_array_equal(there.vector, x)
    W = there.U @ np.diag(there.s) @ there.V.T + np.ones((8, 1)) * there.v
    np.testing.assert_allclose(there.mixed, W.ravel())


def test_spsa_by_hand_and_its_clip():
    deltas = np.array([[0.5, -1.0], [1.0, 0.5]])
    losses = np.array([3.0, 1.0, 0.0, 2.0])  # slopes 10 and -10 for a probe of 0.1
    np.testing.assert_allclose(zip_spsa.spsa_gradient(losses, deltas, 0.1), [5.0, -15.0])
    np.testing.assert_allclose(zip_spsa.clipped(np.array([3.0, 4.0]), 1.0), [0.6, 0.8])
    np.testing.assert_allclose(zip_spsa.clipped(np.array([0.3, 0.4]), 1.0), [0.3, 0.4])


# BlackVIP -----------------------------------------------------------------------------------------


def test_black_vip_counts_image_passes_and_keeps_its_norms(problem):
    first, *_, last = run(problem, "black_vip", 14)
    assert (first.queries, last.queries) == (1, 12)
    tested = problem.pixels()[:5]
    np.testing.assert_allclose(last.logits(tested)[:2], last.logits(tested[:2]), atol=1e-4)


def test_black_vip_decoder_fills_a_picture():
    decoder = black_vip.Decoder(2, 3)
    params = decoder.start(np.random.default_rng(0))
    added, norms = decoder.run(np.ones((4, 2, 3, 6), np.float32), params)
    assert added.shape == (4, 3, 64, 96) and len(norms) == 4


def test_transposed_convolution_by_hand():
    x, kernel = np.array([[[[1.0], [10.0]]]]), np.array([[[1.0, 2.0], [3.0, 4.0]]])
    found = black_vip.doubled(x, kernel, bias=np.array([0.5]), mix=np.array([[1.0, -2.0]]))
    plain = np.array([[1, 2, 10, 20], [3, 4, 30, 40]])
    np.testing.assert_array_equal(found[0, ..., 0], plain + 0.5)
    np.testing.assert_array_equal(found[0, ..., 1], -2 * plain - 1)


def test_streams_are_the_products(problem):
    assert problem.seed_stream("stage1").spawn_key == seed_stream(0, "stage1").spawn_key
    assert isinstance(problem.objective(8), Objective)
