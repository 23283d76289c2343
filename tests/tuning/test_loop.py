"""The loop over both stages, on a small smooth objective without any model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpzo_edge.clip.class_prompts import ClassPrompts, NameChunk
from sharpzo_edge.errors import InterruptedRunError, NumericsError, UsageError
from sharpzo_edge.run.progress import Progress
from sharpzo_edge.search.losses import Score
from sharpzo_edge.seeds import stream
from sharpzo_edge.tuning import loop as stages_module
from sharpzo_edge.tuning.loop import (
    PATIENCE_GENERATIONS,
    Budget,
    Look,
    Run,
    expected_queries,
    is_better,
    queries_a_generation,
    queries_a_round,
)
from sharpzo_edge.tuning.objective import Objective
from sharpzo_edge.tuning.presets import EdgeSettings, PaperSettings, TuneSettings
from sharpzo_edge.types import LabelledFeatures

K, E, M, D = 3, 8, 2, 5
SMALL = PaperSettings(
    preset="test",
    population=6,
    dim=7,
    sigma0=0.5,
    rho=0.05,
    projection_std=0.3,
    change_point=4,
    steps=30,
    prune_interval=10,
    eta=0.05,
)
EDGE = EdgeSettings(
    preset="test", population=6, dim=7, sigma0=0.4, rho=0.05, change_point=3, rank=4, queries=160
)


class SmoothTower:
    """Class features that bend with the context: unit(tanh(context W_k))."""

    def __init__(self, breaks_beyond: float = float("inf")) -> None:
        self.broken = 0
        self.breaks_beyond = breaks_beyond  # largest entry of a context that it survives
        self.weights = np.random.default_rng(0).standard_normal((K, M * D, E)).astype(np.float32)

    def class_features(self, context: np.ndarray, prompts: ClassPrompts) -> np.ndarray:
        features = np.tanh(np.einsum("bi,kie->bke", context.reshape(len(context), -1), self.weights))
        features /= np.linalg.norm(features, axis=-1, keepdims=True)
        breaks = np.abs(context).max(axis=(1, 2)) > self.breaks_beyond
        self.broken += int(breaks.sum())
        features[breaks] = np.nan
        return features

    def close(self) -> None:
        pass


class After:
    """An interrupt that comes after so many looks at it."""

    name = "SIGTERM"

    def __init__(self, looks: float = float("inf")) -> None:
        self.looks = looks

    @property
    def received(self) -> int:
        self.looks -= 1
        return 15 if self.looks < 0 else 0

    def raise_if_received(self, what_is_kept: str) -> None:
        raise InterruptedRunError(what_is_kept, 15)


def pictures(n: int, seed: int) -> LabelledFeatures:
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n, E)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return LabelledFeatures(features, rng.integers(0, K, n))


def make_run(
    folder: Path,
    run_settings: TuneSettings = SMALL,
    max_queries: int | None = None,
    n_val: int = 0,
    tower: SmoothTower | None = None,
    checkpoint_seconds: float = 30,
    watch: Callable[[Look, int, float], None] | None = None,
) -> Run:
    chunk = NameChunk(slice(0, K), *[np.zeros(0)] * 4)  # the tower asks for none of it
    p0 = np.full((M, D), 0.1, np.float32)
    run_settings = run_settings.for_context(p0.size)
    A = run_settings.projection(stream(0, "projection"), p0)
    objective = Objective(
        tower or SmoothTower(),
        ClassPrompts(("a", "b", "c"), (chunk,)),
        p0,
        A,
        pictures(30, 1),
        logit_scale=10.0,
        batch=5,
    )
    return Run(
        run_settings,
        Budget(max_queries or run_settings.default_queries, None),
        objective,
        pictures(n_val, 2),
        partial(stream, 0),
        folder / "checkpoint.safetensors",
        {"seed": 0, **dataclasses.asdict(run_settings), "max-queries": max_queries},
        Progress(),
        checkpoint_seconds=checkpoint_seconds,
        watch=watch,
    )


def test_both_stages_lower_the_loss_each(tmp_path: Path) -> None:
    run = make_run(tmp_path, dataclasses.replace(SMALL, steps=300, change_point=6))
    (tmp_path / "other").mkdir()
    stage1_alone = make_run(tmp_path / "other", dataclasses.replace(SMALL, steps=6, change_point=6))
    after_stage1 = stage1_alone.to_the_end(After())
    last = run.to_the_end(After())
    assert last.train.loss < after_stage1.train.loss < run.state.zero_shot_loss
    assert run.state.stage == 3 and stage1_alone.state.stage2 is None


def test_queries_are_as_announced_and_all_counted(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.to_the_end(After())
    state, counted = run.state, run.queries
    assert counted == 2 + state.stage1_queries + state.stage2_queries
    # 4 generations of 14 + 6 + 1 look; 26 steps of 2, three sweeps of 14, the look at the end.
    assert state.stage1_queries == 4 * (14 + 6 + 1)
    assert state.stage2_queries == 26 * 2 + 3 * 14 + 1
    assert counted - expected_queries(SMALL) in (0, 1)  # the look at the end


@pytest.mark.parametrize("run_settings", [SMALL, EDGE])
def test_a_watcher_is_told_every_look_with_its_queries(run_settings: TuneSettings, tmp_path: Path) -> None:
    seen: list[tuple[Look, int, float]] = []
    run = make_run(tmp_path, run_settings, n_val=9, watch=lambda *look: seen.append(look))
    run.to_the_end(After())
    looks, queries, seconds = zip(*seen, strict=True)
    assert queries[0] == 2 and looks[0].train.loss == run.state.zero_shot_loss
    assert list(queries) == sorted(queries) and queries[-1] <= run.queries and len(looks) > 4
    assert list(seconds) == sorted(seconds) and looks[-1] is run.state.look


@pytest.mark.parametrize("run_settings", [SMALL, EDGE])
def test_the_best_by_validation_is_returned_or_the_last(run_settings: TuneSettings, tmp_path: Path) -> None:
    looks: list[Look] = []
    run = make_run(tmp_path, run_settings, n_val=9, watch=lambda look, *_: looks.append(look))
    best = run.to_the_end(After())
    assert best.val and best.val.loss == min(look.val.loss for look in looks if look.val)
    assert 2 <= run.state.best_queries <= run.queries
    (tmp_path / "alone").mkdir()
    alone = make_run(tmp_path / "alone", run_settings)
    assert alone.to_the_end(After()) is alone.state.look


def test_of_equal_validation_losses_the_more_accurate_look_wins_then_the_earlier() -> None:
    def look(loss: float, accuracy: float) -> Look:
        return Look(np.zeros(1), np.zeros((1, 1), np.float32), Score(0, 0), Score(loss, accuracy))

    assert is_better(look(1, 0.5), look(2, 0.9)) and is_better(look(1, 0.6), look(1, 0.5))
    assert not is_better(look(1, 0.5), look(1, 0.5))


@pytest.mark.parametrize("run_settings", [dataclasses.replace(SMALL, steps=2000, eta=1e-6), EDGE])
@pytest.mark.parametrize("n_val", [0, 9])
def test_a_lost_patience_ends_either_preset(run_settings: TuneSettings, n_val: int, tmp_path: Path) -> None:
    (tmp_path / "forever").mkdir()
    impatient = dataclasses.replace(run_settings, patience=3)
    run = make_run(tmp_path, impatient, max_queries=9_000, n_val=n_val)
    run.to_the_end(After())
    assert run.why_stopped.endswith("has not improved for 3 looks")
    assert run.state.idle == 3 and run.state.stage == 3
    patient = dataclasses.replace(run_settings, patience=0)
    forever = make_run(tmp_path / "forever", patient, max_queries=9_000, n_val=n_val)
    forever.to_the_end(After())
    assert forever.queries > run.queries and "not improved" not in forever.why_stopped


@settings(max_examples=40, deadline=None)
@given(limit=st.integers(1, 200))
def test_max_queries_ends_a_run_where_no_generation_or_step_fits_any_more(
    limit: int, tmp_path_factory
) -> None:
    run = make_run(tmp_path_factory.mktemp("run"), max_queries=limit)
    run.to_the_end(After())
    spent, state = run.queries, run.state
    assert spent <= limit
    if state.stage2 is None:  # a look at the end is kept back
        assert state.stage1.answered == 0 and limit - 1 - spent < 14 + 6
    elif state.stage == 2:
        assert state.stage2.answered == 0 and limit - 1 - spent < 2 + 14


@pytest.mark.parametrize(
    ("run_settings", "limit", "said"),
    [
        (EDGE, 35, "--max-queries 35 ends in stage 1"),
        (
            dataclasses.replace(EDGE, change_point=0, rank=6),
            11,
            "leaves 9 for stage 2, where a round takes 10",
        ),
        (dataclasses.replace(EDGE, change_point=0, rank=6), 12, ""),
        (dataclasses.replace(SMALL, steps=4), None, "--steps 4 ends in stage 1: there will be no stage 2"),
        (dataclasses.replace(SMALL, steps=4, change_point="auto"), None, ""),
    ],
)
def test_a_length_without_stage_2_is_said(
    run_settings: TuneSettings,
    limit: int | None,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_run(tmp_path, run_settings, max_queries=limit)
    (first, *others) = capsys.readouterr().err.splitlines()
    assert said in first if said else not others


def assert_resumes_bit_for_bit(run_settings: TuneSettings, moments: list[int], limit, new_folder) -> None:
    """One run on from wherever it was stopped ends as a run that never was."""
    whole = make_run(new_folder("whole"), run_settings, max_queries=limit, n_val=9)
    expected = whole.to_the_end(After())
    folder = new_folder("parts")
    for looks in moments:
        try:
            make_run(folder, run_settings, max_queries=limit, n_val=9).to_the_end(After(looks))
        except InterruptedRunError as stopped:
            assert stopped.exit_code == 128 + 15
            continue
        break  # it was done before the interrupt came
    else:
        run = make_run(folder, run_settings, max_queries=limit, n_val=9)
        last = run.to_the_end(After())
        assert np.array_equal(last.w, expected.w)
        assert np.array_equal(last.class_features, expected.class_features)
        assert run.queries == whole.queries
        assert run.state.stage1_queries == whole.state.stage1_queries


@settings(max_examples=30, deadline=None)
@given(moments=st.lists(st.integers(0, 12), min_size=1, max_size=4), limit=st.sampled_from([None, 77, 131]))
def test_resume_equals_no_interruption_bit_for_bit(
    moments: list[int], limit: int | None, tmp_path_factory
) -> None:
    assert_resumes_bit_for_bit(SMALL, moments, limit, tmp_path_factory.mktemp)


@pytest.mark.parametrize("moment", range(45))
def test_our_own_preset_resumes_at_every_ask(moment: int, tmp_path_factory) -> None:
    pruned = dataclasses.replace(EDGE, prune_ratio=0.5, prune_interval=2)
    assert_resumes_bit_for_bit(pruned, [moment], None, tmp_path_factory.mktemp)


@settings(max_examples=10, deadline=None)
@given(moments=st.lists(st.integers(0, 12), min_size=2, max_size=5), limit=st.sampled_from([25, 48, 77]))
def test_our_own_preset_resumes_again_and_again(moments: list[int], limit: int, tmp_path_factory) -> None:
    assert_resumes_bit_for_bit(EDGE, moments, limit, tmp_path_factory.mktemp)


def test_our_own_preset_lowers_the_loss_with_both_stages(tmp_path: Path) -> None:
    run = make_run(tmp_path, EDGE)
    first = make_run(tmp_path, EDGE, max_queries=2 + 3 * 11).to_the_end(After())
    last = run.to_the_end(After())
    assert last.train.loss < first.train.loss < run.state.zero_shot_loss


def test_our_own_presets_looks_are_free_where_class_features_are_known(tmp_path: Path) -> None:
    run = make_run(tmp_path, EDGE)
    run.to_the_end(After())
    state = run.state
    # 3 generations of a sketch of 1 + 4, 6 candidates; its first point is the look before it, so the last
    # generation's look is all that is added, and the very first was counted before the stages.
    assert state.stage1_queries == 3 * (4 + 6) + 3
    rounds, rest = divmod(state.stage2_queries, 4 + 4)
    assert rounds > 5 and run.queries == 2 + state.stage1_queries + state.stage2_queries
    assert rest == 0 and (state.stage == 3 or 160 - run.queries < 4 + 4)


@settings(max_examples=25, deadline=None)
@given(limit=st.integers(1, 200))
def test_max_queries_holds_in_our_own_preset(limit: int, tmp_path_factory) -> None:
    run_settings = EDGE.for_context(M * D)
    run = make_run(tmp_path_factory.mktemp("run"), run_settings, max_queries=limit)
    last = run.to_the_end(After())
    assert run.queries <= limit
    if run.state.stage < 3:
        update = queries_a_generation(run_settings) if run.state.stage == 1 else queries_a_round(run_settings)
        assert limit - run.queries < update + (run.state.stage == 1)
    assert last.train.loss == run.state.look.train.loss


def test_our_own_preset_changes_the_stage_at_0_and_by_itself(tmp_path: Path) -> None:
    at_once = make_run(tmp_path, dataclasses.replace(EDGE, change_point=0))
    last = at_once.to_the_end(After())
    assert at_once.state.stage1_queries == 0 and last.train.loss < at_once.state.zero_shot_loss
    (tmp_path / "auto").mkdir()
    still = dataclasses.replace(EDGE, change_point="auto", sigma0=1e-5, rho=0.0)
    run = make_run(tmp_path / "auto", still)
    run.to_the_end(After())
    assert run.state.stage1.generation == PATIENCE_GENERATIONS + 1 and run.state.stage2 is not None


def test_our_own_preset_survives_a_tower_that_breaks_far_out(tmp_path: Path) -> None:
    tower = SmoothTower(breaks_beyond=0.5)
    run = make_run(tmp_path, dataclasses.replace(EDGE, sigma0=1.0, rho=0.0), tower=tower)
    last = run.to_the_end(After())
    assert tower.broken > 0
    assert last.train.loss < run.state.zero_shot_loss


def test_a_checkpoint_of_another_command_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError):
        make_run(tmp_path).to_the_end(After(3))
    with pytest.raises(UsageError, match=r"another sigma0: 0\.5, now 0\.7.*--restart"):
        make_run(tmp_path, dataclasses.replace(SMALL, sigma0=0.7))


def test_change_point_0_goes_straight_to_stage_2(tmp_path: Path) -> None:
    run = make_run(tmp_path, dataclasses.replace(SMALL, change_point=0))
    run.to_the_end(After())
    assert run.state.stage1_queries == 0 and run.state.stage2_queries > 0


@pytest.mark.parametrize("n_val", [0, 30])
def test_auto_changes_the_stage_when_nothing_gets_better(n_val: int, tmp_path: Path) -> None:
    still = dataclasses.replace(SMALL, change_point="auto", sigma0=1e-4, rho=0.0, steps=40)
    run = make_run(tmp_path, still, n_val=n_val)
    run.to_the_end(After())
    assert run.state.stage1.generation == PATIENCE_GENERATIONS + 1
    assert run.state.stage2 is not None


def test_auto_goes_on_while_it_gets_better(tmp_path: Path) -> None:
    run = make_run(tmp_path, dataclasses.replace(SMALL, change_point="auto", steps=12))
    run.to_the_end(After())
    assert run.state.stage1.generation == 12 and run.state.stage2 is None


def test_a_candidate_that_breaks_the_tower_is_survived_in_stage_1(tmp_path: Path) -> None:
    wide = dataclasses.replace(SMALL, sigma0=0.8, rho=0.0, change_point=5, steps=5)
    tower = SmoothTower(breaks_beyond=1.5)
    run = make_run(tmp_path, wide, tower=tower)
    last = run.to_the_end(After())
    assert tower.broken > 0
    assert last.train.loss < run.state.zero_shot_loss


def test_a_tower_that_answers_differently_twice_is_an_error(tmp_path: Path) -> None:
    tower = SmoothTower()
    answer, noise = tower.class_features, np.random.default_rng(0)
    tower.class_features = lambda *given: answer(*given) + np.float32(1e-6 * noise.random())  # type: ignore
    with pytest.raises(NumericsError, match=r"differently when it is asked twice.*Try --threads 1"):
        make_run(tmp_path, tower=tower)
    assert make_run(tmp_path, max_queries=1, tower=tower).queries == 1  # there is no second query to ask with


@pytest.mark.parametrize(
    ("run_settings", "says"),
    [
        (dataclasses.replace(SMALL, eta=1e300, change_point=0), "leaves? the finite numbers|is not finite"),
        (dataclasses.replace(SMALL, mu_cge=1e6, change_point=0), "is not finite"),
    ],
)
def test_a_step_that_explodes_before_anything_is_found_is_an_error(
    run_settings: PaperSettings, says: str, tmp_path: Path
) -> None:
    with pytest.raises(NumericsError, match=says) as first:
        make_run(tmp_path, run_settings, tower=SmoothTower(breaks_beyond=1e3)).to_the_end(After())
    assert "Try" in str(first.value) or "Use smaller steps" in str(first.value)


@pytest.mark.parametrize("eta", [1e300, 1e12])
def test_a_step_that_explodes_later_ends_the_run_with_what_was_found(eta: float, tmp_path: Path) -> None:
    exploding = dataclasses.replace(SMALL, eta=eta)
    run = make_run(tmp_path, exploding, tower=SmoothTower(breaks_beyond=1e3))
    best = run.to_the_end(After())
    assert best.w.any() and np.isfinite(best.class_features).all() and np.isfinite(best.train.loss)
    assert "a number in stage 2 cannot be used" in run.why_stopped
    again = make_run(tmp_path, exploding, tower=SmoothTower(breaks_beyond=1e3))
    assert again.state.stage == 2  # a kill now would repeat the same end
    assert again.to_the_end(After()).w.tobytes() == best.w.tobytes()
    assert again.queries == run.queries and again.why_stopped == run.why_stopped


def test_our_own_preset_survives_a_step_that_would_explode(tmp_path: Path) -> None:
    tower = SmoothTower(breaks_beyond=0.3)
    run = make_run(tmp_path, dataclasses.replace(EDGE, change_point=0), tower=tower)
    last = run.to_the_end(After())
    assert tower.broken > 0 and np.isfinite(last.train.loss) and last.train.loss < run.state.zero_shot_loss


@pytest.mark.parametrize("run_settings", [SMALL, EDGE])
def test_there_is_a_checkpoint_after_every_batch_at_every_change_and_at_the_end(
    run_settings: TuneSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages: list[int] = []
    monkeypatch.setattr(stages_module, "save_state", lambda _, state, __: stages.append(state.stage))
    make_run(tmp_path, run_settings, checkpoint_seconds=1e9).to_the_end(After())
    at_changes = list(stages)
    assert at_changes[0] == 2 and len(at_changes) == 2
    stages.clear()
    run = make_run(tmp_path, run_settings, checkpoint_seconds=0)
    run.to_the_end(After())
    assert len(stages) > run.queries / 10


def test_a_w_that_breaks_the_tower_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NumericsError, match="not finite, at query 1, for a w of norm 0"):
        make_run(tmp_path, tower=SmoothTower(breaks_beyond=0.01))
