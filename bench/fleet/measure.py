"""Tunes of a fleet on this machine: real ones with one core for a member, and simulated ones."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from shared.command import command
from sharpzo_edge.fleet.board import Board
from sharpzo_edge.fleet.engine import security_of
from sharpzo_edge.fleet.line import DaskLine
from sharpzo_edge.fleet.tune import FleetResult, tune_over
from sharpzo_edge.fleet.waves import Line
from sharpzo_edge.requests import FleetTuneRequest, MemberRequest
from sharpzo_edge.run.progress import Caller, Progress

from .lines import NotingLine, SimulatedLine
from .paper import Link
from .processes import dealt, empty_members, members, on_core

BUDGET = ("--memory-budget", "192MiB")  # a member's default
WAIT_SECONDS = 120.0
TURNS = 20  # of each round trip of nothing
PAYLOAD = 4_000_000  # bytes


@dataclasses.dataclass(frozen=True)
class Task:
    """A tune. train: pictures; queries: after which it ends"""

    bundle: Path
    train: Path
    queries: int

    @property
    def options(self) -> dict[str, Any]:
        return {"shots": 1000, "val": 0, "patience": 0, "change_point": 2, "max_queries": self.queries}


def alone(task: Task) -> dict[str, Any]:
    """`tune` with one core."""
    given = [word for name, value in task.options.items() for word in (f"--{name.replace('_', '-')}", value)]
    with tempfile.TemporaryDirectory() as folder, on_core(0):
        place = ("--bundle", task.bundle, "--images", task.train, "--output", Path(folder, "prompt"))
        found = command("tune", *place, "--threads", 1, *BUDGET, *given)
    return {key: found[key] for key in ("queries", "seconds")}


def by_fleet(task: Task, n: int, trip: float) -> dict[str, Any]:
    """`fleet tune` with n members of one core each; of one member also its waves."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        parts = dealt(task.train, folder, n)
        with (
            members(parts, task.bundle, folder, *BUDGET) as address,
            closing(DaskLine(f"tcp://{address}", security_of(None), WAIT_SECONDS, Caller())) as line,
        ):
            noting = NotingLine(line, trip) if n == 1 else None
            found = _tuned(task, n, noting or line, folder)
    waves = {"waves": [dataclasses.asdict(wave) for wave in noting.waves()]} if noting else {}
    return _figures(found) | {"seconds": round(found.tuned.seconds, 3)} | waves


def simulated(task: Task, n: int, link: Link, trip: float) -> dict[str, Any]:
    """The same with simulated members; see SimulatedLine."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        boards = {
            part.name: Board(MemberRequest(part, task.bundle, "", threads=1), Caller())
            for part in dealt(task.train, folder, n)
        }
        line = SimulatedLine(boards, link, trip)
        found = _tuned(task, n, line, folder)
    return _figures(found) | {"seconds": round(line.ended - line.begun, 3)}


def _tuned(task: Task, n: int, line: Line, folder: Path) -> FleetResult:
    request = FleetTuneRequest(
        task.bundle,
        output=folder / "prompt",
        scheduler="",
        members=n,
        wait_seconds=WAIT_SECONDS,
        on_progress=_tell,
        **task.options,
    )
    found, _ = tune_over(request, line)
    if not all(member.counted for member in found.members):
        raise SystemExit(
            "A member was lost; what it said is above. Measure again, on a machine with less to do"
        )
    return found


def _tell(news: Progress) -> None:
    if news.kind == "said":
        print(f"  {news.text}", flush=True)


def _figures(found: FleetResult) -> dict[str, Any]:
    return {"queries": found.tuned.queries, "round_trips": found.round_trips, "bytes": found.bytes}


def round_trips(counts: Sequence[int]) -> dict[str, Any]:
    """Of Dask alone, with members that do nothing: seconds of a round trip by their number, and how many
    bytes a second it carries to one member beyond that; None where a busy machine hides it.
    """
    found = {str(n): round(_round_trip(n, b""), 5) for n in counts}
    extra = _round_trip(1, bytes(PAYLOAD)) - _round_trip(1, b"")
    return {"seconds": found, "bytes_a_second": round(PAYLOAD / extra) if extra > 0 else None}


def _round_trip(n: int, message: bytes) -> float:
    """The median of the seconds that n members take, who answer nothing."""
    took = []
    with (
        tempfile.TemporaryDirectory() as folder,
        empty_members(n, Path(folder)) as address,
        closing(DaskLine(f"tcp://{address}", security_of(None), WAIT_SECONDS, Caller())) as line,
    ):
        while len(names := line.present()) != n:
            time.sleep(0.1)
        for _ in range(TURNS):
            begun, come = time.perf_counter(), 0
            for name in names:
                line.send(name, message)
            while come < n:
                come += len(line.receive(1))
            took.append(time.perf_counter() - begun)
    return statistics.median(took)
