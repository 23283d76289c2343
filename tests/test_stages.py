"""The loop over both stages, on a small smooth objective without any model."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpzo_edge.arrays import LabelledFeatures
from sharpzo_edge.class_prompts import ClassPrompts, NameChunk
from sharpzo_edge.errors import InterruptedRunError, NumericsError, UsageError
from sharpzo_edge.objective import Objective, projection
from sharpzo_edge.progress import Progress
from sharpzo_edge.settings import TuneSettings
from sharpzo_edge.stages import PATIENCE_GENERATIONS, Budget, Run, expected_queries
from sharpzo_edge.tune import stream

K, E, M, D = 3, 8, 2, 5
SMALL = TuneSettings(
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
) -> Run:
    chunk = NameChunk(np.arange(K), np.zeros((K, 2, D), np.float32), np.ones(K, np.int64))
    A = projection(stream(0, "projection"), M * D, run_settings.dim, run_settings.projection_std)
    p0 = np.full((M, D), 0.1, np.float32)
    objective = Objective(
        tower or SmoothTower(),
        ClassPrompts(("a", "b", "c"), (chunk,)),
        p0,
        A,
        pictures(30, 1),
        logit_scale=10.0,
    )
    objective.batch = 5
    return Run(
        run_settings,
        Budget(max_queries, None),
        objective,
        pictures(n_val, 2),
        partial(stream, 0),
        folder / "checkpoint.safetensors",
        {"seed": 0, **dataclasses.asdict(run_settings), "max-queries": max_queries},
        Progress(),
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
    assert counted == 1 + state.stage1_queries + state.stage2_queries
    # 4 generations of 14 + 6 + 1 look; 26 steps of 2, three sweeps of 14, the look at the end.
    assert state.stage1_queries == 4 * (14 + 6 + 1)
    assert state.stage2_queries == 26 * 2 + 3 * 14 + 1
    assert counted - expected_queries(SMALL) in (0, 1)  # the look at the end


@settings(max_examples=40, deadline=None)
@given(limit=st.integers(1, 200))
def test_max_queries_holds_inside_generations_and_sweeps(limit: int, tmp_path_factory) -> None:
    run = make_run(tmp_path_factory.mktemp("run"), max_queries=limit)
    run.to_the_end(After())
    spent = run.queries
    assert spent <= limit
    # All of it is spent, but for the query kept back where w was looked at already.
    assert spent >= min(limit - 1, 180)


@settings(max_examples=30, deadline=None)
@given(moments=st.lists(st.integers(0, 12), min_size=1, max_size=4), limit=st.sampled_from([None, 77, 131]))
def test_resume_equals_no_interruption_bit_for_bit(
    moments: list[int], limit: int | None, tmp_path_factory
) -> None:
    whole = make_run(tmp_path_factory.mktemp("whole"), max_queries=limit, n_val=9)
    expected = whole.to_the_end(After())
    folder = tmp_path_factory.mktemp("parts")
    for looks in moments:
        try:
            make_run(folder, max_queries=limit, n_val=9).to_the_end(After(looks))
        except InterruptedRunError as stopped:
            assert stopped.exit_code == 128 + 15
            continue
        break  # it was done before the interrupt came
    else:
        run = make_run(folder, max_queries=limit, n_val=9)
        last = run.to_the_end(After())
        assert np.array_equal(last.w, expected.w)
        assert np.array_equal(last.class_features, expected.class_features)
        assert run.queries == whole.queries
        assert run.state.stage1_queries == whole.state.stage1_queries


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


def test_a_w_that_breaks_the_tower_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NumericsError, match="not finite, at query 1, for a w of norm 0"):
        make_run(tmp_path, tower=SmoothTower(breaks_beyond=0.01))
