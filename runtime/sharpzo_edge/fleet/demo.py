"""`fleet demo`: a scheduler and some members on this machine, with disjoint parts of the demo's pictures."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..commands.evaluate import evaluate
from ..commands.tune import tune_or_repeat
from ..demo import BUNDLE, DEFAULT_TASK, TASKS
from ..errors import SharpzoError, UsageError
from ..requests import FleetDemoRequest, FleetTuneRequest, TuneRequest
from ..run.progress import caller_of
from .pooled import Pooled
from .tune import fleet_tune

SHOTS, VAL = 16, 4  # of the demo, which the members share
MOST_MEMBERS = 16
WAIT_SECONDS = 120.0  # all processes start at once, and share this machine's cores
END_SECONDS = 15
Say = Callable[[str], None]


@dataclass(frozen=True)
class FleetDemoResult:
    """What the fleet has reached, and all pictures in one place.

    accuracy, pooled_accuracy: on pictures held out of everything
    queries, seconds, bytes:   of the fleet's run
    """

    members: int
    accuracy: float
    pooled_accuracy: float
    train_loss: float
    pooled_train_loss: float
    queries: int
    seconds: float
    bytes: int
    round_trips: int

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def fleet_demo(request: FleetDemoRequest) -> FleetDemoResult:
    """Works in a temporary folder, which it removes. Raises UsageError for too few or too many members."""
    if not 1 <= request.members <= MOST_MEMBERS:
        raise UsageError(
            f"--members {request.members} is no number of members for the demo's pictures. It takes 1 to "
            f"{MOST_MEMBERS}. Try --members 3"
        )
    caller, n = caller_of(request.on_progress, request.stop), request.members

    def tell(text: str) -> None:
        if not caller.wants_to_stop:  # Ctrl+C ends all of its processes
            caller.say(text)

    with tempfile.TemporaryDirectory(prefix="sharpzo-edge-fleet-") as temporary:
        folder = Path(temporary)
        parts = _divided(TASKS / DEFAULT_TASK / "train", folder, n)
        options: dict[str, Any] = {
            "bundle": BUNDLE,
            "preset": "demo",
            "shots": max(1, SHOTS // n),
            "val": -(-VAL // n),
            "seed": request.seed,
            "on_progress": request.on_progress,
            "stop": request.stop,
        }
        caller.say(f"a scheduler and {n} members are started on this machine")
        with scheduler_beside(folder, tell) as address, contextlib.ExitStack() as members:
            for part in parts:
                members.enter_context(member_beside(part, BUNDLE, address, say=tell))
            prompt = folder / "fleet.safetensors"
            of_fleet, _ = fleet_tune(
                FleetTuneRequest(
                    output=prompt, scheduler=address, members=n, wait_seconds=WAIT_SECONDS, **options
                )
            )
        caller.say("the same pictures, all in one place")
        pooled_prompt = folder / "pooled.safetensors"
        pooled, _ = tune_or_repeat(
            TuneRequest(images=parts[0], output=pooled_prompt, threads=1, **options), Pooled(parts)
        )
        test = TASKS / DEFAULT_TASK / "test"
        accuracy, pooled_accuracy = (
            evaluate(BUNDLE, test, prompt=file, threads=1, on_progress=request.on_progress).accuracy
            for file in (prompt, pooled_prompt)
        )
    return FleetDemoResult(
        members=n,
        accuracy=accuracy,
        pooled_accuracy=pooled_accuracy,
        train_loss=of_fleet.tuned.train_loss,
        pooled_train_loss=pooled.train_loss,
        queries=of_fleet.tuned.queries,
        seconds=of_fleet.tuned.seconds,
        bytes=of_fleet.bytes,
        round_trips=of_fleet.round_trips,
    )


def _divided(train: Path, folder: Path, n: int) -> list[Path]:
    """Folders of disjoint pictures, one a member; the pictures of every class are dealt out in turn."""
    parts = [folder / f"board-{i + 1}" for i in range(n)]
    for of_class in sorted(train.iterdir()):
        for part in parts:
            (part / of_class.name).mkdir(parents=True)
        for i, file in enumerate(sorted(of_class.iterdir())):
            shutil.copy(file, parts[i % n] / of_class.name)
    return parts


@contextlib.contextmanager
def scheduler_beside(folder: Path, say: Say) -> Iterator[str]:
    """A scheduler in its own process until the block ends; its log is in `folder`. Yields its address.

    say: is told when it has ended before
    """
    with _command(folder / "scheduler.log", "scheduler", "--port", "0", "--json", say=say) as process:
        assert process.stdout
        line = process.stdout.readline()
        if not line:
            raise SharpzoError(
                "The demo's scheduler has ended before it listened. It must be able to listen on 127.0.0.1. "
                "Type, to see why: sharpzo-edge fleet scheduler"
            )
        address: str = json.loads(line)["address"]
        yield address


def member_beside(
    images: Path, bundle: Path, address: str, *options: str, say: Say
) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    """The same of a member; its log is beside its pictures."""
    given = ("--images", str(images), "--bundle", str(bundle), "--scheduler", address)
    log = images.with_name(f"{images.name}.log")
    return _command(log, "member", *given, "--name", images.name, "--threads", "1", *options, say=say)


@contextlib.contextmanager
def _command(log: Path, *arguments: str, say: Say) -> Iterator[subprocess.Popen[str]]:
    """A command of the fleet in a process of its own, until the block ends. log: what it tells"""
    with log.open("w") as told:
        process = subprocess.Popen(
            [sys.executable, "-m", "sharpzo_edge", "fleet", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=told,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            text=True,
        )
    try:
        yield process
    finally:
        if process.poll() is not None:
            _, _, last = log.read_text(errors="replace").strip().rpartition("\n")
            say(f"{log.stem} has ended by itself, with exit code {process.returncode}: {last}")
        process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()
