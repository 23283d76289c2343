"""The jobs: runs that are struck, a disk that is too small, a fleet, mutants; and what is counted."""

from __future__ import annotations

import collections
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from shared.machine import ROOT
from sharpzo_edge.errors import SharpzoError
from sharpzo_edge.run.checkpoint import load_state
from sharpzo_edge.tuning.loop import State
from support.disk import number_of
from support.fleet_processes import Processes
from support.readers import READERS

from .commands import (
    CALLS,
    FAULTS,
    LONG,
    RECIPES,
    SECONDS_A_COMMAND,
    Ended,
    Strike,
    command,
    run,
)

TESTS = ROOT / "tests"
MUTANTS_A_JOB = 250
SEEDS_A_RECIPE = 3
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SECONDS_BETWEEN_KILLS, SECONDS_AWAY = 12, 3  # of the processes of a fleet, at most
LEAST_SITES = 4  # of a kind of calls: a run that goes on reads files that an undisturbed one does not
DEFECTS = ("Traceback", "Something went wrong that should not")
STRIKES = ("kill at a moment", "kill at a change", "signal", "fault")
JOBS = ("strikes", "strikes", "mutants", "tiny disk", "fleet")  # by turns


@dataclass
class Tally:
    """Counts of one soak; shared by the jobs."""

    counts: dict[str, collections.Counter[str]] = field(
        default_factory=lambda: collections.defaultdict(collections.Counter)
    )
    losses: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    most_mib: dict[str, float] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, table: str, what: str, n: int = 1) -> None:
        with self.lock:
            self.counts[table][what] += n

    def lose(self, job: Job, what: str) -> None:
        """A loss, and how to see it again."""
        again = f"PYTHONPATH=bench:tests python -m soak.run --seed {job.seed} --job {job.number}"
        line = f"{what}. Repeat with: {again}"
        with self.lock:
            self.losses.append(line)
        print(f"LOSS: {line}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Job:
    seed: int
    number: int

    @property
    def rng(self) -> random.Random:
        return random.Random(f"{self.seed} {self.number}")

    @property
    def kind(self) -> str:
        return JOBS[self.number % len(JOBS)]


@dataclass(frozen=True)
class Reference:
    """A run that nothing struck."""

    prompt: bytes
    seconds: float
    calls: dict[str, int]


class Soak:
    def __init__(self, seed: int, folder: Path):
        self.seed = seed
        self.tally = Tally()
        self.readers = list(READERS)
        self._folder = folder
        self._references: dict[tuple[str, int], Reference] = {}
        self._locks: dict[tuple[str, int], threading.Lock] = collections.defaultdict(threading.Lock)

    def do(self, job: Job) -> None:
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        try:
            {
                "strikes": self._strikes,
                "mutants": self._mutants,
                "tiny disk": self._tiny_disk,
                "fleet": self._fleet,
            }[job.kind](job, folder)
        except Exception as error:  # of the soak itself: not to be taken for none
            self.tally.lose(job, f"the soak failed: {type(error).__name__}: {error}")
        shutil.rmtree(folder, ignore_errors=True)

    def mutants_tried(self, name: str) -> int:
        return sum(n for what, n in self.tally.counts["mutants"].items() if what.split(": ")[0] == name)

    def _reference(self, recipe: str, seed: int) -> Reference:
        key = recipe, seed
        with self._locks[key]:
            if key not in self._references:
                output = self._folder / f"{len(self._references)}-{os.urandom(4).hex()}"
                ended = run(command(recipe, seed, output))
                if ended.code:
                    raise RuntimeError(f"{recipe} ended with {ended.code} unstruck: {ended.error[-500:]}")
                calls = json.loads(ended.error.split(CALLS)[1].splitlines()[0])
                self._references[key] = Reference(output.read_bytes(), ended.seconds, calls)
            return self._references[key]

    def _strikes(self, job: Job, folder: Path) -> None:
        """One run, struck some times; at last it goes on undisturbed, and then repeats its result."""
        rng = job.rng
        recipe, seed = rng.choice(list(RECIPES)), rng.randrange(SEEDS_A_RECIPE)
        whole = self._reference(recipe, seed)
        output = folder / "prompt"
        words = command(recipe, seed, output)
        for _ in range(rng.randint(3, 8) if LONG in recipe else rng.randint(1, 4)):
            self._strike(job, rng, recipe, words, whole, folder)
        self._must_end_well(job, recipe, words, output, whole)

    def _strike(
        self, job: Job, rng: random.Random, recipe: str, words: list[str], whole: Reference, folder: Path
    ) -> None:
        strike, fault = rng.choice(STRIKES), None
        moment, site = rng.uniform(0, whole.seconds), rng.randint(1, number_of(whole.calls))
        if strike == "kill at a moment":
            ended = run(words, after=moment)
            expected = [-signal.SIGKILL]
        elif strike == "kill at a change":
            ended = run(words, Strike(site))
            expected = [-signal.SIGKILL]
        elif strike == "signal":
            caught = rng.choice(SIGNALS)
            ended = run(words, after=moment, number=caught)
            # Before our handler stands, the system's own way to end.
            expected = [128 + caught, -caught]
        else:
            fault = rng.choice(rng.choice(FAULTS))
            if fault.calls:
                n_calls = number_of(whole.calls, fault.calls)
                site = rng.randint(1, n_calls if fault.is_harmless else max(n_calls, LEAST_SITES))
            ended = run(words, Strike(site, fault))
            expected = [] if fault.is_harmless else [1, 2]
        stage = self._stage(job, folder)
        if ended.code == 0:
            self.tally.add("ended before it was struck" if ended.struck_at is None else "went on", recipe)
        elif ended.code not in expected or self._is_defect(ended, strike):
            self.tally.lose(job, f"{recipe}, {strike}, ended with {ended.code}: {ended.error[-600:]}")
        if strike.startswith("kill") and ended.code:
            self.tally.add("kills", f"{recipe}: {stage}")
            self.tally.add("ways to kill", f"{strike}: {(ended.struck_at or 'any').split(' ')[0]}")
        elif strike == "signal" and ended.code:
            self.tally.add("signals", f"{caught.name}: {stage}")
        elif fault and ended.struck_at:
            self.tally.add("faults", f"{errno.errorcode[fault.number]}: {ended.struck_at}")

    def _is_defect(self, ended: Ended, strike: str) -> bool:
        early = strike == "signal" and ended.code < 0
        return any(word in ended.error for word in DEFECTS) and not early

    def _stage(self, job: Job, folder: Path) -> str:
        """How far the run had come; its checkpoint must be readable at any moment."""
        if (folder / "prompt").exists():
            return "at the end"
        try:
            loaded = load_state(folder / "prompt.work" / "checkpoint.safetensors", State)
        except SharpzoError as error:
            self.tally.lose(job, f"the checkpoint is lost: {error}")
            return "lost"
        if loaded:
            return f"stage {min(2, loaded[0].stage)}"
        return "pictures, or before the first checkpoint" if (folder / "prompt.work").exists() else "start"

    def _must_end_well(self, job: Job, recipe: str, words: list[str], output: Path, whole: Reference) -> None:
        for again in ("goes on", "repeats"):
            ended = run(words)
            if ended.code or self._is_defect(ended, ""):
                self.tally.lose(job, f"{recipe} {again}, ended with {ended.code}: {ended.error[-600:]}")
                return
            if output.read_bytes() != whole.prompt:
                self.tally.lose(job, f"{recipe} {again}: another prompt than without strikes")
                return
        if left := [p.name for p in output.parent.rglob(".*.part")]:
            self.tally.lose(job, f"{recipe}: files are left behind: {left}")
        self.tally.add("runs that ended byte for byte the same", recipe)

    def _tiny_disk(self, job: Job, folder: Path) -> None:
        """The output on a disk that is full somewhere on the way, and then has room again."""
        rng = job.rng
        recipe, seed = rng.choice([r for r in RECIPES if LONG not in r]), rng.randrange(SEEDS_A_RECIPE)
        whole = self._reference(recipe, seed)
        disk = folder / "disk"
        disk.mkdir()
        kib = rng.choice((4, 16, 64, 128, 256, 400, 600))
        with mounted(disk, kib) as refused:
            if refused:
                self.tally.skipped["tiny disk"] = refused
                return
            words = command(recipe, seed, disk / "prompt")
            ended = run(words)
            if ended.code not in (0, 1, 2) or self._is_defect(ended, ""):
                self.tally.lose(job, f"{recipe} on {kib} KiB ended with {ended.code}: {ended.error[-600:]}")
            if ended.code:
                self.tally.add("full disks", f"{kib} KiB: {self._stage(job, disk)}")
            subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
            self._must_end_well(job, recipe, words, disk / "prompt", whole)

    def _fleet(self, job: Job, folder: Path) -> None:
        """A run of a fleet, whose processes are killed and started again; it must end with all members."""
        rng = job.rng
        with Processes(folder) as fleet:
            fleet.start_driver()
            for _ in range(rng.randint(1, 4)):
                name = rng.choice([*fleet.running])
                time.sleep(rng.uniform(0, SECONDS_BETWEEN_KILLS))
                if fleet.running["driver"].poll() is not None:
                    break
                stage = "later" if fleet.evaluations() else "before the first evaluation"
                fleet.kill(name)
                time.sleep(rng.uniform(0, SECONDS_AWAY))
                fleet.start_again(name)
                self.tally.add("kills in a fleet", f"{name}: {stage}")
            driver = fleet.running["driver"]
            printed, _ = driver.communicate(timeout=SECONDS_A_COMMAND)
            members = json.loads(printed).get("members", []) if driver.returncode == 0 else []
            if [member["counted"] for member in members] != [True, True]:
                told = fleet.log("driver")[-600:]
                self.tally.lose(job, f"a fleet ended with {driver.returncode}, {members}: {told}")

    def _mutants(self, job: Job, folder: Path) -> None:
        """Of the reader whose turn it is; no two jobs try the same ones."""
        name = self.readers[job.number // len(JOBS) % len(self.readers)]
        self.try_mutants(job, name, job.number * MUTANTS_A_JOB, folder)

    def try_mutants(self, job: Job, name: str, first: int, folder: Path) -> None:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "support.mutants", name),
                *map(str, (self.seed, first, MUTANTS_A_JOB)),
            ],
            capture_output=True,
            text=True,
            cwd=TESTS,
            env=os.environ | {"TMPDIR": str(folder)},
        )
        if done.returncode:
            raise RuntimeError(f"mutants of {name}: {done.stderr[-600:]}")
        outcomes = json.loads(done.stdout)
        for what, n in outcomes["counts"].items():
            self.tally.add("mutants", f"{name}: {what}", n)
        with self.tally.lock:
            self.tally.most_mib[name] = max(self.tally.most_mib.get(name, 0.0), outcomes["peak_mib"])
        for defect in outcomes["defects"]:
            self.tally.lose(job, f"support.mutants {defect}")


@contextmanager
def mounted(folder: Path, kib: int) -> Iterator[str]:
    """A tmpfs of so many KiB; yields why there is none, or nothing."""
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder)], capture_output=True, text=True
    )
    try:
        yield done.stderr.strip() if done.returncode else ""
    finally:
        if not done.returncode:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
