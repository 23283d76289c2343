"""The way, walked once: pictures, features, objective, stage 1, stage 2, tuned prompt.

This file owns the order of events and nothing else. Validation pictures are ones beyond the shots; the
test set is never seen here.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

from ..clip.towers import TextTower
from ..errors import UsageError
from ..pictures.features import refuse_skipped_before, training_features
from ..run.checkpoint import refuse_another_command
from ..run.files import checksum, file_checksum, make_folder, remove
from ..run.interrupt import Interrupt
from ..run.lock import LOCK_FILE, locked
from ..run.progress import Progress
from ..run.workplace import Workplace
from ..seeds import stream
from ..tuning.heads import gda, with_best_weight
from ..tuning.loop import Budget, Run
from ..tuning.objective import Objective
from ..tuning.outcome import prompt_of, result_of
from ..tuning.prepare import Prepared, prepare
from ..tuning.record import Head as HeadFound
from ..tuning.record import Record, Result, load_record, save_record
from ..tuning.request import TIME_LIMIT, TuneRequest, check, check_validated, made_for, without
from ..tuning.tuned_prompt import save_prompt

LOG_FILE, CHECKPOINT_FILE = "log.jsonl", "checkpoint.safetensors"


def tune(request: TuneRequest) -> dict[str, Any]:
    """Tune a prompt and write it to request.output; returns what `tune --json` prints. See tune_or_repeat."""
    return tune_or_repeat(request)[0]


def tune_or_repeat(request: TuneRequest) -> tuple[dict[str, Any], bool]:
    """The result, and whether it was there before.

    Goes on with what an interrupted process of the same command has left; of a finished one it returns the
    result and does nothing. Raises SharpzoError's children for whatever the user can change.
    """
    check(request)
    if request.output.exists() and not request.work.exists() and not request.restart:
        raise _exists_already(request.output)
    ready = prepare(request)
    asked = made_for(request, ready.bundle, ready.folder, ready.plan)
    _make_work_folder(request)
    with (
        locked(request.work),
        Interrupt() as interrupt,
        Progress(request.work / LOG_FILE) as progress,
    ):
        if request.restart:
            _clear(request.work)
        elif recorded := _recorded(request, asked):
            if request.strict:
                refuse_skipped_before(request.work, ready.folder)
            progress.say(f"{request.output} is finished: this is its result, from when it was made")
            remove(request.work / CHECKPOINT_FILE)  # a kill may have left it
            return recorded, True
        save_record(request.work, Record(asked, file_checksum(request.output), None))
        at = Workplace(request.work, progress, interrupt, request.checkpoint_seconds)
        result = _tuned(request, ready, asked, at)
        save_record(request.work, Record(asked, file_checksum(request.output), result))
        remove(request.work / CHECKPOINT_FILE)
        progress.event("done", **dataclasses.asdict(result))
    return dataclasses.asdict(result), False


def _tuned(request: TuneRequest, ready: Prepared, asked: dict[str, Any], at: Workplace) -> Result:
    """The way itself, up to the prompt in its place."""
    bundle, folder, plan, progress = ready.bundle, ready.folder, ready.plan, at.progress
    wanted = ready.settings.sketches[0]
    request = dataclasses.replace(request, settings=ready.settings.with_sketch(plan.sketch))
    pictures = training_features(
        bundle, folder, request.draw, plan, request.threads, at, strict=request.strict
    )
    if plan.sketch != wanted:
        progress.say(
            f"sketches of {plan.sketch.n_columns} columns, not {wanted.n_columns}: what the memory "
            f"budget leaves room for"
        )
    progress.say(
        f"{len(folder.names)} classes, {len(pictures.train)} pictures to tune on, "
        f"{len(pictures.val)} to validate"
    )
    n_classes, n_validated = len(folder.names), len(set(pictures.val.labels.tolist()))
    if 0 < n_validated < n_classes:
        progress.say(
            f"of {n_classes - n_validated} classes no picture beyond the shots is left to validate on"
        )
    head, head_found = None, None
    if request.head == "gda":
        check_validated(len(pictures.val))
        head = gda(pictures.train, len(folder.names))
    A = request.settings.projection(stream(request.seed, "projection"), ready.context)
    assert plan.text is not None  # tuning needs the text tower
    with TextTower(bundle, plan.text, request.threads) as tower:
        objective = Objective(
            tower,
            ready.prompts,
            ready.context,
            A,
            pictures.train,
            bundle.manifest.logit_scale,
            plan.text.together,
        )
        run = Run(
            request.settings,
            Budget(request.query_limit, request.max_minutes),
            objective,
            pictures.val,
            partial(stream, request.seed),
            at.folder / CHECKPOINT_FILE,
            without(asked, TIME_LIMIT)
            | {"choice of pictures": pictures.checksum, "projection": checksum(A.reshape(-1).data)},
            progress,
            checkpoint_seconds=at.checkpoint_seconds,
        )
        best = run.to_the_end(at.interrupt)
    if not best.w.any():
        why = "nothing was better by validation" if run.state.look.w.any() else "no update was made"
        progress.say(f"{why}: the prompt is as it started, not tuned")
    if head is not None:
        head, blended = with_best_weight(head, best.class_features, pictures.val, objective.logit_scale)
        head_found = HeadFound(request.head, head.weight, blended.accuracy, blended.loss)
        progress.say(f"head {request.head}: weight {head.weight:g}, by validation")
    save_prompt(request.output, prompt_of(request, ready, objective, best, head))
    return result_of(request, plan, run, head_found)


def _recorded(request: TuneRequest, asked: dict[str, Any]) -> dict[str, Any] | None:
    """The result of this very command, when it was brought to its end before.

    Raises UsageError when the work folder belongs to another command, finished or not, and for an output
    that this work folder did not make.
    """
    record = load_record(request.work)
    has_checkpoint = (request.work / CHECKPOINT_FILE).exists()
    found = file_checksum(request.output)
    if record and found and record.output == found and record.result is not None:
        refuse_another_command(f"The finished {request.output}", record.made_for, asked)
        return dataclasses.asdict(record.result) | {"prompt": str(request.output)}
    if record and (record.result is None or has_checkpoint):
        # Before the first checkpoint pictures may be mended: there is nothing to go on with but crops.
        left_out = (TIME_LIMIT,) if has_checkpoint else (TIME_LIMIT, "--images")
        refuse_another_command(
            f"The interrupted run in {request.work}",
            without(record.made_for, *left_out),
            without(asked, *left_out),
        )
    if request.output.exists() and not (record and (has_checkpoint or record.output == found)):
        raise _exists_already(request.output)
    return None


def _exists_already(output: Path) -> UsageError:
    return UsageError(
        f"The output {output} exists already. Tuning replaces no prompt that it did not make. "
        f"Choose another --output, or start over with --restart"
    )


def _make_work_folder(request: TuneRequest) -> None:
    try:
        make_folder(request.work)
    except OSError as error:
        raise UsageError(
            f"Cannot make the work folder {request.work} ({error.strerror}). The output's folder must "
            f"exist and be writable. Make it, or choose another --output"
        ) from error


def _clear(work: Path) -> None:
    """Remove an earlier run; the lock stays, and the log, which is open."""
    for path in work.iterdir():
        if path.name not in (LOCK_FILE, LOG_FILE) and not path.is_dir():
            remove(path)
