"""What is kept, told and written: the least sure of a day, lasting changes, lines; and that none waits."""

from __future__ import annotations

import errno
import json
import os
import re
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpzo_edge.errors import SharpzoError
from sharpzo_edge.page.labels import Labels
from sharpzo_edge.run import files
from sharpzo_edge.watch import lines, unsure
from sharpzo_edge.watch.home_assistant import announcements, state_of, words_of
from sharpzo_edge.watch.latest import Latest, Outbox
from sharpzo_edge.watch.lines import Lines, ReaderGoneError
from sharpzo_edge.watch.reader import Arrival
from sharpzo_edge.watch.steady import Steady
from sharpzo_edge.watch.unsure import Unsure
from support.disk import FailingOs

# Steady ------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from("ab-")), st.integers(1, 4))
def test_the_state_is_the_last_answer_that_lasted(answers: list[str], n: int) -> None:
    steady = Steady(n)
    states = [None]
    for i, answer in enumerate(answers):
        has_changed = steady.has_changed(answer)
        row = answers[max(0, i + 1 - n) : i + 1]
        states.append(answer if row == [answer] * n else states[-1])
        assert steady.state == states[-1] and has_changed == (states[-1] != states[-2])


# The newest wins ---------------------------------------------------------------------------------


def test_where_there_is_no_room_the_oldest_gives_way() -> None:
    latest: Latest[int] = Latest(2)
    for i in range(5):
        latest.put(i)
    assert [latest.take(0) for _ in range(3)] == [3, 4, None] and latest.dropped == 3


def test_who_puts_something_out_never_waits() -> None:
    """Also at the end: an output that hangs is left behind."""
    may_go_on, has_begun, done = threading.Event(), threading.Event(), []

    def do(item: int) -> None:
        has_begun.set()
        may_go_on.wait(60)
        done.append(item)

    started = time.monotonic()
    with Outbox(do, 3, lambda error: None) as outbox:
        outbox.put(0)
        assert has_begun.wait(30)
        for i in range(1, 1000):
            outbox.put(i)
    assert not done and time.monotonic() - started < 30
    may_go_on.set()
    outbox._thread.join(30)
    assert done == [0, 997, 998, 999]


def test_an_output_that_fails_says_so_once_and_goes_on() -> None:
    errors: list[SharpzoError] = []

    def do(item: int) -> None:
        if item in (1, 2, 4):
            raise SharpzoError("full")

    with Outbox(do, 9, errors.append) as outbox:
        for item in range(5):
            outbox.put(item)
    assert list(map(str, errors)) == ["full", "full"]


# Lines -------------------------------------------------------------------------------------------


def test_a_line_that_was_torn_is_ended_before_the_next(tmp_path: Path) -> None:
    def strike(name: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with (tmp_path / "lines").open("wb") as file, pytest.MonkeyPatch.context() as patch:
        out = Lines(file.fileno())
        out.write({"n": 1})
        patch.setattr(lines, "os", FailingOs(1, strike, "write", lasts=True))
        for n in (2, 3):
            with pytest.raises(SharpzoError, match="No space left on device"):
                out.write({"n": n})
        patch.undo()
        out.write({"n": "犬"})
    whole = (tmp_path / "lines").read_bytes().split(b"\n")
    assert json.loads(whole[0]) == {"n": 1} and json.loads(whole[-2]) == {"n": "犬"}


def test_nobody_who_reads_is_another_error() -> None:
    read, write = os.pipe()
    os.close(read)
    with pytest.raises(ReaderGoneError):
        Lines(write).write({})
    os.close(write)


# Home Assistant ----------------------------------------------------------------------------------


@given(st.lists(st.text("aA_1!犬/", min_size=1, max_size=50), unique=True))
def test_every_label_has_a_word_of_its_own(labels: list[str]) -> None:
    words = words_of(labels)
    assert list(words) == labels and len(set(words.values())) == len(labels)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]+", word) for word in words.values())


