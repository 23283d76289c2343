"""An hour of kills, faults, signals and mutants, on the commands that a user types.

    python bench/soak.py [--minutes 60] [--seed 0] [--job N]

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
import collections
import dataclasses
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
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.machine import ROOT, describe_machine, one_line
from shared.pages import keep_results, markdown_table

TESTS = ROOT / "tests"
RESULTS, PAGE = ROOT / "bench" / "results" / "soak", ROOT / "docs" / "soak.md"
NAME = "soak.json"
WORKERS = 2
MUTANTS_A_READER = 10_000  # in an hour, at least; fewer in proportion in less
MUTANTS_A_JOB = 250
SECONDS_A_COMMAND = 600  # none of them takes a tenth of it
SEEDS_A_RECIPE = 3
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SECONDS_BETWEEN_KILLS, SECONDS_AWAY = 12, 3  # of the processes of a fleet, at most
STRUCK, CALLS = "soak: struck at ", "soak: calls "
DEFECTS = ("Traceback", "Something went wrong that should not")

TINY = "--threads 1 --shots 3 --val 2 --dim 6 --population 4"
PAPER = f"{TINY} --preset paper --change-point 3 --steps 60 --prune-interval 10"
EDGE = f"{TINY} --preset edge --change-point 3 --rank 3 --max-queries 90"
RECIPES = {
    "edge": f"{EDGE} --checkpoint-seconds 0",
    "edge, head, views": f"{EDGE} --head gda --views 3 --checkpoint-seconds 0.05",
    "paper": f"{PAPER} --checkpoint-seconds 0",
    "paper, head": f"{PAPER} --head gda --checkpoint-seconds 0.1",
    "demo": "--threads 1 --preset demo --checkpoint-seconds 0.3",
    "edge, thousands of queries": "--threads 1 --preset edge --max-queries 4000 --patience none "
    "--checkpoint-seconds 1",
    "paper, thousands of queries": "--threads 1 --preset paper --dim 24 --steps 900 --change-point 12 "
    "--population 10 --prune-interval 90 --checkpoint-seconds 1",
}
LONG = "thousands"
STRIKES = ("kill at a moment", "kill at a change", "signal", "fault")
JOBS = ("strikes", "strikes", "mutants", "tiny disk", "fleet")  # by turns


# What befalls a command --------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """What the system answers to a call, once or from then on.

    calls: how the call's name begins, see support.disk.FailingOs; empty: any change of the disk
    is_harmless: the run must go on; otherwise it may also end with one of our errors
    """

    number: int
    calls: str = ""
    lasts: bool = False
    is_harmless: bool = False


OWN_FILES = (
    *("run.json", "machine.json", "pictures.json", "features.npy", "checkpoint.safetensors"),
    *("crops.journal", "features.journal", "prompt"),
)
FAULTS = (  # one of these groups, and one of its faults
    tuple(Fault(number) for number in (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES)),
    (Fault(errno.EINVAL, "fsync a folder", lasts=True, is_harmless=True),),
    (Fault(errno.ENOLCK, "lock", lasts=True, is_harmless=True),),
    (Fault(errno.EBUSY, "replace", is_harmless=True), Fault(errno.EBUSY, "replace", lasts=True)),
    (Fault(errno.EIO, "read a picture"),),
    tuple(Fault(errno.EIO, f"read {name}") for name in OWN_FILES),
)
LEAST_SITES = 4  # of a kind of calls: a run that goes on reads files that an undisturbed one does not


@dataclass(frozen=True)
class Strike:
    """At the site-th of the calls, from 1 on: this fault, or a kill. 0: never."""

    site: int = 0
    fault: Fault | None = None

    @classmethod
    def parse(cls, text: str) -> Strike:
        told = json.loads(text)
        return cls(told["site"], Fault(**told["fault"]) if told["fault"] else None)

    def __str__(self) -> str:
        return json.dumps(dataclasses.asdict(self))


NOTHING = Strike()


# One command -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ended:
    code: int
    error: str
    seconds: float

    @property
    def struck_at(self) -> str | None:
        """The call of the disk that was struck, the last one."""
        lines = [line for line in self.error.splitlines() if line.startswith(STRUCK)]
        return lines[-1].removeprefix(STRUCK) if lines else None


def command(recipe: str, seed: int, output: Path) -> list[str]:
    from sharpzo_edge.demo import BUNDLE, DEFAULT_TASK, TASKS

    return [
        *("tune", "--bundle", str(BUNDLE), "--images", str(TASKS / DEFAULT_TASK / "train")),
        # A picture that cannot be read for a moment would be left out: then the prompt is another one.
        *("--output", str(output), "--seed", str(seed), "--json", "--strict", *RECIPES[recipe].split()),
    ]


def run(
    words: list[str],
    strike: Strike = NOTHING,
    after: float | None = None,
    number: signal.Signals = signal.SIGKILL,
) -> Ended:
    """Type a command; strike at a call of the disk, or with a signal after some seconds."""
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, __file__, "--struck", str(strike), *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    if after is not None:
        timer = threading.Timer(after, process.send_signal, [number])
        timer.start()
    try:
        _, error = process.communicate(timeout=SECONDS_A_COMMAND)
    except subprocess.TimeoutExpired:
        process.kill()
        _, error = process.communicate()
        error += f"\nTraceback: it did not end within {SECONDS_A_COMMAND} s"
    if after is not None:
        timer.cancel()
    return Ended(process.returncode, error, time.monotonic() - started)


def struck(strike: Strike, words: list[str]) -> None:
    """In a process of its own: the command, and what befalls it."""
    from sharpzo_edge import cli
    from support.disk import FailingOs

    fault = strike.fault

    def befalls(what: str) -> None:
        os.write(2, f"{STRUCK}{what}\n".encode())
        if fault is None:
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            raise OSError(fault.number, os.strerror(fault.number))

    calls, lasts = (fault.calls, fault.lasts) if fault else ("", False)
    watched = FailingOs(strike.site or None, befalls, calls, lasts)
    images, output = (Path(words[words.index(option) + 1]) for option in ("--images", "--output"))
    watched.watch(images, output)
    sys.argv = ["sharpzo-edge", *words]
    try:
        cli.main()
    finally:
        os.write(2, f"{CALLS}{json.dumps(watched.counts)}\n".encode())


# What is counted ---------------------------------------------------------------------------------


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
        line = f"{what}. Repeat with: python bench/soak.py --seed {job.seed} --job {job.number}"
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
        from support.readers import READERS

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
        from support.disk import number_of

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
        from sharpzo_edge.errors import SharpzoError
        from sharpzo_edge.run.checkpoint import load_state
        from sharpzo_edge.tuning.loop import State

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
        from support.fleet_processes import Processes

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


# All of them -------------------------------------------------------------------------------------


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


# The page ----------------------------------------------------------------------------------------


def page(found: dict[str, Any]) -> str:
    counts = found["counts"]
    lines = [
        "# An hour of kills, faults and mutants",
        "",
        f"Generated by `make soak` (bench/soak.py says what it does): {found['seconds'] / 60:.0f} minutes, "
        f"seed {found['seed']}, two jobs at a time, on the demo's bundle and pictures. Every run that was "
        f"struck went on with the same command, and had to end with the prompt of an undisturbed run, byte "
        f"for byte.",
        "",
        "A *fault* is a call of the system that is made to fail. A *mutant* is a valid file with some bytes "
        "changed: it must be refused, or read. *Same*: what was read is what the valid file says. "
        "*Resealed*: its checksum was made right again, so that the checksum alone does not refuse it.",
        "",
        one_line(found["machine"]),
        "",
        "| | |",
        "|---|---|",
        f"| kills survived | {found['kills_survived']:,} |",
        f"| signals | {sum(counts.get('signals', {}).values()):,} |",
        f"| faults injected | {found['faults_injected']:,} |",
        f"| mutants tried | {sum(found['mutants_tried'].values()):,} |",
        f"| losses | {len(found['losses'])} |",
        "",
        *(f"- {loss}" for loss in found["losses"]),
        *(f"Skipped: {what} ({why})." for what, why in found["skipped"].items()),
        *_table("Kills, by the stage that the run was in", counts.get("kills", {}), "run"),
        *_table("Kills, by the change of the disk", counts.get("ways to kill", {}), "kill"),
        *_table("Kills in a fleet, by the process", counts.get("kills in a fleet", {}), "process"),
        *_table("Signals", counts.get("signals", {}), "signal"),
        *_table("Faults, by the call that failed", _turned(counts.get("faults", {})), "call"),
        *_table("Disks that were full", counts.get("full disks", {}), "size"),
        *_table("Mutants, by reader and outcome", counts.get("mutants", {}), "reader"),
    ]
    return "\n".join(lines).replace("\n\n\n", "\n\n").rstrip() + "\n"


def _turned(counts: dict[str, int]) -> dict[str, int]:
    """Columns for rows."""
    return {": ".join(reversed(key.split(": ", 1))): n for key, n in counts.items()}


def _table(title: str, counts: dict[str, int], rows_are: str) -> list[str]:
    """Of counts whose keys are `row: column`."""
    if not counts:
        return []
    pairs = [key.split(": ", 1) for key in counts]
    rows, columns = (sorted({pair[i] for pair in pairs}) for i in (0, 1))
    return [
        "",
        f"## {title}",
        "",
        *markdown_table(
            [rows_are, *columns],
            ([row, *(f"{counts.get(f'{row}: {column}', 0):,}" for column in columns)] for row in rows),
        ),
    ]


def main() -> None:
    if sys.argv[1:2] == ["--struck"]:
        struck(Strike.parse(sys.argv[2]), sys.argv[3:])
        return
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
    sys.path.insert(0, str(TESTS))
    main()
