"""What is checked inside an arm64 system, by its own Python and with the wheel that people install.

    python3 job.py JOB.json

JOB.json has the names of the checks and what they need to know. Each check prints one line: MARK, and a Cell
in JSON. This file imports nothing but Python's own library: it is copied into the system.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MARK = "CELL "
HOME = Path.home()
WORK = HOME / "work"
ANSWERS, KEPT_ANSWERS = "answers.py", "answers.npz"  # a script in HOME, and what it said on x86-64
MOST_OFF = 0.01  # of an answer
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage")
GROUP = Path("/sys/fs/cgroup/limited")
GROUP_MIB = 112
ANSWER = ("--memory-budget", "none", "--json")  # what a process holds is the emulator's memory
LOSS_TOLERANCE = 1e-3
DEMO = ("demo", "--seed", "0", "--threads", "1")
SMALL = ("--shots", "3", "--val", "0", "--max-queries", "60", "--change-point", "2", "--threads", "1")
# What a tune imports, and what is resident before any tower: at its peak, after the release, as plans reckon.
FLOOR = """
from sharpzo_edge.process_memory import govern, peak_rss_mib, release_library_pages, rss_mib
govern()
from sharpzo_edge.commands import tune
imports = peak_rss_mib()
release_library_pages()
later = rss_mib()
from sharpzo_edge.clip.sessions import onnxruntime_version
from sharpzo_edge.memory.budget import floor_of
planned = floor_of(onnxruntime_version())
print(imports, later, planned.imports, planned.work)
"""

Done = subprocess.CompletedProcess[str]
Verdict = tuple[bool, str]  # whether what was promised is so, and what was found


@dataclass(frozen=True)
class Job:
    """What is to be checked, and what is told for it.

    checks:    names of checks
    command:   the words that begin a command, such as the path of sharpzo-edge
    package:   the folder of the package
    reference: what the same commands gave on x86-64, and what is expected, by name
    floors:    for each version of onnxruntime the PYTHONPATH that has it
    """

    checks: list[str]
    command: list[str]
    package: str
    reference: dict[str, Any]
    floors: dict[str, str]

    @property
    def bundle(self) -> Path:
        return Path(self.package, "demo/bundle")

    @property
    def tasks(self) -> Path:
        return Path(self.package, "demo/tasks/subgroups")

    def words(self, *words: object) -> list[str]:
        return [*self.command, *map(str, words)]

    def typed(self, *words: object, within: Sequence[str] = ()) -> Done:
        return subprocess.run([*within, *self.words(*words)], capture_output=True, text=True)

    def tune(self, name: str, *options: str) -> list[str]:
        """The words of a small tune into WORK/name."""
        given = ("--bundle", self.bundle, "--images", self.tasks / "train", "--output", WORK / name)
        return self.words("tune", *given, *SMALL, "--json", *options)

    def tuned(self, name: str, *options: str, within: Sequence[str] = ()) -> Done:
        return subprocess.run([*within, *self.tune(name, *options)], capture_output=True, text=True)


@dataclass(frozen=True)
class Cell:
    """check: its name;  kept: whether what was promised is so;  found: in a few words"""

    check: str
    kept: bool
    found: str
    seconds: float = 0.0


def failed(done: Done) -> str:
    return f"exit code {done.returncode}: {(done.stderr or done.stdout).strip()[-300:]}"


# With user emulation ------------------------------------------------------------------------------


def install(job: Job) -> Verdict:
    """The README's line, as it is typed there."""
    done = subprocess.run(["sh", "-c", job.reference["install"]], capture_output=True, text=True, cwd=HOME)
    if done.returncode:
        return False, failed(done)
    version = job.typed("--version").stdout.strip()
    return version == job.reference["version"], f"version {version}"


def doctor(job: Job) -> Verdict:
    done = job.typed("doctor", "--json")
    if done.returncode not in (0, 1):
        return False, failed(done)
    checks = json.loads(done.stdout)["checks"]
    bad = [f"{name}: {check['found']}" for name, check in checks.items() if not check["ok"]]
    found = ", ".join(f"{name} {checks[name]['found']}" for name in ("Python", "onnxruntime", "numpy"))
    return not bad, "; ".join(bad) or found


