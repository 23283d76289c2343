"""No file from elsewhere leads to a traceback, a hang, a crash or more memory; the soak tries thousands."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from sharpzo_edge.errors import SharpzoError
from support import mutants, readers
from support.processes import finish

COUNT = 100


@pytest.mark.parametrize("name", readers.READERS)
def test_a_mutant_is_read_or_refused(name: str, tmp_path: Path) -> None:
    outcomes = tried(name, COUNT, tmp_path)
    assert outcomes["defects"] == []
    assert sum(outcomes["counts"].values()) == COUNT


def tried(name: str, count: int, folder: Path) -> dict:
    """In a process of its own, which is forked and so must not have run a tower."""
    command = [sys.executable, "-m", "support.mutants", name, 0, 0, count]
    return json.loads(finish(command, TMPDIR=str(folder), OPENBLAS_NUM_THREADS="1").stdout)


# What the watch must see.


def run_on(read: object) -> mutants.Outcomes:
    reader = mutants.Reader(b"valid", lambda data, rng: b"1234"[rng.randrange(4) :], read)  # type: ignore[arg-type]
    return mutants.try_mutants(reader, "x", 0, 0, 30)


def misbehaving(data: bytes) -> str:
    if data == b"1234":
        raise SharpzoError("no")
    if data == b"234":
        raise ZeroDivisionError("by nought")
    if data == b"34":
        os.kill(os.getpid(), 9)
    if data == b"4":
        time.sleep(60)
    return "value"


def test_the_watch_sees_errors_crashes_and_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutants, "SECONDS", 0.1)
    outcomes = run_on(misbehaving)
    assert outcomes.counts.keys() == {"refused", "ZeroDivisionError", "crash", "hang"}
    assert sum(outcomes.counts.values()) == 30
    assert len(outcomes.defects) == 30 - outcomes.counts["refused"]
    assert any("x 0" in defect and "by nought (test_mutants.py:" in defect for defect in outcomes.defects)


def test_the_watch_sees_memory_and_wrong_values() -> None:
    outcomes = run_on(lambda data: len(b"x" * (97 << 20) if data == b"4" else data))
    assert outcomes.counts.keys() == {"memory", "read"}
    covered = mutants.Reader(b"valid", lambda data, rng: b"other", lambda data: data, is_covered=True)
    assert mutants.try_mutants(covered, "x", 0, 0, 2).counts == {"wrong": 2}
