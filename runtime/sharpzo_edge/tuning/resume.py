"""Decides whether a command goes on with an earlier run in the same work folder.

run.json in the work folder says which command the folder was made for. When the run is finished, it also has
the result. The same command goes on, or gives the same result again. Another command is refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..clip.bundle import Bundle
from ..errors import UsageError
from ..machine import Machine
from ..memory.budget import Budget, spelt
from ..memory.plan import Plan, tower_json
from ..pictures.content import listing_checksum
from ..pictures.folder import LabelledFolder
from ..requests import TuneRequest
from ..run.files import file_checksum, is_there, read_checked_json, write_checked_json
from ..run.folder import WorkFolder
from ..run.typed_json import read_dataclass
from .result import TuneResult
from .settings import NOT_OPTIONS, TuneSettings
from .stopping import Limits

TIME_LIMIT = "--max-minutes"
LONGEST_SHOWN = 40  # the most characters of a value in a message
# What to say of values that are checksums, which mean nothing to a reader.
BEHIND_A_CHECKSUM = {
    "--bundle": "it is another bundle",
    "--images": "the files of the folder have changed (names or sizes), or another version listed them",
    "choice of pictures": "others can be read, or their contents have changed",
}


@dataclass(frozen=True)
class Record:
    """The contents of run.json.

    made_for: what decides the result, by the names of options
    output:   checksum of the output file: as the run found it (None: there was none), later as it wrote it
    result:   None while the run goes on
    """

    made_for: dict[str, Any]
    output: str | None
    result: TuneResult | None


def save_record(work: WorkFolder, record: Record) -> None:
    """Write run.json. Raises SharpzoError when the disk does not take it."""
    write_checked_json(work.record, dataclasses.asdict(record))


def load_record(work: WorkFolder) -> Record | None:
    """The contents of run.json. None if there is none, or it is damaged."""
    found = read_checked_json(work.record)
    if isinstance(found, dict) and isinstance(found.get("result"), dict):
        found["result"].setdefault("none", None)  # of an older version
    try:
        return read_dataclass(Record, found)
    except ValueError:
        return None


def remembered_machine(work: WorkFolder) -> Machine | None:
    """What the machine could give when the run began. None if there is no run, or the file is damaged."""
    try:
        return read_dataclass(Machine, read_checked_json(work.machine))
    except ValueError:
        return None


def remember_machine(work: WorkFolder, machine: Machine) -> None:
    """Keep it for all that follows: with another plan the same command would be another one.

    Raises SharpzoError when the disk does not take it.
    """
    if remembered_machine(work) is None:
        write_checked_json(work.machine, dataclasses.asdict(machine))


def made_for(
    request: TuneRequest,
    settings: TuneSettings,
    limits: Limits,
    words: str,
    bundle: Bundle,
    folder: LabelledFolder,
    plan: Plan,
    budget: Budget,
) -> dict[str, Any]:
    """What decides the numbers of a run, by the names of options, in the order in which they are compared.

    settings: as the user asked for them, before the plan changed them
    The plan is in it too: the last bits of a matrix product depend on its number of rows and on the threads.
    """
    options = {
        f"--{name.replace('_', '-')}": value
        for name, value in dataclasses.asdict(settings).items()
        if name not in NOT_OPTIONS
    }
    return {
        "--bundle": bundle.checksum,
        "--images": listing_checksum(folder),
        "--class-names": list(folder.names),
        "--seed": request.seed,
        "--preset": settings.preset,
        "--shots": request.shots,
        "--val": request.val,
        "--views": request.views,
        "--head": request.head,
        "--context-init": words,
        "--context-tokens": request.context_tokens,
        **options,
        "--max-queries": limits.max_queries,
        TIME_LIMIT: limits.max_minutes,
        "--memory-budget": spelt(budget.asked_mib),
        "--threads": request.threads,
        "plan": [
            tower_json(plan.text.tower),
            tower_json(plan.image.tower),
            plan.text.chunk_rows,
            dataclasses.asdict(plan.sketch),
        ],
    }


def without(made_for: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """made_for without some names.

    An unfinished run may go on with another time limit. For a finished run the limit has decided the result.
    """
    return {name: value for name, value in made_for.items() if name not in names}


def finished_result(output: Path, work: WorkFolder, asked: Mapping[str, Any]) -> TuneResult | None:
    """The result of an earlier run of the same command, if it was finished. Otherwise None.

    asked: this command's made_for
    Raises UsageError when the work folder belongs to another command, finished or not, and when the output
    exists but this work folder did not make it.
    """
    record = load_record(work)
    has_checkpoint = is_there(work.checkpoint)
    found = file_checksum(output)
    if record and found and record.output == found and record.result is not None:
        refuse_another_command(f"The finished {output}", record.made_for, asked)
        return dataclasses.replace(record.result, prompt=str(output))
    if record and (record.result is None or has_checkpoint):
        # Before the first checkpoint, pictures may be corrected: only crops and features are kept until then.
        left_out = (TIME_LIMIT,) if has_checkpoint else (TIME_LIMIT, "--images")
        refuse_another_command(
            f"The interrupted run in {work.path}",
            without(record.made_for, *left_out),
            without(asked, *left_out),
        )
    if is_there(output) and not (record and (has_checkpoint or record.output == found)):
        raise exists_already(output)
    return None


def exists_already(output: Path) -> UsageError:
    """The error for an output file that this work folder did not make."""
    return UsageError(
        f"The output {output} exists already. Tuning replaces no prompt that it did not make. "
        f"Choose another --output, or start over with --restart"
    )


def refuse_another_command(what: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises UsageError when `before` and `now` differ, and names the first difference in `now`'s order.

    what: what was made with `before`, for the message
    """
    nothing = object()
    for name in dict.fromkeys((*now, *before)):
        if before.get(name, nothing) != now.get(name, nothing):
            values = f"{_shown(before.get(name))}, now {_shown(now.get(name))}"
            raise UsageError(
                f"{what} was made with another {name}: {BEHIND_A_CHECKSUM.get(name, values)}. "
                f"It belongs to the command that began it. Repeat that command, choose another --output, "
                f"or start over with --restart"
            )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"
