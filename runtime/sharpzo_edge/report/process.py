"""The child process that makes a report: Jinja2 and pictures stay out of the process that asks for it.

It decodes one picture after another, within what the memory budget leaves. Its job comes on standard input.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import SharpzoError, UsageError
from ..libraries import without_extra
from ..run.progress import Caller
from .data import Report

SECONDS = 600  # after which it is ended
ASK_SECONDS = 0.2  # between two looks whether the caller wants to stop
PROCESS_MIB = 50  # of the child beside what it decodes: measured, for 20,000 pictures in 1,000 classes
MARK = b"<!doctype html>\n<!-- A report of sharpzo-edge."  # how a report begins
PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Job:
    """What a child makes a report of.

    target: the file to write;  images: the folder of the pictures in it
    decoding_bytes: the most that decoding one of them may take
    tuned:  the output of a tune, whose work folder has all else; None: `report` has it
    """

    target: Path
    images: Path
    decoding_bytes: float
    tuned: Path | None = None
    report: Report | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "target": str(self.target),
            "images": str(self.images),
            "decoding_bytes": self.decoding_bytes,
            "tuned": None if self.tuned is None else str(self.tuned),
            "report": None if self.report is None else self.report.to_json(),
        }


def can_report() -> bool:
    """Whether Jinja2 is installed. It is not imported for that."""
    return importlib.util.find_spec("jinja2") is not None


def require_extra() -> None:
    """Raises UsageError where reports cannot be made."""
    if not can_report():
        raise without_extra("page", "--report", "jinja2", "All else works without it")


def check_target(path: Path) -> None:
    """Raises UsageError for a file that is there and is no report: only reports are replaced."""
    try:
        with path.open("rb") as file:
            is_report = file.read(len(MARK)) == MARK
    except FileNotFoundError:
        is_report = path.parent.is_dir()
        if not is_report:
            raise UsageError(
                f"The folder of --report {path} is not there. A report is a file in a folder that exists. "
                f"Make the folder, or choose another place"
            ) from None
    except OSError as error:
        raise UsageError(
            f"--report {path} cannot be written ({error.strerror}). It takes a plain file, new or an earlier "
            f"report. Try --report report.html"
        ) from error
    if not is_report:
        raise UsageError(
            f"--report {path} exists, and is no report. Nothing else is replaced by one. "
            f"Choose another name, such as --report report.html"
        )


def make_report(job: Job, caller: Caller) -> None:
    """Start the child and wait for it. It takes a second or so, and on a board several.

    Raises SharpzoError when it does not make the report, InterruptedRunError when the caller wants to stop.
    """
    caller.status("writing the report")
    paths = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"}
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", f"{__package__}.child"],  # -P: the working folder is not asked
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment,
    )
    with child:
        try:
            said = _waited_for(child, json.dumps(job.to_json()).encode(), caller)
        except BaseException:
            child.kill()
            raise
    if child.returncode:
        lines = said.decode(errors="backslashreplace").strip().splitlines() or ["Its process was ended"]
        raise SharpzoError(
            f"The report {job.target} was not made; all else is complete. {lines[-1]}. A report needs some "
            f"{PROCESS_MIB} MiB of memory and room on the disk. Type the same command again"
        )


def _waited_for(child: subprocess.Popen[bytes], job: bytes, caller: Caller) -> bytes:
    """What it said on standard error."""
    given: bytes | None = job
    for _ in range(int(SECONDS / ASK_SECONDS)):
        caller.raise_if_stopped(
            "All but the report is complete. Type the same command again to have that, too"
        )
        try:
            return child.communicate(given, timeout=ASK_SECONDS)[1]
        except subprocess.TimeoutExpired:
            given = None  # it is on its way
    child.kill()
    return f"It took more than {SECONDS} seconds".encode()