def zero_shot(job: Job) -> Verdict:
    done = job.typed("eval", "--bundle", job.bundle, "--images", job.tasks / "test", *ANSWER)
    if done.returncode:
        return False, failed(done)
    accuracy, expected = json.loads(done.stdout)["accuracy"], job.reference["zero_shot"]
    return accuracy == expected, f"{accuracy:.4%}, on x86-64 {expected:.4%}"


def answers(job: Job) -> Verdict:
    """Class features and tangents, beside x86-64's."""
    python = Path(job.command[0]).with_name("python")
    compare = (python, HOME / ANSWERS, "compare", HOME / KEPT_ANSWERS)
    done = subprocess.run([*map(str, compare)], capture_output=True, text=True)
    if done.returncode:
        return False, failed(done)
    off = json.loads(done.stdout)
    found = ", ".join(f"{name} {value:.1e}" for name, value in off.items())
    return max(off.values()) < MOST_OFF, f"off x86-64's by {found}"


def tune(job: Job) -> Verdict:
    done = job.tuned("short", *ANSWER[:2])
    if done.returncode:
        return False, failed(done)
    loss, expected = json.loads(done.stdout)["train_loss"], job.reference["loss"]
    return abs(loss - expected) < LOSS_TOLERANCE, f"loss {loss:.6f}, on x86-64 {expected:.6f}"


def predict(job: Job) -> Verdict:
    picture = job.tasks / job.reference["picture"]
    done = job.typed("predict", "--bundle", job.bundle, "--prompt", WORK / "short", *ANSWER, picture)
    if done.returncode:
        return False, failed(done)
    (found,) = json.loads(done.stdout)["predictions"]
    label, expected = found["labels"][0], job.reference["label"]
    return label == expected, f"{label}, on x86-64 {expected}"


def demo(job: Job) -> Verdict:
    done = job.typed(*DEMO, *ANSWER)
    if done.returncode:
        return False, failed(done)
    by, before = json.loads(done.stdout)["by"], job.reference["demo"]
    found = ", ".join(f"{name} {by[name]:.1%} ({before[name]:.1%})" for name in ("words", "prompt", "head"))
    return by["words"] == before["words"] and by["head"] > by["words"], f"{found}; x86-64's in brackets"


# On a booted kernel ------------------------------------------------------------------------------


def within_plan(done: Done, budget_mib: float) -> Verdict:
    if done.returncode:
        return False, failed(done)
    result = json.loads(done.stdout)
    peak, planned = result["peak_rss_mib"], result["plan"]["peak_mib"]
    modes = f"image {result['plan']['image']['mode']}, text {result['plan']['text']['mode']}"
    found = f"peak {peak:.1f} MiB, plan {planned:.1f}, limit {budget_mib:.0f}; {modes}"
    return peak <= planned <= budget_mib, found


def kernel(job: Job) -> Verdict:
    """That it is the one that was meant."""
    system, kib = os.uname(), os.sysconf("SC_PAGE_SIZE") >> 10
    mib = os.sysconf("SC_PHYS_PAGES") * kib >> 10
    return kib == job.reference["pages"], f"{system.sysname} {system.release}, pages of {kib} KiB, {mib} MiB"


def set_huge_pages(setting: str) -> None:
    """For huge pages of all sizes that the kernel has."""
    for size in HUGE_PAGES.glob("hugepages-*/enabled"):
        size.write_text("inherit")
    (HUGE_PAGES / "enabled").write_text(setting)


def with_huge_pages(setting: str) -> Callable[[Job], Verdict]:
    def check(job: Job) -> Verdict:
        set_huge_pages(setting)
        return within_plan(job.tuned(f"huge-{setting}", "--memory-budget", "128MiB"), 128)

    return check


def smallest(job: Job) -> Verdict:
    """The smallest budget that the command itself names, where huge pages are given to everybody."""
    set_huge_pages("always")
    refused = job.tuned("smallest", "--memory-budget", "1MiB")
    named = re.search(r"--memory-budget (\d+)MiB$", refused.stderr.strip())
    if refused.returncode != 3 or not named:
        return False, failed(refused)
    return within_plan(job.tuned("smallest", "--memory-budget", f"{named[1]}MiB"), float(named[1]))


