"""The loop over both stages, on a small smooth objective without any model.

That a run may be stopped and resumed is in test_resume_bit_for_bit.py.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpzo_edge.errors import NumericsError
from sharpzo_edge.run.checkpoint import load_state, save_state
from sharpzo_edge.tuning.loop import FINISHED, State, Update
from sharpzo_edge.tuning.objective import Evaluation
from sharpzo_edge.tuning.settings import PaperSettings, TuneSettings
from sharpzo_edge.tuning.stopping import PATIENCE_GENERATIONS
from support.smooth_loop import DIFFERENCES, EDGE, SMALL, D, M, SmoothTower, make_loop


def test_both_stages_lower_the_loss_each() -> None:
    loop = make_loop(dataclasses.replace(SMALL, steps=300, change_point=6))
    stage1_alone = make_loop(dataclasses.replace(SMALL, steps=6, change_point=6))
    after_stage1 = stage1_alone.run().best
    last = loop.run().best
    assert last.train.loss < after_stage1.train.loss < loop.state.opening.train.loss
    assert loop.state.stage == FINISHED and stage1_alone.state.stage2_from is None


def test_queries_are_as_announced_and_all_counted() -> None:
    tower = SmoothTower()
    loop = make_loop(tower=tower)
    loop.run()
    state = loop.state
    assert state.queries == tower.asked == 2 + state.stage1_queries + state.stage2_queries
    # 4 generations of 14 + 6 + 1 evaluation; 26 steps of 2, three sweeps of 14, the evaluation at the end.
    assert state.stage1_queries == 4 * (14 + 6 + 1)
    assert state.stage2_queries == 26 * 2 + 3 * 14 + 1
    assert state.queries - SMALL.expected_queries in (0, 1)  # the evaluation at the end


@pytest.mark.parametrize("run_settings", [SMALL, EDGE])
def test_every_evaluation_is_told_with_its_queries(run_settings: TuneSettings) -> None:
    seen: list[tuple[str, Evaluation, int, float]] = []

    def watch(update: Update) -> None:
        if update.kind == "evaluation":
            state = update.state
            seen.append((update.where, state.latest, state.queries, state.seconds))

    loop = make_loop(run_settings, n_val=9, on_update=watch)
    loop.run()
    where, evaluations, queries, seconds = zip(*seen, strict=True)
    assert where[0] == "zero-shot" and where[1] == "stage 1  generation 1"
    assert queries[0] == 2 and evaluations[0].train.loss == loop.state.opening.train.loss
    assert list(queries) == sorted(queries) and queries[-1] <= loop.state.queries and len(queries) > 4
    assert list(seconds) == sorted(seconds) and evaluations[-1] is loop.state.latest


@pytest.mark.parametrize("run_settings", [SMALL, EDGE])
def test_the_best_by_validation_is_the_result_or_the_last(run_settings: TuneSettings) -> None:
    losses: list[float] = []

    def watch(update: Update) -> None:
        if update.kind == "evaluation" and update.state.latest.val:
            losses.append(update.state.latest.val.loss)

    loop = make_loop(run_settings, n_val=9, on_update=watch)
    best = loop.run().best
    assert best.val and best.val.loss == min(losses)
    assert 2 <= loop.state.best_queries <= loop.state.queries
    unvalidated = make_loop(run_settings)
    assert unvalidated.run().best is unvalidated.state.latest


@pytest.mark.parametrize("run_settings", [dataclasses.replace(SMALL, steps=2000, eta=1e-6), EDGE])
@pytest.mark.parametrize("n_val", [0, 9])
def test_a_lost_patience_ends_either_method(run_settings: TuneSettings, n_val: int) -> None:
    impatient = dataclasses.replace(run_settings, patience=3)
    loop = make_loop(impatient, max_queries=9_000, n_val=n_val)
    assert loop.run().why.endswith("has not improved for 3 evaluations")
    assert loop.state.patience.idle == 3 and loop.state.stage == FINISHED
    patient = dataclasses.replace(run_settings, patience=0)
    forever = make_loop(patient, max_queries=9_000, n_val=n_val)
    assert "not improved" not in forever.run().why
    assert forever.state.queries > loop.state.queries


@settings(max_examples=40, deadline=None)
@given(limit=st.integers(1, 200))
def test_max_queries_ends_a_run_where_no_update_fits(limit: int) -> None:
    loop = make_loop(max_queries=limit)
    loop.run()
    state = loop.state
    assert state.queries <= limit
    if state.stage == 1:  # an evaluation at the end is kept back
        assert state.search.answered == 0 and limit - 1 - state.queries < 14 + 6
    elif state.stage == 2:
        assert state.search.answered == 0 and limit - 1 - state.queries < 2 + 14


def test_our_own_preset_lowers_the_loss_with_both_stages() -> None:
    loop = make_loop(EDGE)
    first = make_loop(EDGE, max_queries=2 + 3 * 11).run().best
    last = loop.run().best
    assert last.train.loss < first.train.loss < loop.state.opening.train.loss


@pytest.mark.parametrize(("run_settings", "primal"), [(EDGE, 1), (DIFFERENCES, 0)])
def test_looks_are_free_where_class_features_are_known(run_settings: TuneSettings, primal: int) -> None:
    tower = SmoothTower()
    loop = make_loop(run_settings, tower=tower)
    loop.run()
    state = loop.state
    # 3 generations of a sketch of 4 directions and the primal pass that they share, and 6 candidates. The
    # sketch's centre is the look before it, so the last generation's look is all that is added; the very
    # first was counted before the stages.
    assert state.stage1_queries == 3 * (primal + 4 + 6) + 3
    a_round = primal + 4 + 4
    rounds, rest = divmod(state.stage2_queries, a_round)
    assert state.queries == 2 + state.stage1_queries + state.stage2_queries
    assert state.queries == tower.asked + primal * (3 + rounds)
    assert rounds > 5 and rest == 0 and (state.stage == FINISHED or 160 - state.queries < a_round)


@settings(max_examples=25, deadline=None)
@given(limit=st.integers(1, 200), run_settings=st.sampled_from([EDGE, DIFFERENCES]))
def test_max_queries_holds_in_our_own_preset(limit: int, run_settings: TuneSettings) -> None:
    """An update is begun where all of it fits, the primal pass of its sketch too."""
    run_settings = run_settings.for_context(M * D)
    loop = make_loop(run_settings, max_queries=limit)
    last = loop.run().best
    assert loop.state.queries <= limit
    if loop.state.stage < FINISHED:
        is_first = loop.state.stage == 1
        update = run_settings.queries_a_generation if is_first else run_settings.queries_a_round
        assert limit - loop.state.queries < update + is_first
        assert loop.state.search.answered == 0 if is_first else not len(loop.state.search.trials)
    assert last.train.loss == loop.state.latest.train.loss


def test_our_own_preset_changes_the_stage_at_0_and_by_itself() -> None:
    at_once = make_loop(dataclasses.replace(EDGE, change_point=0))
    last = at_once.run().best
    assert at_once.state.stage1_queries == 0 and last.train.loss < at_once.state.opening.train.loss
    still = dataclasses.replace(EDGE, change_point="auto", sigma0=1e-5, rho=0.0)
    loop = make_loop(still)
    loop.run()
    assert loop.state.generations == PATIENCE_GENERATIONS + 1 and loop.state.stage2_from is not None


def test_our_own_preset_survives_a_tower_that_breaks_far_out() -> None:
    tower = SmoothTower(breaks_beyond=0.5)
    loop = make_loop(dataclasses.replace(EDGE, sigma0=1.0, rho=0.0), tower=tower)
    last = loop.run().best
    assert tower.broken > 0
    assert last.train.loss < loop.state.opening.train.loss


def test_change_point_0_goes_straight_to_stage_2() -> None:
    loop = make_loop(dataclasses.replace(SMALL, change_point=0))
    loop.run()
    assert loop.state.stage1_queries == 0 and loop.state.stage2_queries > 0


@pytest.mark.parametrize("n_val", [0, 30])
def test_auto_changes_the_stage_when_nothing_gets_better(n_val: int) -> None:
    still = dataclasses.replace(SMALL, change_point="auto", sigma0=1e-4, rho=0.0, steps=40)
    loop = make_loop(still, n_val=n_val)
    loop.run()
    assert loop.state.generations == PATIENCE_GENERATIONS + 1
    assert loop.state.stage2_from is not None


def test_auto_goes_on_while_it_gets_better() -> None:
    loop = make_loop(dataclasses.replace(SMALL, change_point="auto", steps=12))
    loop.run()
    assert loop.state.generations == 12 and loop.state.stage2_from is None


def test_stage_1_survives_a_candidate_that_breaks_the_tower() -> None:
    wide = dataclasses.replace(SMALL, sigma0=0.8, rho=0.0, change_point=5, steps=5)
    tower = SmoothTower(breaks_beyond=1.5)
    loop = make_loop(wide, tower=tower)
    last = loop.run().best
    assert tower.broken > 0
    assert last.train.loss < loop.state.opening.train.loss


def test_a_tower_that_answers_differently_twice_is_an_error() -> None:
    tower = SmoothTower()
    answer, noise = tower.class_features, np.random.default_rng(0)
    tower.class_features = lambda *given: answer(*given) + np.float32(1e-6 * noise.random())  # type: ignore
    with pytest.raises(NumericsError, match=r"differently when it is asked twice.*Try --threads 1"):
        make_loop(tower=tower)
    assert make_loop(max_queries=1, tower=tower).state.queries == 1  # there is no second query to ask with


@pytest.mark.parametrize(
    ("run_settings", "says"),
    [
        (dataclasses.replace(SMALL, eta=1e300, change_point=0), "leaves? the finite numbers|is not finite"),
        (dataclasses.replace(SMALL, mu_cge=1e6, change_point=0), "is not finite"),
    ],
)
def test_a_first_step_that_explodes_is_an_error(
    run_settings: PaperSettings, says: str, tmp_path: Path
) -> None:
    with pytest.raises(NumericsError, match=says) as first:
        make_loop(run_settings, tower=SmoothTower(breaks_beyond=1e3)).run()
    assert "Try" in str(first.value) or "Use smaller steps" in str(first.value)


@pytest.mark.parametrize("eta", [1e300, 1e12])
def test_a_step_that_explodes_later_ends_with_what_was_found(eta: float, tmp_path: Path) -> None:
    exploding = dataclasses.replace(SMALL, eta=eta)
    path = tmp_path / "checkpoint"

    def keep(update: Update) -> None:
        if update.kind == "stage":
            save_state(path, update.state, {})

    loop = make_loop(exploding, tower=SmoothTower(breaks_beyond=1e3), on_update=keep)
    ended = loop.run()
    best = ended.best
    assert best.w.any() and np.isfinite(best.class_features).all() and np.isfinite(best.train.loss)
    assert "a number in stage 2 cannot be used" in ended.why
    loaded = load_state(path, State)
    assert loaded
    again = make_loop(exploding, tower=SmoothTower(breaks_beyond=1e3), state=loaded[0])
    assert again.state.stage == 2  # a kill would repeat the same end
    repeated = again.run()
    assert repeated.best.w.tobytes() == best.w.tobytes() and repeated.why == ended.why
    assert again.state.queries == loop.state.queries


def test_our_own_preset_survives_a_step_that_would_explode() -> None:
    tower = SmoothTower(breaks_beyond=0.3)
    loop = make_loop(dataclasses.replace(EDGE, change_point=0), tower=tower)
    last = loop.run().best
    assert (
        tower.broken > 0 and np.isfinite(last.train.loss) and last.train.loss < loop.state.opening.train.loss
    )


@pytest.mark.parametrize("run_settings", [SMALL, EDGE])
def test_every_batch_and_the_change_of_stage_are_told(run_settings: TuneSettings) -> None:
    told: list[tuple[str, int]] = []
    loop = make_loop(run_settings, on_update=lambda update: told.append((update.kind, update.state.stage)))
    loop.run()
    assert [stage for kind, stage in told if kind == "stage"] == [2]
    assert sum(kind == "answers" for kind, _ in told) > loop.state.queries / 10


def test_a_w_that_breaks_the_tower_is_an_error() -> None:
    with pytest.raises(NumericsError, match="not finite, at query 1, for a w of norm 0"):
        make_loop(tower=SmoothTower(breaks_beyond=0.01))
