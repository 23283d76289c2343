"""What differs between the two methods."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sharpzo_edge.tuning.methods import method_of
from sharpzo_edge.tuning.settings import EdgeSettings, PaperSettings, TuneSettings
from sharpzo_edge.tuning.stopping import Limits
from sharpzo_edge.types import LabelledFeatures

PAPER = PaperSettings(preset="test", population=6, dim=7, change_point=4, steps=30, prune_interval=10)
EDGE = EdgeSettings(preset="test", population=6, dim=7, change_point=3, rank=4, tangents="none", queries=160)


@pytest.mark.parametrize(
    ("settings", "limit", "said"),
    [
        (EDGE, 35, "--max-queries 35 ends in stage 1"),
        (
            dataclasses.replace(EDGE, change_point=0, rank=6),
            11,
            "leaves 9 for stage 2, where a round takes 10",
        ),
        (dataclasses.replace(EDGE, change_point=0, rank=6), 12, ""),
        (
            dataclasses.replace(EDGE, change_point=0, rank=6, tangents="fp32"),
            12,
            "leaves 10 for stage 2, where a round takes 11",
        ),
        (dataclasses.replace(PAPER, steps=4), None, "--steps 4 ends in stage 1: there will be no stage 2"),
        (dataclasses.replace(PAPER, steps=4, change_point="auto"), None, ""),
    ],
)
def test_a_length_without_stage_2_is_said(settings: TuneSettings, limit: int | None, said: str) -> None:
    pictures = LabelledFeatures(np.eye(3, dtype=np.float32), np.arange(3))
    note = method_of(settings, pictures, 10.0).short_limit_note(Limits(limit or settings.default_queries))
    assert said in note if said else not note
