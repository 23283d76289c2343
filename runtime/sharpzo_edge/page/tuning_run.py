"""The run: `tune` as the command line runs it, in a child process, begun and stopped from the page.

Its state is read from the disk each time: it may have been begun elsewhere, or before this page.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import SharpzoError, UsageError
from ..process_memory import MIB, sizes_of
from ..run.files import read_checked_json
from ..run.folder import WorkFolder
from .children import PACKAGE, start
from .choices import Choices
from .labels import Labels
from .run_log import RunLog

STOP_SECONDS = 20.0  # until a run that was asked to stop is no longer waited for
LONGEST_LINE = 1 << 20
State = Literal["none", "running", "interrupted", "finished"]


@dataclass(frozen=True)
class Figures:
    """What the system tells of the run's process. None where it does not."""

    rss_mib: float | None
    peak_rss_mib: float | None


class TuningRun:
    """The run into one output. bundle, output, budget, threads: as after tune's options of those names."""

    def __init__(self, bundle: Path, labels: Labels, output: Path, budget: str, threads: int):
        self._labels, self.output = labels, output
        self._places = ["--bundle", bundle, "--images", labels.root, "--output", output]
        self._limits = ["--memory-budget", budget, "--threads", str(threads)]
        self._work = WorkFolder.of(output)
        self._process: Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._planning = asyncio.Lock()  # it takes what memory a run takes: one at a time
        self.log = RunLog(self._work.log)
        self.status = ""  # the last line that the run has printed
        self.error = ""  # of the last run that ended with one

    def command(self, choices: Choices, *more: str) -> list[str]:
        """What somebody would type to have the same."""
        words = ["--class-names", self._labels.words_file] if self._labels.words_file.exists() else []
        return ["tune", *map(str, [*self._places, *words]), *choices.options, *self._limits, *more]

    @property
    def state(self) -> State:
        if self.pid is not None:
            return "running"
        record = read_checked_json(self._work.record)
        if not isinstance(record, dict):
            return "none"
        if record.get("result") is None:
            return "interrupted"
        return "finished" if self.output.exists() else "none"

    @property
    def result(self) -> dict[str, Any] | None:
        """What `tune --json` printed at the end of the last finished run."""
        record = read_checked_json(self._work.record)
        found = record.get("result") if isinstance(record, dict) else None
        return found if isinstance(found, dict) else None

    @property
    def pid(self) -> int | None:
        """Of the process that works on the output, whoever began it."""
        if self._process and self._process.returncode is None:
            return self._process.pid
        return _holder_of(self._work.path / "lock")

    @property
    def figures(self) -> Figures:
        sizes = {} if (pid := self.pid) is None else sizes_of(pid)
        rss, peak = (sizes[name] / MIB if name in sizes else None for name in ("VmRSS", "VmHWM"))
        return Figures(rss, peak)

    async def plan(self, choices: Choices) -> dict[str, Any]:
        """What `tune --plan --json` says. Raises UsageError with its own words when it refuses."""
        async with self._planning:
            process = await self._started([*self.command(choices), "--plan", "--json"])
            out, _ = await process.communicate()
        return _answer(out)

    async def start(self, choices: Choices, again: bool = False) -> None:
        """Begin a run, or go on with one. again: start over, and replace the prompt.

        Raises UsageError while another one works on the output.
        """
        if self.pid is not None:
            raise UsageError(
                "A run is at work on this prompt already. One at a time may tune into a file. Try "
                "again when it has ended, or stop it"
            )
        self._labels.tidy_words()
        self.error, self.status = "", ""
        more = ["--restart", "--keep-features"] * again
        self._process = await self._started([*self.command(choices, *more), "--json"])
        self._reader = asyncio.create_task(self._follow(self._process))

    async def stop(self) -> None:
        """Ask the run to save and end, and wait until it has."""
        pid = self.pid
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await self.ended()
                while self.pid is not None:
                    await asyncio.sleep(0.1)

    async def ended(self) -> None:
        """Wait for the end of the run that this page began, if it did, and of what it prints."""
        if self._reader:
            await asyncio.shield(self._reader)

    async def _started(self, words: Sequence[str]) -> Process:
        return await start(PACKAGE.name, *words, stdin=DEVNULL, limit=LONGEST_LINE)

    async def _follow(self, process: Process) -> None:
        """Keep the last line that the run prints, and its error if it ends with one."""
        assert process.stdout and process.stderr  # both are pipes
        reading = asyncio.create_task(process.stdout.read())
        while line := await process.stderr.readline():
            self.status = line.decode(errors="replace").strip()
        out = await reading
        code = await process.wait()
        if code:
            try:
                _answer(out)
            except SharpzoError as error:
                self.error = "" if code == 128 + signal.SIGTERM else str(error)


def _answer(out: bytes) -> dict[str, Any]:
    """The one JSON object that a command prints. Raises UsageError for an error's."""
    try:
        found = json.loads(out)
        error = found.get("error")
    except (ValueError, AttributeError):
        found, error = {}, {"message": ""}
    if error:
        raise UsageError(
            error.get("message")
            or "The run ended without a word: the system may have ended it for lack of memory. It may take "
            "what --memory-budget says. Stop other programs, and go on"
        )
    return found  # type: ignore[no-any-return]


def _holder_of(lock: Path) -> int | None:
    """The process that holds a lock, as Linux lists them. A look, which cannot get into anybody's way."""
    try:
        found = lock.stat()
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return None
    wanted = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    for line in lines:
        words = line.split()
        if "FLOCK" in words and wanted in words and "->" not in words:
            pid = words[words.index(wanted) - 1]
            return int(pid) if pid.isdigit() and int(pid) > 0 else None
    return None
