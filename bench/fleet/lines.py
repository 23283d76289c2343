"""Lines of a fleet (see sharpzo_edge.fleet.waves) that measure: one that notes, and one with its own time."""

from __future__ import annotations

import heapq
import time
from collections import defaultdict
from collections.abc import Callable, Mapping

import numpy as np

from sharpzo_edge.fleet import messages
from sharpzo_edge.fleet.board import Board
from sharpzo_edge.fleet.waves import Line

from .paper import Link, Wave

Kind = tuple[str, int]  # of a message, and its points that are shared out
IN_THE_STAGES = ("Features", "Tangents", "Judge", "Derive", "Model")  # what tune's seconds hold
GREETINGS = ("Hello", "Begin")


def kind_of(message: bytes) -> Kind:
    ask = messages.unpacked(message)
    points = {messages.Features: "contexts", messages.Tangents: "directions"}.get(type(ask))
    return type(ask).__name__, len(getattr(ask, points)) if points else 0


class NotingLine:
    """Another line to one member, and what its waves took. trip: seconds that are not the member's"""

    def __init__(self, line: Line, trip: float, clock: Callable[[], float] = time.perf_counter):
        self._line, self._trip, self._clock = line, trip, clock
        self._noted: dict[Kind, list[tuple[int, int, float, float]]] = defaultdict(list)
        self._ended = clock()

    def present(self) -> frozenset[str]:
        return self._line.present()

    def send(self, name: str, message: bytes) -> None:
        self._driver = self._clock() - self._ended
        self._kind, self._sent = kind_of(message), len(message)
        self._begun = self._clock()
        self._line.send(name, message)

    def receive(self, seconds: float) -> list[tuple[str, bytes | None]]:
        found = self._line.receive(seconds)
        for _, answer in found:
            self._ended = self._clock()
            assert answer is not None  # nobody is lost in a measurement
            work = max(0.0, self._ended - self._begun - self._trip)
            self._noted[self._kind].append((self._sent, len(answer), self._driver, work))
        return found

    def waves(self) -> list[Wave]:
        """Means of each kind."""
        return [
            Wave(kind, len(noted), points, round(sent), round(received), driver, work)
            for (kind, points), noted in self._noted.items()
            if kind not in GREETINGS
            for sent, received, driver, work in [np.mean(noted, axis=0).tolist()]
        ]


class SimulatedLine:
    """Members in this process, each on a board of its own as far as time is told: `now` is seconds of theirs.

    Driver and boards take the processor time that they take here. Messages take what link and trip say, and
    share the link: each waits until the one before is through.
    trip: seconds that a round trip of nothing takes with so many members
    """

    def __init__(self, boards: Mapping[str, Board], link: Link, trip: float):
        self._boards, self._link, self._handling = boards, link, trip / len(boards)
        self._coming: list[tuple[float, str, bytes]] = []
        self._free = 0.0  # when the link is
        self._mark = time.thread_time()
        self.now = self.begun = self.ended = 0.0  # and when the stages began and ended

    def present(self) -> frozenset[str]:
        return frozenset(self._boards)

    def send(self, name: str, message: bytes) -> None:
        self._tick()
        kind, _ = kind_of(message)
        if kind in IN_THE_STAGES and not self.begun:
            self.begun = self.now
        self._mark = time.thread_time()
        answer = self._boards[name].answer(message)
        work = self._tick(counts=False)
        self.now += self._handling
        come = self._through(self.now, len(message)) + self._link.latency
        heapq.heappush(self._coming, (come + work, name, answer))

    def receive(self, seconds: float) -> list[tuple[str, bytes | None]]:
        self._tick()
        if not self._coming:
            return []
        ready, name, answer = heapq.heappop(self._coming)
        self.now = max(self.now, self._through(ready, len(answer)) + self._link.latency)
        self.ended = self.now
        return [(name, answer)]

    def _through(self, ready: float, n_bytes: int) -> float:
        """When a message that is ready then has left the link."""
        self._free = max(self._free, ready) + n_bytes / self._link.bandwidth
        return self._free

    def _tick(self, counts: bool = True) -> float:
        """Seconds of the processor since the last tick; the driver's count."""
        took = time.thread_time() - self._mark
        self._mark += took
        self.now += took if counts else 0.0
        return took
