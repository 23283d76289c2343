"""The commands that are struck, and what befalls one: a kill, a signal, an error of the system.

python -m soak.commands STRIKE tune …    with tests/ in PYTHONPATH
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

SECONDS_A_COMMAND = 600  # none of them takes a tenth of it
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
STRUCK, CALLS = "soak: struck at ", "soak: calls "


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
        [sys.executable, "-m", __spec__.name, str(strike), *words],
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


if __name__ == "__main__":
    struck(Strike.parse(sys.argv[1]), sys.argv[2:])
