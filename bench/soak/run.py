"""An hour of kills, faults, signals and mutants, on the commands that a user types.

    python -m soak.run [--minutes 60] [--seed 0] [--job N]    with bench/ and tests/ in PYTHONPATH

Two jobs at a time. A job tunes on the demo's pictures, and is struck at random: killed at some moment or
change of the disk, sent a signal, or answered with an error (a disk that is full or broken, a rename that is
busy, no locks, no fsync of folders, a read that fails once). It goes on with the same command, and must end
with the prompt of a run that nothing struck, byte for byte. Other jobs try mutants of the files that are read
(tests/support/mutants.py). Others kill the processes of a fleet, whose run must end with all of its members.
What a job does follows from the seed and its number: --job repeats one alone. Writes soak.json into
--results, and --page.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from shared.machine import describe_machine
from shared.pages import keep_results

from .jobs import MUTANTS_A_JOB, Job, Soak
from .page import NAME, PAGE, RESULTS, page

WORKERS = 2
MUTANTS_A_READER = 10_000  # in an hour, at least; fewer in proportion in less


def soak(minutes: float, seed: int) -> dict[str, Any]:
    """Jobs until the time is over, and then mutants until every reader has had its share."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=memory_disk()) as folder, ThreadPoolExecutor(WORKERS) as pool:
        whole = Soak(seed, Path(folder))
        list(pool.map(lambda first: work(whole, first, started + 60 * minutes), range(WORKERS)))
        list(pool.map(lambda name: fill(whole, name, MUTANTS_A_READER * minutes / 60), whole.readers))
        return results(whole, seed, minutes, time.monotonic() - started)


def work(whole: Soak, first: int, deadline: float) -> None:
    """Every WORKERS-th job, from the first on."""
    number = first
    while time.monotonic() < deadline:
        whole.do(Job(whole.seed, number))
        number += WORKERS
        if number % 20 < WORKERS:
            left, losses = max(0.0, deadline - time.monotonic()), len(whole.tally.losses)
            print(f"{number} jobs, {left / 60:.0f} min left, losses: {losses}", file=sys.stderr, flush=True)


def fill(whole: Soak, name: str, least: float) -> None:
    number = 10**6  # beyond those of the jobs
    while whole.mutants_tried(name) < least:
        with tempfile.TemporaryDirectory(dir=memory_disk()) as folder:
            try:
                whole.try_mutants(Job(whole.seed, number), name, number * MUTANTS_A_JOB, Path(folder))
            except RuntimeError as error:
                whole.tally.lose(Job(whole.seed, number), f"the soak failed: {error}")
                return
        number += 1


def results(whole: Soak, seed: int, minutes: float, seconds: float) -> dict[str, Any]:
    tally = whole.tally
    return {
        "machine": describe_machine(),
        "seed": seed,
        "minutes_asked": minutes,
        "seconds": round(seconds),
        "kills_survived": sum(sum(tally.counts[table].values()) for table in ("kills", "kills in a fleet")),
        "faults_injected": sum(tally.counts["faults"].values()) + sum(tally.counts["full disks"].values()),
        "mutants_tried": {name: whole.mutants_tried(name) for name in whole.readers},
        "most_mib_of_a_mutant": {name: round(mib, 1) for name, mib in sorted(tally.most_mib.items())},
        "counts": {table: dict(sorted(counts.items())) for table, counts in sorted(tally.counts.items())},
        "skipped": tally.skipped,
        "losses": tally.losses,
    }


def memory_disk() -> str | None:
    """Where flushes take no time; elsewhere they would take most of it."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--job", type=int, help="do this one alone, and write nothing")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    given = parser.parse_args()
    if given.job is not None:
        with tempfile.TemporaryDirectory(dir=memory_disk()) as folder:
            alone = Soak(given.seed, Path(folder))
            alone.do(Job(given.seed, given.job))
        print(json.dumps({"counts": alone.tally.counts, "losses": alone.tally.losses}, indent=1))
        raise SystemExit(len(alone.tally.losses) > 0)
    found = soak(given.minutes, given.seed)
    found = keep_results(found, given.results / NAME)
    given.page.write_text(page(found), encoding="utf-8")
    print(f"losses: {len(found['losses'])}")
    raise SystemExit(len(found["losses"]) > 0)


if __name__ == "__main__":
    main()