def test_every_state_is_one_that_home_assistant_takes() -> None:
    assert [state_of(label) for label in ("cat", "None", "none")] == ["cat", "none", "none"]
    assert len(state_of("x" * 300)) == 255
    (sensor,) = announcements("home/hall", ("cat", "None"), has_binary_sensors=False).values()
    assert sensor["options"] == ["cat", "none"]


# Unsure ------------------------------------------------------------------------------------------


class Clock:
    """day: of the clock on the wall, which may jump;  now: of the one that never does"""

    day, now = "2026-11-30", 0.0

    def strftime(self, form: str) -> str:
        return f"{self.day} {int(self.now) % 240000:06}"

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(unsure, "time", clock)
    return clock


def offered(keeper: Unsure, clock: Clock, *scores: float, every: float = 60.0) -> None:
    for score in scores:
        clock.now += every
        keeper.offer((Arrival("", f"picture {score}".encode()), score))


def kept(folder: Path) -> list[str]:
    return sorted(path.read_text() for path in folder.iterdir())


def pictures(*scores: float) -> list[str]:
    return sorted(f"picture {score}" for score in scores)


@given(scores=st.lists(st.integers(100, 999).map(lambda n: n / 1000), unique=True))
def test_the_least_sure_of_a_day_are_kept(
    scores: list[float], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, clock = tmp_path_factory.mktemp("day") / "a" / "b", Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unsure, "time", clock)
        offered(Unsure(folder, 3), clock, *scores)
    assert not scores or kept(folder) == pictures(*sorted(scores)[:3])


def test_one_moment_has_one_picture(clock: Clock, tmp_path: Path) -> None:
    offered(Unsure(tmp_path, 3), clock, 0.5, 0.4, 0.45, 0.3, 0.6, every=1)
    assert kept(tmp_path) == pictures(0.3)


def test_a_day_after_a_restart_or_a_jump_is_the_same_day(clock: Clock, tmp_path: Path) -> None:
    offered(Unsure(tmp_path, 2), clock, 0.5, 0.4)
    keeper = Unsure(tmp_path, 2)
    offered(keeper, clock, 0.6, 0.3)
    clock.day = "1970-01-01"
    offered(keeper, clock, 0.9, 0.8, 0.7)
    clock.day = "2026-11-30"
    offered(keeper, clock, 0.39, 0.2)
    assert kept(tmp_path) == pictures(0.3, 0.2, 0.8, 0.7)


@pytest.mark.parametrize("call", ["open", "write", "replace"])
def test_a_full_disk_takes_nothing_away(
    call: str, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def strike(name: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    keeper = Unsure(tmp_path, 2)
    offered(keeper, clock, 0.5, 0.4)
    with monkeypatch.context() as patch:
        patch.setattr(files, "os", FailingOs(1, strike, call, lasts=True))
        with pytest.raises(SharpzoError, match=r"No space left on device\)\. The folder must"):
            offered(keeper, clock, 0.3)
    assert kept(tmp_path) == pictures(0.5, 0.4)
    offered(keeper, clock, 0.2)
    assert kept(tmp_path) == pictures(0.4, 0.2)


def test_the_page_takes_what_was_kept(clock: Clock, tmp_path: Path) -> None:
    offered(Unsure(tmp_path / ".put-aside" / "unsure", 2), clock, 0.5)
    labels = Labels(tmp_path)
    ((picture,), n) = labels.pictures_aside(0, 9)
    labels.move([picture.word], labels.make_class("cat"))
    assert n == 1 and kept(tmp_path / "cat") == pictures(0.5)


def test_a_file_is_copied_and_may_be_gone(clock: Clock, tmp_path: Path) -> None:
    source = tmp_path / "1.png"
    source.write_bytes(b"x" * 200_000)
    keeper = Unsure(tmp_path / "unsure", 2)
    keeper.offer((Arrival(str(source)), 0.5))
    (copy,) = (tmp_path / "unsure").iterdir()
    assert copy.read_bytes() == source.read_bytes() and copy.name == "2026-11-30_000000_0.500.png"
    source.unlink()
    with pytest.raises(SharpzoError, match="No such file"):
        keeper.offer((Arrival(str(source)), 0.4))
