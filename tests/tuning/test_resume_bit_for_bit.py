"""A run that is stopped at any moment and resumed, once or often, equals one that never was, bit for bit."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpzo_edge.errors import InterruptedRunError
from sharpzo_edge.run.checkpoint import load_state, save_state
from sharpzo_edge.tuning.loop import Loop, State, Update
from sharpzo_edge.tuning.settings import TuneSettings
from support.smooth_loop import DIFFERENCES, EDGE, SMALL, make_loop


class Stopping:
    """An on_update that keeps the checkpoint in a file, and stops the run at the n-th batch of answers."""

    def __init__(self, path: Path, n: float = float("inf")) -> None:
        self.path, self.n = path, n

    def __call__(self, update: Update) -> None:
        if update.kind == "answers":
            self.n -= 1
            if self.n < 0:
                save_state(self.path, update.state, {})
                raise InterruptedRunError("stopped")


def assert_resumes_bit_for_bit(
    run_settings: TuneSettings, moments: list[int], limit: int | None, path: Path
) -> None:
    """One run, on from wherever it was stopped, ends as a run that never was."""

    def loop(state: State | None, on_update: Stopping | None) -> Loop:
        return make_loop(run_settings, limit, n_val=9, state=state, on_update=on_update)

    whole = loop(None, None)
    expected = whole.run().best
    state = None
    for n in moments:
        try:
            loop(state, Stopping(path, n)).run()
        except InterruptedRunError:
            loaded = load_state(path, State)
            assert loaded
            state = loaded[0]
            continue
        return  # it was done before it was stopped
    resumed = loop(state, None)
    last = resumed.run().best
    assert np.array_equal(last.w, expected.w)
    assert np.array_equal(last.class_features, expected.class_features)
    assert resumed.state.queries == whole.state.queries
    assert resumed.state.stage1_queries == whole.state.stage1_queries


@settings(max_examples=30, deadline=None)
@given(moments=st.lists(st.integers(0, 12), min_size=1, max_size=4), limit=st.sampled_from([None, 77, 131]))
def test_resume_equals_no_interruption_bit_for_bit(
    moments: list[int], limit: int | None, tmp_path_factory
) -> None:
    assert_resumes_bit_for_bit(SMALL, moments, limit, tmp_path_factory.mktemp("run") / "checkpoint")


@pytest.mark.parametrize("moment", range(60))
def test_our_own_preset_resumes_at_every_ask(moment: int, tmp_path_factory) -> None:
    """A sketch takes two of them, so it is interrupted in its middle too."""
    pruned = dataclasses.replace(EDGE, prune_ratio=0.5, prune_interval=2)
    assert_resumes_bit_for_bit(pruned, [moment], None, tmp_path_factory.mktemp("run") / "checkpoint")


@settings(max_examples=20, deadline=None)
@given(
    moments=st.lists(st.integers(0, 12), min_size=2, max_size=5),
    limit=st.sampled_from([25, 48, 77]),
    run_settings=st.sampled_from([EDGE, DIFFERENCES]),
)
def test_our_own_preset_resumes_again_and_again(
    moments: list[int], limit: int, run_settings: TuneSettings, tmp_path_factory
) -> None:
    assert_resumes_bit_for_bit(run_settings, moments, limit, tmp_path_factory.mktemp("run") / "checkpoint")
