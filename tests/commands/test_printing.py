"""Results as lines for people."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from sharpzo_edge.printing import tune_lines
from sharpzo_edge.tuning.answers import ByUse
from sharpzo_edge.tuning.result import HeadResult, TuneResult
from sharpzo_edge.wording import counted


def result(queries: int, stage1: int, stage2: int) -> TuneResult:
    return TuneResult(
        *(queries, stage1, stage2),
        seconds=1.0,
        peak_rss_mib=80.0,
        best_queries=queries,
        stopped="",
        train_loss=1.0,
        train_accuracy=0.5,
        val_accuracy=None,
        val_loss=None,
        zero_shot_train_loss=2.0,
        plan={},
        prompt="prompt",
        head=None,
        use="prompt",
        left_out=ByUse(),
        validated=ByUse(),
        covered=ByUse(),
        by_halves=None,
        doubtful=(),
        none=None,
    )


@pytest.mark.parametrize(("queries", "stage1", "stage2"), [(1990, 296, 1692), (249_000, 106_500, 142_498)])
def test_the_queries_that_are_told_add_up(queries: int, stage1: int, stage2: int) -> None:
    (line,) = (
        line for line in tune_lines(result(queries, stage1, stage2), Path("b"), False) if "queries" in line
    )
    total, *parts = (
        int(number.replace(",", "")) for number in re.findall(r"([\d,]+) [(tia]", line.split(";")[0])
    )
    assert total == sum(parts) == queries and len(parts) == 3


def test_one_of_a_thing_is_not_several() -> None:
    told = [counted(n, what) for what in ("query", "class", "picture") for n in (0, 1, 2, 1000)]
    assert told[:4] == ["0 queries", "1 query", "2 queries", "1,000 queries"]
    assert told[4:8] == ["0 classes", "1 class", "2 classes", "1,000 classes"]
    assert told[8:] == ["0 pictures", "1 picture", "2 pictures", "1,000 pictures"]


def test_another_way_to_label_is_offered_where_there_is_one() -> None:
    alone = result(1990, 296, 1692)
    with_head = dataclasses.replace(alone, head=HeadResult("gda", 1.0, None, None), use="head")
    told = ["\n".join(tune_lines(each, Path("b"), False)) for each in (alone, with_head)]
    assert "--use" not in told[0] and "--use takes another" in told[1]


@pytest.mark.parametrize(("by_halves", "told"), [(0.70, "are likely to help"), (0.79, "is not clear")])
def test_more_pictures_are_never_said_to_be_useless(by_halves: float, told: str) -> None:
    found = dataclasses.replace(result(9, 5, 2), left_out=ByUse(head=0.8), by_halves=by_halves)
    (line,) = (line for line in tune_lines(found, Path("b"), False) if "half" in line)
    assert told in line and "not likely" not in line
    perfect = dataclasses.replace(found, left_out=ByUse(head=1.0))
    assert not [line for line in tune_lines(perfect, Path("b"), False) if "half" in line]
