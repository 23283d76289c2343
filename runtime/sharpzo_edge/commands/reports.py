"""The report of a tune or an evaluation: whether it is made, and of what."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..clip.decoding import DECODER, PICTURE_BYTES
from ..clip.sessions import onnxruntime_version
from ..errors import BudgetError, InterruptedRunError, SharpzoError
from ..machine import this_machine
from ..memory.budget import Budget, budget_of
from ..process_memory import MIB, release_library_pages, return_freed_blocks
from ..report.answered import Answered
from ..report.figures import report_of
from ..report.process import PROCESS_MIB, Job, can_report, check_target, make_report, require_extra
from ..report.source import Source
from ..requests import EvaluateRequest, TuneRequest, typed
from ..run.folder import WorkFolder
from ..run.progress import Caller
from ..version import __version__


def versions() -> dict[str, str]:
    """Of what works on a result, by name."""
    return {
        "sharpzo-edge": __version__,
        "Python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": onnxruntime_version(),
        "Pillow": DECODER.rpartition(" ")[2],
        "system": f"{platform.system()} {platform.machine()}",
    }


def check_report(memory_budget: str | None, target: Path | None = None) -> None:
    """Before the work: whether a report that was asked for can be made.

    Raises UsageError without the extra [page] or for a target that is no report, BudgetError without room.
    """
    require_extra()
    if target is not None:
        check_target(target)
    budget = budget_of(memory_budget, onnxruntime_version())
    if _room_bytes(budget) < PICTURE_BYTES:
        needed = math.ceil(budget.limit_mib + (PICTURE_BYTES - _room_bytes(budget)) / MIB)
        raise BudgetError(
            f"--memory-budget {budget.limit_mib:.0f}MiB is too small for --report: another process makes it, "
            f"while this one is still there. The smallest that would do is {needed}MiB. Leave out --report, "
            f"or type the command again with --memory-budget {needed}MiB"
        )


def report_of_tune(request: TuneRequest, caller: Caller) -> None:
    """Write OUTPUT.work/report.html of a finished tune.

    Where it was not asked for it is made if it can be, and what goes wrong is said. Otherwise raises
    SharpzoError when it is not made; InterruptedRunError when the caller wants to stop.
    """
    room = _room_now(request)
    if not request.report and not (can_report() and room >= PICTURE_BYTES):
        return
    target = WorkFolder.of(request.output_path).report
    try:
        _make(Job(target, Path(request.images), room, tuned=request.output_path), caller)
    except InterruptedRunError:
        raise
    except SharpzoError as error:
        if request.report:
            raise
        caller.say(f"note: {error}")


def report_of_evaluation(
    request: EvaluateRequest, result: Mapping[str, Any], answered: Answered, caller: Caller
) -> None:
    """Write the file after --report. Raises SharpzoError when it is not made."""
    assert request.report is not None
    source = Source(
        kind="eval",
        title=Path(request.images).resolve().name,
        result=result,
        answered=answered,
        command=typed("eval", request),
        versions=versions(),
    )
    _make(
        Job(Path(request.report), Path(request.images), _room_now(request), report=report_of(source)), caller
    )


def _make(job: Job, caller: Caller) -> None:
    release_library_pages()
    return_freed_blocks()
    make_report(job, caller)
    caller.say(f"wrote the report {job.target}")


def _room_now(request: TuneRequest | EvaluateRequest) -> float:
    """As _room_bytes, and no more than the machine can give at this moment."""
    machine = this_machine(request.threads)
    return _room_bytes(budget_of(request.memory_budget, onnxruntime_version(), machine))


def _room_bytes(budget: Budget) -> float:
    """What decoding a picture may take in the other process, within the budget of both."""
    return (budget.room_mib - PROCESS_MIB) * MIB
