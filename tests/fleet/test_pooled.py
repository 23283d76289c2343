"""A fleet's run is the run that all its pictures in one place would give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sharpzo_edge.commands.predict import predict
from sharpzo_edge.commands.tune import tune_or_repeat
from sharpzo_edge.demo import BUNDLE, TASKS
from sharpzo_edge.fleet.pooled import Pooled
from sharpzo_edge.fleet.tune import FleetResult, tune_over
from sharpzo_edge.requests import FleetTuneRequest, TuneRequest
from sharpzo_edge.run.progress import Progress
from sharpzo_edge.tuning.tuned_prompt import load_prompt
from support.fleet import LocalLine, dealt

EVEN, FEW = [4] * 10, [3] * 10
# Evaluations to which round-off stays round-off: w = 0, two generations and a round. Then a rounded column
# is another one now and then, and the difference grows.
EXACT = 4
WITHOUT_ONE = [0, *[3] * 9]
OPTIONS: dict[str, Any] = {
    "preset": "edge",
    "shots": 2,
    "val": 1,
    "seed": 1,
    "dim": 32,
    "population": 4,
    "change_point": 2,
    "rank": 4,
    "tangents": "fp32",
}


class Losses:
    """A listener that keeps the losses on the shots and on the validation pictures."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, float]] = []

    def __call__(self, news: Progress) -> None:
        if news.kind == "evaluation":
            figures = news.figures
            self.seen.append((figures["train"]["loss"], figures["val"]["loss"]))


def both(folder: Path, shares: list[list[int]], **options: Any) -> tuple[FleetResult, Any, Losses, Losses]:
    parts, of_fleet, of_pooled = dealt(folder, shares), Losses(), Losses()
    given = {"bundle": BUNDLE, "max_queries": 60, **OPTIONS, **options}
    fleet, _ = tune_over(
        FleetTuneRequest(output=folder / "fleet", scheduler="", on_progress=of_fleet, **given),
        LocalLine(parts),
    )
    pooled, _ = tune_or_repeat(
        TuneRequest(images=parts[0], output=folder / "pooled", threads=1, on_progress=of_pooled, **given),
        Pooled(parts),
    )
    return fleet, pooled, of_fleet, of_pooled


@pytest.mark.parametrize(
    "shares",
    [[EVEN], [EVEN, FEW], [EVEN, WITHOUT_ONE, [9, *FEW[1:]]], [FEW] * 5],
    ids=["one", "two", "three, a class missing on one", "five"],
)
def test_any_number_of_members_gives_the_pooled_run(tmp_path: Path, shares: list[list[int]]) -> None:
    fleet, pooled, of_fleet, of_pooled = both(tmp_path, shares)
    assert len(of_fleet.seen) == len(of_pooled.seen) > EXACT
    np.testing.assert_allclose(of_fleet.seen[:EXACT], of_pooled.seen[:EXACT], rtol=0, atol=1e-6)
    np.testing.assert_allclose(of_fleet.seen, of_pooled.seen, rtol=0, atol=1e-3)
    found = fleet.tuned
    assert found.queries == pooled.queries and found.best_queries == pooled.best_queries
    for name in ("train_accuracy", "val_accuracy", "use", "left_out", "validated", "covered"):
        assert getattr(found, name) == getattr(pooled, name), name
    assert found.head and found.head.kind == pooled.head.kind and found.head.weight == pooled.head.weight
    ours, theirs = (load_prompt(tmp_path / name) for name in ("fleet", "pooled"))
    assert ours.head and theirs.head and ours.head.made_by == theirs.head.made_by
    scale = np.abs(theirs.head.weights).max()
    np.testing.assert_allclose(ours.head.weights / scale, theirs.head.weights / scale, rtol=0, atol=1e-6)
    assert ours.about["words_temperature"] == theirs.about["words_temperature"]
    assert ours.known.keys() == theirs.known.keys() == {"words", "prompt", "head", "both"}
    for use, exact in theirs.known.items():  # rounded down to a level, see fleet/levels.py
        found, lowest = ours.known[use], np.array(exact.lowest)
        assert found.pictures == exact.pictures
        error = (lowest - found.lowest) / lowest.std()
        assert error.min() > -0.01 and error.max() < 0.15 and np.median(error) < 0.04, use
    assert fleet.tuned.none and pooled.none and fleet.tuned.none.called_none == pooled.none.called_none


