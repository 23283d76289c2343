"""The bench of fleets: what its model says on paper, and its page."""

from __future__ import annotations

import numpy as np
import pytest

from fleet import page
from fleet.lines import SimulatedLine
from fleet.paper import Link, Wave, between, bytes_of, pays_from, seconds, slower
from sharpzo_edge.fleet.messages import Judge, packed

LINK = Link(latency=0.01, bandwidth=1000.0)
SHARED = Wave("Features", times=2, points=8, sent=300, received=200, driver=0.1, work=4.0)
WHOLE = Wave("Judge", times=3, points=0, sent=90, received=10, driver=0.2, work=1.0)


def no_trip(members: int) -> float:
    return 0.0


def test_points_are_shared_and_messages_are_not() -> None:
    assert seconds([SHARED], 1, LINK, no_trip) == pytest.approx(2 * (0.1 + 0.02 + 0.5 + 4.0))
    assert seconds([SHARED], 4, LINK, no_trip) == pytest.approx(2 * (0.1 + 0.02 + 0.5 + 1.0))
    assert seconds([WHOLE], 4, LINK, no_trip) == pytest.approx(3 * (0.2 + 0.02 + 4 * 0.1 + 0.25))
    assert bytes_of([SHARED, WHOLE], 4) == 2 * 500 + 4 * 3 * 100


def test_the_busiest_member_sets_the_pace() -> None:
    assert [SHARED.share(n) for n in (3, 8, 64)] == [3 / 8, 1 / 8, 1 / 8]


def test_a_round_trip_is_between_those_measured() -> None:
    trip = between({2: 0.02, 4: 0.03, 16: 0.09})
    assert [trip(n) for n in (2, 3, 4, 10)] == pytest.approx([0.02, 0.025, 0.03, 0.06])
    assert [trip(n) for n in (1, 32)] == pytest.approx([0.01, 0.18])


def test_a_fleet_pays_from_where_both_are_as_fast() -> None:
    factor = pays_from([SHARED, WHOLE], 11.0, 4, LINK, no_trip)
    assert factor
    assert seconds(slower([SHARED, WHOLE], factor), 4, LINK, no_trip) == pytest.approx(11.0 * factor)
    assert pays_from([SHARED, WHOLE], 2.0, 4, LINK, no_trip) is None


class Answers:
    """A board that answers half as many bytes as it is asked, at once."""

    def answer(self, message: bytes) -> bytes:
        return bytes(len(message) // 2)


def test_simulated_messages_wait_for_the_link() -> None:
    """Each takes a second to handle and one on the link, and its answer half of one; latency is another."""
    message = packed(Judge("run", np.zeros((1, 2, 4), np.float32), 0.0))
    line = SimulatedLine(
        {"a": Answers(), "b": Answers()}, Link(latency=1.0, bandwidth=len(message)), trip=2.0
    )
    for name in "ab":
        line.send(name, message)
    come = []
    while found := line.receive(1.0):
        come += [(name, line.now) for name, _ in found]
    assert come == [("a", pytest.approx(4.5, abs=0.3)), ("b", pytest.approx(5.5, abs=0.3))]


def test_the_page_is_made_of_its_results() -> None:
    assert page.PAGE.read_text(encoding="utf-8") == page.written()
