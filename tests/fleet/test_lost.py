"""Boards come and go, in one process: who is waited for, who takes over, and whose pictures count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sharpzo_edge.demo import BUNDLE
from sharpzo_edge.errors import InterruptedRunError, SharpzoError, UsageError
from sharpzo_edge.fleet import messages, waves
from sharpzo_edge.fleet.tune import FleetResult, tune_over
from sharpzo_edge.requests import FleetTuneRequest
from sharpzo_edge.run.progress import Progress
from sharpzo_edge.version import __version__
from support.fleet import LocalLine, dealt

OPTIONS: dict[str, Any] = {
    "preset": "edge", "shots": 2, "val": 1, "dim": 16, "rank": 4, "population": 4, "change_point": 2,
    "tangents": "fp32", "max_queries": 50, "wait_seconds": 0.5,
}  # fmt: skip
SHARES = [[4] * 10, [3] * 10, [3] * 10]


@pytest.fixture(autouse=True)
def _quick_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waves, "TURN_SECONDS", 0.01)


def tuned(folder: Path, line: LocalLine, **options: Any) -> tuple[FleetResult, list[Progress]]:
    news: list[Progress] = []
    given = {**OPTIONS, "on_progress": news.append, **options}
    result, _ = tune_over(FleetTuneRequest(BUNDLE, output=folder / "p", scheduler="", **given), line)
    return result, news


def losses(news: list[Progress]) -> list[float]:
    return [each.figures["train"]["loss"] for each in news if each.kind == "evaluation"]


def said(news: list[Progress], words: str) -> bool:
    return any(words in each.text for each in news)


class Loses:
    """Loses board-2 at its n-th message of a kind; it is back, as a new process, after so many looks."""

    def __init__(self, kind: str, n: int = 1, back_after: float = float("inf")):
        self.kind, self.n, self.back_after = kind, n, back_after

    def __call__(self, line: LocalLine, name: str, message: bytes) -> bool:
        if name == "board-2" and type(messages.unpacked(message)).__name__ == self.kind:
            self.n -= 1
            if self.n == 0:
                line.there.discard("board-2")
                return True
        return False

    def look(self, line: LocalLine) -> None:
        """Comes back when it is time."""
        if "board-2" not in line.there:
            self.back_after -= 1
            if self.back_after < 0:
                line.boards["board-2"].close()
                line.there.add("board-2")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The losses of a run that nothing happens to."""
    folder = tmp_path_factory.mktemp("whole")
    return losses(tuned(folder, LocalLine(dealt(folder, SHARES)))[1])


KINDS = ["Begin", "Features", "Tangents", "Judge", "Derive", "Model", "Measure", "Try", "Finish"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_member_that_comes_back_in_time_changes_nothing(
    tmp_path: Path, kind: str, whole: list[float]
) -> None:
    parts = dealt(tmp_path, SHARES)
    result, news = tuned(tmp_path, LocalLine(parts, Loses(kind, back_after=0)), wait_seconds=60.0)
    assert said(news, "board-2 is lost") or kind == "Begin"
    np.testing.assert_allclose(losses(news)[:4], whole[:4], rtol=0, atol=1e-6)
    assert all(member.counted for member in result.members)


def test_without_a_member_the_run_goes_on_and_says_so(tmp_path: Path) -> None:
    result, news = tuned(tmp_path, LocalLine(dealt(tmp_path, SHARES), Loses("Judge", 3)))
    assert said(news, "board-2 has not come back in 0.5 s: the run goes on without its pictures")
    assert [member.counted for member in result.members] == [True, False, True]
    assert result.tuned.queries > 40


def test_without_a_member_the_heads_are_made_again(tmp_path: Path) -> None:
    """It had a part in the sums that the first ones were chosen by."""
    result, news = tuned(tmp_path, LocalLine(dealt(tmp_path, SHARES), Loses("Finish")), max_queries=1)
    assert said(news, "the run goes on without its pictures")
    assert result.tuned.none and result.tuned.none.pictures == 2 * 10 * 3


def test_a_member_that_is_back_counts_from_the_next_update(tmp_path: Path) -> None:
    line = LocalLine(dealt(tmp_path, SHARES), Loses("Judge", 3, back_after=3))
    result, news = tuned(tmp_path, line, wait_seconds=0.0, max_queries=80)
    assert said(news, "the run goes on without its pictures")
    assert said(news, "board-2 is there: its pictures count from now on")
    assert all(member.counted for member in result.members)


def test_an_interrupted_driver_goes_on_from_its_checkpoint(tmp_path: Path, whole: list[float]) -> None:
    parts, news = dealt(tmp_path, SHARES), list[Progress]()

    def stop() -> bool:
        return len(losses(news)) >= 3

    options: dict[str, Any] = {"on_progress": news.append, "stop": stop, "checkpoint_seconds": 0}
    with pytest.raises(InterruptedRunError, match="same command again"):
        tuned(tmp_path, LocalLine(parts), **options)
    _, rest = tuned(tmp_path, LocalLine(parts))
    assert said(rest, "going on after")
    np.testing.assert_allclose([*losses(news), *losses(rest)][:5], whole[:5], rtol=0, atol=1e-5)


def test_when_nobody_is_left_the_run_is_kept(tmp_path: Path) -> None:
    (part,) = dealt(tmp_path, [[4] * 10])
    part = part.rename(part.with_name("board-2"))
    with pytest.raises(SharpzoError, match=r"No member of the fleet is left.*same command again"):
        tuned(tmp_path, LocalLine([part], Loses("Judge", 3)), checkpoint_seconds=0)
    result, news = tuned(tmp_path, LocalLine([part]))
    assert said(news, "going on after") and result.tuned.queries > 40


def test_other_pictures_under_the_same_name_are_refused(tmp_path: Path) -> None:
    parts = dealt(tmp_path, SHARES)
    with pytest.raises(SharpzoError, match="No member"):
        tuned(tmp_path, LocalLine(parts[1:2], Loses("Judge", 3)), checkpoint_seconds=0)
    for folder in parts[1].iterdir():
        for picture in folder.iterdir():
            picture.unlink()
    for folder in parts[0].iterdir():
        for picture in folder.iterdir():
            picture.rename(parts[1] / folder.name / picture.name)
    with pytest.raises(SharpzoError, match="board-2 cannot take part: its pictures are others"):
        tuned(tmp_path, LocalLine(parts[1:2]))


def test_a_member_that_does_not_fit_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = dealt(tmp_path, SHARES)
    line = LocalLine(parts)
    for member, why in (
        (messages.Member("0.0", "", (), True), "version 0.0"),
        (messages.Member(__version__, "f00", (), True), "another bundle"),
    ):
        monkeypatch.setattr(line.boards["board-2"], "answer", lambda _, m=member: messages.packed(m))
        with pytest.raises(UsageError, match=f"The member board-2 cannot take part: it has {why}"):
            tuned(tmp_path, line)
    (parts[1] / "sport").rename(parts[1] / "sports")
    with pytest.raises(UsageError, match=r"board-2 cannot take part: its class folders.*sport, sports"):
        tuned(tmp_path, LocalLine(parts))


def test_a_class_that_nobody_has_is_named(tmp_path: Path) -> None:
    parts = dealt(tmp_path, [[*[2] * 9, 0], [*[3] * 9, 0]])
    with pytest.raises(
        UsageError, match="No member of the fleet has a picture of the class transport_ground"
    ):
        tuned(tmp_path, LocalLine(parts))
