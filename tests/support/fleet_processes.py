"""A fleet of processes, encrypted, on the demo's pictures: any of them may be killed and started again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from sharpzo_edge.demo import BUNDLE
from sharpzo_edge.fleet.certificates import make_certificates
from support.fleet import dealt
from support.processes import ORIGINAL, PATHS, clean

RUN = ["--preset", "edge", "--shots", "2", "--val", "1", "--dim", "16", "--rank", "4", "--population", "4"]
RUN += ["--change-point", "2", "--tangents", "fp32", "--max-queries", "320", "--patience", "none"]
LONGEST = 120  # seconds, on a machine with other work


class Processes:
    """A scheduler, two members and a driver, by their names. A context manager, without the driver."""

    def __init__(self, folder: Path):
        self.folder, self.certificates = folder, folder / "certificates"
        self.running: dict[str, subprocess.Popen[str]] = {}
        make_certificates(self.certificates)
        self.parts = {part.name: part for part in dealt(folder, [[4] * 10, [3] * 10])}
        self.port = "0"

    @property
    def scheduler(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self, name: str, *arguments: str) -> subprocess.Popen[str]:
        trust = ("--certificates", str(self.certificates))
        with (self.folder / f"{name}.log").open("a") as log:
            self.running[name] = process = subprocess.Popen(
                [sys.executable, "-m", "sharpzo_edge", "fleet", *arguments, *trust],
                stdout=subprocess.PIPE,
                stderr=log,
                env=clean(ORIGINAL) | {"PYTHONPATH": os.pathsep.join(PATHS)},
                text=True,
            )
        return process

    def start_scheduler(self) -> None:
        process = self.start("scheduler", "scheduler", "--port", self.port, "--json")
        assert process.stdout
        self.port = json.loads(process.stdout.readline())["address"].rpartition(":")[2]

    def start_member(self, name: str) -> None:
        where = ("--images", str(self.parts[name]), "--bundle", str(BUNDLE), "--scheduler", self.scheduler)
        self.start(name, "member", *where, "--name", name, "--threads", "1")

    def start_driver(self) -> subprocess.Popen[str]:
        given = ("--scheduler", self.scheduler, "--bundle", str(BUNDLE), "--output", str(self.output))
        options = (*RUN, "--members", "2", "--checkpoint-seconds", "0", "--wait-seconds", str(LONGEST))
        return self.start("driver", "tune", *given, *options, "--json")

    def start_again(self, name: str) -> None:
        """One that was killed."""
        if name == "scheduler":
            self.start_scheduler()
        elif name == "driver":
            self.start_driver()
        else:
            self.start_member(name)

    @property
    def output(self) -> Path:
        return self.folder / "prompt.safetensors"

    def kill(self, name: str) -> None:
        process = self.running.pop(name)
        process.send_signal(signal.SIGKILL)
        process.communicate()

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def evaluations(self) -> int:
        log = Path(f"{self.output}.work") / "log.jsonl"
        text = log.read_text() if log.exists() else ""
        return text.count('{"event": "look"')

    def wait_for(self, is_so: Callable[[], bool], what: str) -> None:
        begun = time.monotonic()
        while not is_so():
            assert time.monotonic() - begun < LONGEST, f"no {what}; the driver said: {self.log('driver')}"
            time.sleep(0.05)

    def __enter__(self) -> Self:
        self.start_scheduler()
        for name in self.parts:
            self.start_member(name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in [*self.running]:
            with contextlib.suppress(OSError):
                self.kill(name)
