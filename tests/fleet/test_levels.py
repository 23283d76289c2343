"""Thresholds from counts are those of the logits themselves, rounded down to a level."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sharpzo_edge.fleet.levels import LEVELS, known_by, levels_of
from sharpzo_edge.tuning.known import Known

TOPS = st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=1_500).map(np.array)


@given(tops=TOPS)
def test_a_threshold_is_the_level_below_the_exact_one(tops: np.ndarray) -> None:
    levels = levels_of(len(tops), float(tops.sum()), float(np.square(tops).sum()))
    below = np.searchsorted(np.sort(tops), levels)
    assert below[0] == 0 and (np.diff(levels) >= 0).all()
    found, exact = known_by(len(tops), levels, below), Known.of(tops)
    assert found.pictures == exact.pictures
    next_level = np.searchsorted(levels, found.lowest, side="right")
    for ours, theirs, i in zip(found.lowest, exact.lowest, next_level.tolist(), strict=True):
        assert ours <= theirs and (i == LEVELS or theirs < levels[i])


def test_levels_are_close_where_thresholds_are() -> None:
    """Of a thousand normal logits: a fifteenth of a deviation at most, up to the share of 1 in 100."""
    tops = np.random.default_rng(0).standard_normal(1_000)
    levels = levels_of(len(tops), float(tops.sum()), float(np.square(tops).sum()))
    found = known_by(len(tops), levels, np.searchsorted(np.sort(tops), levels))
    error = np.array(Known.of(tops).lowest) - found.lowest
    assert error.min() >= 0 and error[9:].max() < 1 / 15
