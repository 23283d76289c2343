"""The driver's view of a fleet: it asks all members at once, and knows who is there and whose pictures count.

A wave is one round trip: a message to each member, and the answers. There are two kinds. In a wave of shares
every member takes a part of some points; if one is lost, the others take over its part. In a wave of sums
every member answers for its own pictures; if one is lost, it is waited for, and then the run goes on without
it.

A member that comes, or comes back, is greeted beside the waves. It counts from the next update on.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ..errors import SharpzoError
from ..run.progress import Caller
from ..wording import counted
from .messages import Answer, Ask, Begin, Hello, Member, Part, Refused, packed, unpacked

TURN_SECONDS = 0.5  # how often it is looked who is there, while something is waited for
GO_ON = "The run is saved. To go on, type the same command again, without --restart"


class Line(Protocol):
    """How messages travel. A member has at most one message at a time."""

    def present(self) -> frozenset[str]:
        """Names of the members that can be reached now."""

    def send(self, name: str, message: bytes) -> None: ...

    def receive(self, seconds: float) -> list[tuple[str, bytes | None]]:
        """Answers that have come, after at most so many seconds; None from a member that is lost."""


@dataclass
class Traffic:
    """What travelled. trips: waves;  sent, received: bytes of messages, by the driver"""

    trips: int = 0
    sent: int = 0
    received: int = 0


@dataclass
class Seat:
    """What is known of one member.

    phase:    "away"; "met", it was asked who it is; "begun", it was asked to draw its pictures; "ready"
    counts:   whether its pictures are part of the sums
    lost_at:  when it was lost;  refused: why it cannot take part
    part:     what it has drawn, when it was here last
    """

    phase: Literal["away", "met", "begun", "ready"] = "away"
    counts: bool = False
    lost_at: float | None = None
    refused: str = ""
    part: Part | None = None


@dataclass
class Fleet:
    """Members by name, and what may be asked of them.

    check: who a member is -> why it cannot take part, or ""
    epoch: grows with every change of whose pictures count
    known: checksums of the pictures that members began the run with
    columns: of the sketch that the run has; 0 before that is decided
    """

    line: Line
    caller: Caller
    wait_seconds: float
    check: Callable[[Member], str] = lambda member: ""
    seats: dict[str, Seat] = field(default_factory=dict)
    traffic: Traffic = field(default_factory=Traffic)
    epoch: int = 0
    known: dict[str, str] = field(default_factory=dict)
    columns: int = 0
    _begin: Begin | None = None
    _members: dict[str, Member] = field(default_factory=dict)
    _looked: float = -TURN_SECONDS
    _has_begun: bool = False

    # Who is there.

    def meet(self, least: int, expected: Collection[str] = ()) -> dict[str, Member]:
        """Who is there: waits for `least` members and the expected ones, at most wait_seconds.

        Raises SharpzoError when there are fewer.
        """
        begun = time.monotonic()
        while True:
            self._look()
            self._greet(TURN_SECONDS)
            waits = any(seat.phase == "met" for seat in self.seats.values())
            is_over = time.monotonic() - begun > self.wait_seconds
            if len(self._members) >= least and (is_over or not (waits or {*expected} - {*self._members})):
                return dict(self._members)
            if is_over:
                raise SharpzoError(
                    f"The fleet has {counted(len(self._members), 'member')} after {self.wait_seconds:g} s. "
                    f"It takes at least {least}. Start on a board: sharpzo-edge fleet member, or wait "
                    f"longer with --wait-seconds"
                )
            self._raise_if_stopped()

    def begin(self, begin: Begin) -> None:
        """Let all members that were met begin a run. Raises SharpzoError when one of them cannot."""
        self._begin = begin
        for name, seat in self.seats.items():
            if name in self._members and seat.phase != "away":
                self._send(name, begin, "begun")
        while any(self._is_expected(seat) for seat in self.seats.values()):
            self._look()
            self._greet(TURN_SECONDS)
            self._raise_if_stopped()
            for seat in self.seats.values():
                if seat.refused:
                    raise SharpzoError(seat.refused)
        self.admit()
        if not self.parts:
            raise self._nobody()

    def admit(self) -> None:
        """Let those who came, or came back, count from now on. Called between two updates."""
        self._look()
        self._greet(0)
        for name, seat in self.seats.items():
            if seat.phase == "ready" and not seat.counts:
                seat.counts = True
                self.epoch += 1
                if self._has_begun:
                    self.caller.say(f"{name} is there: its pictures count from now on")
        self._has_begun = True

    @property
    def parts(self) -> dict[str, Part]:
        """What the members have drawn whose pictures count, by name."""
        return {name: s.part for name, s in sorted(self.seats.items()) if s.counts and s.part}

    # Waves.

    def sums(self, ask: Ask) -> dict[str, Any]:
        """The answer of every member whose pictures count."""
        self.traffic.trips += 1
        message, answers, asked = packed(ask), dict[str, Any](), set[str]()
        while True:
            for name, seat in self.seats.items():
                if seat.counts and seat.phase == "ready" and name not in asked:
                    self._post(name, message)
                    asked.add(name)
            counting = {name for name, seat in self.seats.items() if seat.counts}
            if not counting:
                raise self._nobody()
            if counting <= answers.keys():
                return {name: answers[name] for name in sorted(counting)}
            for name, answer in self._turn():
                if answer is None:
                    asked.discard(name)
                else:
                    answers[name] = answer

    def shares(self, n: int, ask: Callable[[slice], Ask]) -> list[Any]:
        """The answers for n points, in their order; every member answers for some of them."""
        self.traffic.trips += 1
        todo, given, answers = [slice(0, n)], dict[str, slice](), dict[int, Any]()
        while todo or given:
            idle = [
                name
                for name, seat in sorted(self.seats.items())
                if seat.counts and seat.phase == "ready" and name not in given
            ]
            if idle and todo:
                for name, part in zip(idle, _divided(todo.pop(), len(idle)), strict=False):
                    self._post(name, packed(ask(part)))
                    given[name] = part
                continue
            if not any(seat.counts for seat in self.seats.values()):
                raise self._nobody()
            for name, answer in self._turn():
                part = given.pop(name)
                if answer is None:
                    todo.append(part)
                else:
                    answers[part.start] = answer
        return [answers[start] for start in sorted(answers)]

    def _turn(self) -> Iterator[tuple[str, Answer | None]]:
        """Yields what has come for a wave, None from a member that is lost. Meanwhile looks who is there."""
        for name, answer in self._greet(TURN_SECONDS):
            if answer is None or (isinstance(answer, Refused) and answer.is_other_run):
                self._lose(name)
                yield name, None
            elif isinstance(answer, Refused):
                raise SharpzoError(
                    f"The member {name} cannot go on: {answer.reason}. All members of a run must be able to. "
                    f"When it is, type the same command again"
                )
            else:
                yield name, answer
        lost = {name: seat for name, seat in self.seats.items() if seat.counts and seat.phase != "ready"}
        if lost:
            self._look()
        for name, seat in lost.items():
            if not self._is_expected(seat):
                seat.counts, self.epoch = False, self.epoch + 1
                self.caller.say(
                    f"{name} has not come back in {self.wait_seconds:g} s: the run goes on without its "
                    f"pictures"
                )
        self._raise_if_stopped()

    def _is_expected(self, seat: Seat) -> bool:
        """Whether a member is not ready, and may be before its time is over."""
        if seat.phase != "away":
            return seat.phase != "ready"
        return seat.lost_at is not None and time.monotonic() - seat.lost_at <= self.wait_seconds

    # Greeting.

    def _look(self) -> None:
        """Greet whoever is there and was not."""
        if time.monotonic() - self._looked < TURN_SECONDS:
            return
        present = self.line.present()
        self._looked = time.monotonic()
        for name in sorted(present):
            seat = self.seats.setdefault(name, Seat())
            if seat.phase == "away" and not seat.refused:
                self._send(name, Hello(), "met")
        for name, seat in self.seats.items():
            if name not in present and seat.phase == "away":
                seat.refused = ""  # it may be another one when it is back

    def _greet(self, seconds: float) -> list[tuple[str, Answer | None]]:
        """Take what has come; returns what is no part of a greeting."""
        others: list[tuple[str, Answer | None]] = []
        for name, data in self.line.receive(seconds):
            answer = None if data is None else unpacked(data)
            self.traffic.received += 0 if data is None else len(data)
            seat = self.seats[name]
            if seat.phase not in ("met", "begun"):
                others.append((name, answer))
            elif isinstance(answer, Refused):
                self._refuse(name, answer.reason)
            elif isinstance(answer, Member):
                self._met(name, answer)
            elif isinstance(answer, Part):
                self._drawn(name, answer)
            else:
                self._lose(name)
        return others

    def _met(self, name: str, member: Member) -> None:
        if why := self.check(member):
            self._refuse(name, why)
            return
        self._members[name] = member
        self.seats[name].phase = "ready"
        if self._begin:
            self._send(name, self._begin, "begun")

    def _drawn(self, name: str, part: Part) -> None:
        seat = self.seats[name]
        if self.known.setdefault(name, part.pictures) != part.pictures:
            self._refuse(
                name,
                "its pictures are others than those it began the run with. They must be the same, byte "
                "for byte. Put them back, give the member another --name, or start over with --restart",
            )
            return
        if part.n_columns < self.columns:
            self._refuse(
                name,
                f"its memory has room for {part.n_columns} columns of a sketch, and the run has "
                f"{self.columns}. Start it with a larger --memory-budget",
            )
            return
        seat.part, seat.phase, seat.lost_at = part, "ready", None

    def _refuse(self, name: str, why: str) -> None:
        seat = self.seats[name]
        seat.phase, seat.refused = "away", f"The member {name} cannot take part: {why}"
        if seat.counts:
            seat.counts, self.epoch = False, self.epoch + 1
        self._members.pop(name, None)
        self.caller.say(f"note: {seat.refused}")

    def _lose(self, name: str) -> None:
        seat = self.seats[name]
        if seat.phase == "ready" and seat.counts:
            self.caller.say(f"{name} is lost: it is waited for, at most {self.wait_seconds:g} s")
        seat.phase = "away"
        seat.lost_at = seat.lost_at or time.monotonic()

    def _send(self, name: str, ask: Ask, phase: Literal["met", "begun"]) -> None:
        self.seats[name].phase = phase
        self._post(name, packed(ask))

    def _post(self, name: str, message: bytes) -> None:
        self.traffic.sent += len(message)
        self.line.send(name, message)

    def _raise_if_stopped(self) -> None:
        self.caller.raise_if_stopped(GO_ON)

    def _nobody(self) -> SharpzoError:
        return SharpzoError(
            f"No member of the fleet is left, after {self.wait_seconds:g} s. At least one is needed. Type "
            f"on a board: sharpzo-edge fleet member. {GO_ON}"
        )


def _divided(points: slice, n: int) -> list[slice]:
    """A range of points in at most n parts, as even as can be; none is empty."""
    size = points.stop - points.start
    n = min(n, size)
    ends = [points.start + size * i // n for i in range(n + 1)]
    return [slice(*pair) for pair in itertools.pairwise(ends)]