@pytest.mark.parametrize("kind", ["ridge", "gda", "none"])
def test_every_kind_of_head_is_the_pooled_one(tmp_path: Path, kind: str) -> None:
    fleet, pooled, *_ = both(tmp_path, [EVEN, FEW], head=kind, max_queries=1)
    assert fleet.tuned.left_out == pooled.left_out and fleet.tuned.use == pooled.use
    assert (fleet.tuned.head is None) == (kind == "none")
    parts = [tmp_path / "board-1", tmp_path / "board-2"]
    given = {"bundle": BUNDLE, **OPTIONS, "head": kind, "max_queries": 1}
    request = FleetTuneRequest(output=tmp_path / "fleet", scheduler="", **given)
    assert tune_over(request, LocalLine(parts)) == (fleet, True)  # the same command repeats its result


@pytest.mark.parametrize("use", ["head", "words"])
def test_predict_answers_as_after_the_pooled_run(tmp_path: Path, use: str) -> None:
    """As sure, and with none of them for as many pictures, but for one near the threshold."""
    both(tmp_path, [EVEN, FEW], max_queries=1)
    asked = sorted((TASKS / "subgroups" / "test").glob("*/*.png"))[::7]
    ours, theirs = (
        predict(asked, BUNDLE, tmp_path / name, use=use, none=0.2).predictions for name in ("fleet", "pooled")
    )
    for found, exact in zip(ours, theirs, strict=True):
        assert found.labels == exact.labels
        np.testing.assert_allclose(found.scores, exact.scores, rtol=0, atol=1e-5)
    n_none = sum(each.none for each in ours)
    assert 0 < n_none <= sum(each.none for each in theirs) <= n_none + 1


def test_the_papers_stages_run_in_a_fleet_too(tmp_path: Path) -> None:
    options = {name: value for name, value in OPTIONS.items() if name not in ("rank", "tangents")}
    parts, losses = dealt(tmp_path, [EVEN, FEW]), Losses()
    own = {**options, "preset": "paper", "dim": 4, "steps": 3, "change_point": 1, "prune_interval": 2}
    request = FleetTuneRequest(BUNDLE, output=tmp_path / "p", scheduler="", on_progress=losses, **own)
    result, _ = tune_over(request, LocalLine(parts))
    assert result.tuned.stage2_queries > 0 and np.isfinite(losses.seen).all()


def test_a_round_costs_four_round_trips(tmp_path: Path) -> None:
    """A generation six, a head three, and the beginning two."""
    parts = dealt(tmp_path, [EVEN, FEW])

    def trips(**options: Any) -> int:
        given = {"bundle": BUNDLE, **OPTIONS, **options}
        request = FleetTuneRequest(output=tmp_path / f"p{options}", scheduler="", **given)
        result, _ = tune_over(request, LocalLine(parts))
        return result.round_trips

    opening, generation, one_round = 2, 1 + 4 + 1 + 4, 1 + 4 + 4
    before = trips(max_queries=1, head="none")
    assert before == 1 + 1 + 2  # class features, what they are worth, and what each way to label is worth
    stage1 = trips(max_queries=opening + 2 * generation + 1, head="none")
    rounds = [
        trips(max_queries=opening + 2 * generation + n * one_round, head="none", patience=0) for n in (1, 3)
    ]
    assert rounds[1] - rounds[0] <= 2 * 4
    assert stage1 <= 5 + 2 * 6
    assert trips(max_queries=1) == 1 + 1 + 3
