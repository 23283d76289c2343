"""docs/fleet.md, from bench/results/fleet.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shared.machine import ROOT, one_line
from shared.pages import markdown_table, read_results

from .lines import IN_THE_STAGES
from .paper import Link, Trip, Wave, between, bytes_of, pays_from, seconds, slower

RESULTS = ROOT / "bench" / "results" / "fleet.json"
PAGE = ROOT / "docs" / "fleet.md"
WIFI = Link(latency=0.0025, bandwidth=50e6 / 8)
LINKS = {"Ethernet": Link(latency=0.0005, bandwidth=1e9 / 8), "Wi-Fi": WIFI}
MEMBERS = (1, 2, 4, 8, 16, 32, 64)
SLOWER = (1, 10)  # times as long as on a core of the machine that measured

HEAD = """# What a fleet costs and saves

Written by `make bench-fleet`. [fleet-guide.md](fleet-guide.md) says how a fleet works and is set
up. Seconds are those of the two stages, without pictures to encode and without the head, as `tune`
counts them. The demo's model is run on the demo's pictures, and ViT-B-16 with random weights on 20
pictures of noise, for {queries} queries. Two generations are stage 1, the rest is stage 2. A whole
run of `edge` has up to 8,000 queries of the same kind.

**In short.** {short}
"""
REAL = """## On this machine

Every member has one core and one thread, and so has `tune`. Driver and scheduler take what is left:
of two cores that is nothing beside two members. Everything is on 127.0.0.1. Round trips and bytes
count the head, too.
"""
TRAVELS = """## What travels

The waves of ViT-B-16 with one member. The points of Features and Tangents are shared out, so their
bytes travel once, whatever the number of members. All other messages go whole to every member, and
every member answers: their bytes grow with the number of members. The last rows are the head.
"""
DASK = """## Dask alone

A round trip that asks nothing and answers nothing, of scheduler and members on this machine. The
members are all in one process: with many of them it is slower than on as many boards. {carries}
"""
ON_PAPER = """## On paper

What a wave takes, with M members: the driver's own time, Dask's round trip, twice the latency, its
bytes by the link's bandwidth, and the members' work divided by M. Nothing overlaps. The link is one
for all, as an access point is. Two are assumed, not measured: Ethernet of 1 Gbit/s and 1 ms there
and back, and Wi-Fi of 50 Mbit/s and 5 ms. A board is assumed to be as fast as a core here, or ten
times slower; the driver is as fast as here. The fastest of a row is bold.
"""
SIMULATED = """## By simulation

The same over Wi-Fi, with the product's own driver and members in one process. Each message waits
for the link and takes latency and bandwidth; driver and members take the processor time that they
take here; round trips are Dask's from above. The members' pictures are disjoint. Members of
ViT-B-16 take memory, so 64 are simulated with the demo's model alone.
"""
STOPS = """## Where it stops paying

{rows}

What limits a fleet is what goes whole to every member: class features and columns of the sketch,
which grow with the number of classes, and Dask's own time for each member. Both grow with M, while
a member's work shrinks as 1 / M. With pictures that may not leave their boards a fleet is not there
to save time, and these figures are then its price.
"""


@dataclass(frozen=True)
class Measured:
    """One model's results. alone: seconds and queries of `tune`"""

    name: str
    alone: dict[str, Any]
    real: dict[str, dict[str, Any]]
    simulated: dict[str, dict[str, Any]]

    @property
    def waves(self) -> list[Wave]:
        return [Wave(**wave) for wave in self.real["1"]["waves"]]

    @property
    def stages(self) -> list[Wave]:
        return [wave for wave in self.waves if wave.kind in IN_THE_STAGES]

    @property
    def query(self) -> float:
        """Seconds of `tune` for one."""
        return float(self.alone["seconds"] / self.alone["queries"])


def written() -> str:
    results = read_results(RESULTS)
    models = [Measured(name, **found) for name, found in results["models"].items()]
    trips = {int(n): value for n, value in results["round_trips"]["seconds"].items()}
    trip, carried = between(trips), results["round_trips"]["bytes_a_second"]
    queries = " and ".join(f"{m.alone['queries']:,}" for m in models)
    carries = f"Beyond that it carries {carried / 1e6:,.0f} MB a second." if carried else ""
    here = Link(latency=0.0, bandwidth=carried or float("inf"))
    parts = [
        HEAD.format(queries=queries, short=in_short(models, trip)),
        REAL,
        real_table(models, here, trip),
        TRAVELS,
        waves_table(models[-1].waves),
        DASK.format(carries=carries),
        table(["members", *map(str, trips)], [["ms", *(f"{1000 * value:.0f}" for value in trips.values())]]),
        ON_PAPER,
        paper_table(models, trip),
        SIMULATED,
        simulated_table(models, trip),
        STOPS.format(rows="\n".join(f"- {line}" for line in stops(models, trip))),
        f"{one_line(results['machine'])} Load before: {results['load']:.1f}.\n",
    ]
    return "\n".join(f"{part.rstrip()}\n" for part in parts)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(markdown_table(header, rows))


