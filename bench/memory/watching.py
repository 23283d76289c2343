"""A command watched from outside: its answer, its peak, and what it held in each phase."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from sharpzo_edge.process_memory import MIB, sizes_of

SAMPLE_SECONDS = 0.003
WORK_FOLDER = "prompt.safetensors.work"
PHASES = ("imports", "pictures", "image tower", "text tower", "head")

# A fat parent's memory would count for its child until exec: so a small one starts it.
LAUNCHER = """
import os, sys
limit, report, *command = sys.argv[1:]
child = os.fork()
if child == 0:
    if limit:
        open(limit, "w").write(str(os.getpid()))
    os.execv(command[0], command)
print(child, file=sys.stderr, flush=True)
_, status, usage = os.wait4(child, 0)
open(report, "w").write(str(usage.ru_maxrss))
sys.exit(os.waitstatus_to_exitcode(status) & 255)
"""


def watched(command: list[str], folder: Path, procs: Path | None = None) -> dict[str, Any]:
    """Run a command that prints JSON; its answer, its peak, and what it held in each phase.

    The peak is wait4's. What a phase held is seen through /proc; phases begin where the command's lines and
    its work folder (below `folder`) say so.
    """
    report = folder / "maxrss"
    launcher = [sys.executable, "-I", "-S", "-c", LAUNCHER, str(procs or ""), str(report), *command]
    started = time.monotonic()
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_NUM_THREADS"}
    process = subprocess.Popen(
        launcher, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    said, answered = process.stderr, process.stdout
    assert said and answered
    pid = int(said.readline())
    lines: list[str] = []
    answers: list[str] = []
    threads = [
        threading.Thread(target=lambda: lines.extend(said)),
        threading.Thread(target=lambda: answers.append(answered.read())),
    ]
    for thread in threads:
        thread.start()
    largest: dict[str, dict[str, float]] = {}
    phase = PHASES[0]
    while process.poll() is None:
        sample, phase = _status(pid), _phase(phase, folder / WORK_FOLDER, lines)
        if sample and sample["rss"] > largest.get(phase, {"rss": 0.0})["rss"]:
            largest[phase] = sample
        time.sleep(SAMPLE_SECONDS)
    for thread in threads:
        thread.join()
    result = {
        "returncode": process.returncode,
        "said": "".join(lines),
        "peak_mib": int(report.read_text()) / 1024,
        "phases": largest,
        "wall_seconds": time.monotonic() - started,
    }
    if process.returncode == 0:
        result["answer"] = json.loads(answers[0])
    return result


def _phase(phase: str, work: Path, lines: list[str]) -> str:
    """Which phase a tune is in: crops and encoded passes have journals of their own."""
    if phase == "imports":
        return "pictures" if (work / "crops.journal").exists() else phase
    if phase == "pictures":
        return "image tower" if (work / "features.journal").exists() else phase
    if phase == "image tower" and any(re.match(r"encoded [\d,]+ pictures?", line) for line in lines):
        return "text tower"
    if phase == "text tower" and any(re.match(r"stopped: |zero-shot  queries 1  ", line) for line in lines):
        return "head"
    return phase


def _status(pid: int) -> dict[str, float] | None:
    """MiB resident now: all of it, what no file backs, and pages of files."""
    sizes = sizes_of(pid)
    names = {"rss": "VmRSS", "anonymous": "RssAnon", "file": "RssFile"}
    if not sizes.keys() >= set(names.values()):
        return None
    return {name: sizes[each] / MIB for name, each in names.items()}


def floor(folder: Path) -> float:
    """MiB of a process that imports what a tune imports, and ends."""
    code = "import sharpzo_edge.cli, sharpzo_edge.commands.tune; print('{}')"
    return float(watched([sys.executable, "-c", code], folder)["peak_mib"])
