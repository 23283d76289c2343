"""What leaves a board: sums, and nothing of one picture."""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sharpzo_edge.demo import BUNDLE
from sharpzo_edge.errors import SharpzoError
from sharpzo_edge.fleet import messages
from sharpzo_edge.fleet.board import Board
from sharpzo_edge.fleet.tune import tune_over
from sharpzo_edge.requests import FleetTuneRequest, MemberRequest
from sharpzo_edge.run.progress import Caller
from support.fleet import LocalLine, dealt

OPTIONS: dict[str, Any] = {"preset": "edge", "shots": 2, "val": 1, "dim": 16, "rank": 4, "change_point": 1}
ANSWERS = {
    "Member": {"version", "bundle", "folders", "has_int8"},
    "Part": {"train", "shots", "val", "pictures", "rank", "kept_rounds", "has_head"},
    "FeaturesFound": {"features"},  # of class names
    "TangentsFound": {"tangents"},
    "HalvesFound": {"tangents"},
    "Judged": {"loss", "right", "smoothed"},
    "Derived": {"derivatives"},
    "Modelled": {"loss", "gradient", "curvature"},
    "Moments": {"counts", "right", "tops", "losses", "classes", "second", "by_words", "by_prompt"},
    "Tried": {"right", "tops", "losses"},
    "Finished": {"below"},
    "Refused": {"reason", "is_other_run"},
}


def run(folder: Path, **options: Any) -> tuple[LocalLine, list[Path]]:
    parts = dealt(folder, [[4] * 10, [5, *[4] * 8, 3]])
    line = LocalLine(parts)
    given = {"max_queries": 60, **OPTIONS, **options}
    tune_over(FleetTuneRequest(BUNDLE, output=folder / "p", scheduler="", **given), line)
    return line, parts


def test_a_board_answers_with_these_fields_alone() -> None:
    found = {
        kind.__name__: {field.name for field in dataclasses.fields(kind)}
        for kind in typing.get_args(messages.Answer)
    }
    assert found == ANSWERS


def test_no_name_of_a_file_and_no_feature_leaves_a_board(tmp_path: Path) -> None:
    line, parts = run(tmp_path)
    sent = b"".join(line.answers)
    for part in parts:
        for file in part.rglob("*.*"):
            assert file.name.encode() not in sent and file.stem.encode() not in sent
        assert bytes(part) not in sent
    for board in line.boards.values():
        assert board._session
        features = board._session.drawn.pictures.features[:]
        for row in features:
            for of_kind in (row, row.astype(np.float64), row.astype(np.float16)):
                assert of_kind[:8].tobytes() not in sent


def test_without_a_head_no_scatter_leaves_a_board(tmp_path: Path) -> None:
    line, _ = run(tmp_path, head="none")
    moments = [m for m in map(messages.unpacked, line.answers) if isinstance(m, messages.Moments)]
    assert moments
    for each in moments:
        assert not (each.classes.size + each.second.size + each.by_words.size + each.by_prompt.size)
    assert not [m for m in map(messages.unpacked, line.answers) if isinstance(m, messages.Tried)]


def test_each_member_is_told_of_its_own_doubtful_pictures(tmp_path: Path) -> None:
    line, parts = run(tmp_path, max_queries=1)
    looked = {name: [s for s in said if s.startswith("look at ")] for name, said in line.said.items()}
    assert any(looked.values())
    for part in parts:
        for text in looked[part.name]:
            assert (part / text.split()[2].rstrip(":")).is_file()


def test_a_board_may_demand_more_pictures_of_a_class(tmp_path: Path) -> None:
    (part,) = dealt(tmp_path, [[4] * 10])
    line = LocalLine([part])
    line.boards[part.name] = Board(MemberRequest(part, BUNDLE, "", least_pictures=4), Caller())
    request = FleetTuneRequest(BUNDLE, output=tmp_path / "p", scheduler="", max_queries=1, **OPTIONS)
    with pytest.raises(SharpzoError, match=r"board-1 cannot take part.*has 3 pictures.*--least-pictures 4"):
        tune_over(request, line)


def test_bytes_that_are_no_message_are_refused() -> None:
    whole = messages.packed(messages.Refused("it is full", False))
    assert messages.unpacked(whole) == messages.Refused("it is full", False)
    for bad in (b"", whole[:-3], whole.replace(b"Refused", b"Ref0sed"), whole.replace(b"reason", b"reas0n")):
        with pytest.raises(SharpzoError, match="cannot be read"):
            messages.unpacked(bad)