def real_table(models: Sequence[Measured], here: Link, trip: Trip) -> str:
    rows = []
    for m in models:
        rows.append([m.name, "`tune`", f"{m.alone['seconds']:.1f}", "", "", ""])
        for n, found in m.real.items():
            cells = [f"{found['seconds']:.1f}", f"{seconds(m.stages, int(n), here, trip):.1f}"]
            rows.append(
                [m.name, f"a fleet of {n}", *cells, str(found["round_trips"]), megabytes(found["bytes"])]
            )
    return table(["model", "", "seconds", "on paper", "round trips", "MB"], rows)


def waves_table(waves: Sequence[Wave]) -> str:
    rows = [
        [
            wave.kind,
            str(wave.times),
            str(wave.points or "–"),
            *(f"{count / 1e3:,.0f}" for count in (wave.sent, wave.received)),
            f"{1000 * wave.work:.1f}",
        ]
        for wave in waves
    ]
    return table(["message", "times", "points", "kB there", "kB back", "ms of a member"], rows)


def paper_table(models: Sequence[Measured], trip: Trip) -> str:
    rows = []
    for m, factor, (name, link) in scenes(models):
        found = [seconds(slower(m.stages, factor), n, link, trip) for n in MEMBERS]
        alone = factor * m.alone["seconds"]
        cells = [f"{value:,.0f}" for value in (alone, *found)]
        fastest = min(range(len(cells)), key=[alone, *found].__getitem__)
        cells[fastest] = f"**{cells[fastest]}**"
        rows.append([m.name, board(factor), name, *cells])
    return table(["model", "a board is", "link", "`tune`", *(f"{n}" for n in MEMBERS)], rows)


def simulated_table(models: Sequence[Measured], trip: Trip) -> str:
    rows = [
        [
            m.name,
            n,
            f"{found['seconds']:.1f}",
            f"{seconds(m.stages, int(n), WIFI, trip):.1f}",
            megabytes(found["bytes"]),
            megabytes(bytes_of(m.waves, int(n))),
        ]
        for m in models
        for n, found in m.simulated.items()
    ]
    return table(["model", "members", "seconds", "on paper", "MB", "on paper"], rows)


def stops(models: Sequence[Measured], trip: Trip) -> list[str]:
    """Where more members do not help, and how long a query must take for four to help at all."""
    lines = []
    for m, factor, (name, link) in scenes(models):
        found = {n: seconds(slower(m.stages, factor), n, link, trip) for n in MEMBERS}
        best = min(found, key=found.__getitem__)
        gain = factor * m.alone["seconds"] / found[best]
        said = f"{m.name}, a board {board(factor)}, {name}: "
        lines.append(
            said + f"fastest with {best} members, {gain:.1f} times as fast as one board alone"
            if gain > 1
            else said + "one board alone is faster than any fleet"
        )
    for m in models:
        for name, link in LINKS.items():
            pays = pays_from(m.stages, m.alone["seconds"], 4, link, trip)
            lines.append(
                f"{m.name}, {name}: four members are faster than one board alone when a query takes a board "
                f"more than {1000 * pays * m.query:,.0f} ms (here it takes {1000 * m.query:,.0f})"
                if pays
                else f"{m.name}, {name}: four members are never faster than one board alone"
            )
    return lines


def in_short(models: Sequence[Measured], trip: Trip) -> str:
    """What a reader who stops here should know."""
    m, factor = models[-1], SLOWER[-1]
    alone = factor * m.alone["seconds"]
    waves = slower(m.stages, factor)
    gains = [f"{alone / seconds(waves, n, WIFI, trip):.1f}" for n in (2, 4, 16, 64)]
    return (
        f"With {m.name}, on boards ten times slower than a core here and over Wi-Fi, 2, 4, 16 and 64 members "
        f"are {gains[0]}, {gains[1]}, {gains[2]} and {gains[3]} times as fast as one board alone, on paper. "
        f"A model as small as the demo's gains little or nothing."
    )


def scenes(models: Sequence[Measured]) -> list[tuple[Measured, int, tuple[str, Link]]]:
    return [(m, factor, link) for m in models for factor in SLOWER for link in LINKS.items()]


def board(factor: int) -> str:
    return "as fast" if factor == 1 else f"{factor} times slower"


def megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f}"
