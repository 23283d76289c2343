"""A fleet on paper: from the waves of a run and the link between its machines to seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Link:
    """What lies between the driver and its members. They share it, as those of one access point do.

    latency:   seconds, one way
    bandwidth: bytes a second
    """

    latency: float
    bandwidth: float


@dataclass(frozen=True)
class Wave:
    """Round trips of one kind, as a fleet of one member has them, who holds all pictures.

    kind:   of the message;  times: how many there are
    points: of the text tower, which the members share out; 0: every member gets the whole message, and
            answers for its own pictures
    sent, received: bytes of each
    driver, work:   seconds of each: of the driver before it, and of the member in it
    """

    kind: str
    times: int
    points: int
    sent: int
    received: int
    driver: float
    work: float

    def copies(self, members: int) -> int:
        """How many times its bytes travel."""
        return 1 if self.points else members

    def share(self, members: int) -> float:
        """The part of its work that the busiest member has."""
        return -(-self.points // members) / self.points if self.points else 1 / members


Trip = Callable[[int], float]  # members -> seconds that a round trip of nothing takes


def seconds(waves: Sequence[Wave], members: int, link: Link, trip: Trip) -> float:
    """Of all waves: nothing overlaps, and every byte takes its turn on the link."""
    return sum(
        wave.times
        * (
            wave.driver
            + trip(members)
            + 2 * link.latency
            + wave.copies(members) * (wave.sent + wave.received) / link.bandwidth
            + wave.share(members) * wave.work
        )
        for wave in waves
    )


def bytes_of(waves: Sequence[Wave], members: int) -> int:
    """That the driver sends and receives in all waves."""
    return sum(wave.times * wave.copies(members) * (wave.sent + wave.received) for wave in waves)


def slower(waves: Sequence[Wave], factor: float) -> list[Wave]:
    """The same waves of members whose work takes so many times as long."""
    return [replace(wave, work=factor * wave.work) for wave in waves]


def between(measured: Mapping[int, float]) -> Trip:
    """Seconds for any number of members, on the straight lines between those that were measured.

    Before the first and behind the last one it is in proportion to the number.
    """
    known = sorted(measured.items())

    def trip(members: int) -> float:
        below = [pair for pair in known if pair[0] <= members]
        above = [pair for pair in known if pair[0] >= members]
        if not below or not above:
            n, value = (below or above[:1])[-1]
            return value * members / n
        (a, low), (b, high) = below[-1], above[0]
        return low if a == b else low + (high - low) * (members - a) / (b - a)

    return trip


def pays_from(waves: Sequence[Wave], alone: float, members: int, link: Link, trip: Trip) -> float | None:
    """How many times slower boards must be than those of `waves` and `alone` for a fleet to be as fast as one
    board alone; None: it never is.

    alone: seconds of one board without a fleet
    """
    fixed = seconds(slower(waves, 0.0), members, link, trip)
    saved = alone - (seconds(waves, members, link, trip) - fixed)
    return fixed / saved if saved > 0 else None