def resume(job: Job) -> Verdict:
    """Kill it when the run is under way; the same command must end with the same bytes."""
    whole = job.tuned("whole")
    if whole.returncode:
        return False, failed(whole)
    saving = ("--checkpoint-seconds", "0")
    process = subprocess.Popen(job.tune("killed", *saving), stdout=subprocess.DEVNULL)
    checkpoint = WORK / "killed.work/checkpoint.safetensors"
    while process.poll() is None and not checkpoint.exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    killed = process.wait() == -signal.SIGKILL
    again = job.tuned("killed", *saving)
    if again.returncode:
        return False, failed(again)
    went_on = "going on after" in again.stderr
    same = (WORK / "killed").read_bytes() == (WORK / "whole").read_bytes()
    return killed and went_on and same, f"killed {killed}, went on {went_on}, same bytes {same}"


def limited(job: Job) -> Verdict:
    """In a control group with a limit on all its memory, and no limit asked for."""
    if not (GROUP.parent / "cgroup.controllers").exists():
        subprocess.run(["mount", "-t", "cgroup2", "cgroup2", str(GROUP.parent)], check=True)
    (GROUP.parent / "cgroup.subtree_control").write_text("+memory")
    GROUP.mkdir(exist_ok=True)
    (GROUP / "memory.max").write_text(f"{GROUP_MIB}M")
    join = ("sh", "-c", f'echo $$ >{GROUP}/cgroup.procs && exec "$@"', "sh")
    done = job.tuned("limited", "--memory-budget", "none", within=join)
    events = dict(line.split() for line in (GROUP / "memory.events").read_text().splitlines())
    kept, found = within_plan(done, GROUP_MIB)
    return kept and events["oom_kill"] == "0", f"{found}; {events['oom_kill']} kills for lack of memory"


def floor(job: Job) -> Verdict:
    """What is resident before the work, with a cold and a warm page cache: the most of each.

    It must be within what plans reckon with on such a kernel.
    """
    found, kept = [], True
    for version, path in job.floors.items():
        seen = []
        for cold in (True, False):
            if cold:
                Path("/proc/sys/vm/drop_caches").write_text("3")
            environment = os.environ | {"PYTHONPATH": path}
            measure = [sys.executable, "-c", FLOOR]
            done = subprocess.run(measure, capture_output=True, text=True, env=environment)
            if done.returncode:
                return False, failed(done)
            seen.append(tuple(map(float, done.stdout.split())))
        imports, work, *planned = (max(figures) for figures in zip(*seen, strict=True))
        kept = kept and imports <= planned[0] and work <= planned[1]
        found.append(
            f"onnxruntime {version}: {imports:.1f} MiB at the end of the imports, {work:.1f} later; "
            f"plans reckon with {planned[0]:.0f} and {planned[1]:.0f}"
        )
    return kept, "; ".join(found)


CHECKS: dict[str, Callable[[Job], Verdict]] = {
    "install": install,
    "doctor": doctor,
    "zero-shot": zero_shot,
    "answers": answers,
    "tune": tune,
    "predict": predict,
    "demo": demo,
    "kernel": kernel,
    "huge pages always": with_huge_pages("always"),
    "huge pages madvise": with_huge_pages("madvise"),
    "huge pages never": with_huge_pages("never"),
    "smallest budget": smallest,
    "kill and resume": resume,
    "memory limit": limited,
    "floor": floor,
}


def main() -> None:
    told = json.loads(Path(sys.argv[1]).read_text())
    job = Job(**told)
    WORK.mkdir(exist_ok=True)
    for name in job.checks:
        started = time.monotonic()
        try:
            kept, found = CHECKS[name](job)
        except Exception as error:  # a check that breaks is a promise that is not shown to be kept
            kept, found = False, f"{type(error).__name__}: {error}"
        cell = Cell(name, kept, found, round(time.monotonic() - started, 1))
        print(f"{MARK}{json.dumps(dataclasses.asdict(cell))}", flush=True)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()
