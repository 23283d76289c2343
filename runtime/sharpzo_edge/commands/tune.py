"""`tune`, in the order of events: pictures, image features, objective, both stages, heads, prompt file.

Validation pictures are ones beyond the shots; no test set is ever seen here.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

from ..clip.towers import TextTower
from ..errors import UsageError
from ..machine import this_machine
from ..pictures.features import (
    TrainingFeatures,
    disk_bytes,
    refuse_other_pictures,
    refuse_skipped_before,
    skipped_before,
    training_features,
)
from ..process_memory import return_freed_blocks
from ..report.answered import SCORE_DIGITS, Answered
from ..requests import TuneRequest, by_keywords, typed
from ..run.files import file_checksum, is_there, remove, try_to_replace
from ..run.folder import WorkFolder
from ..run.log import Log
from ..run.output import space_note
from ..run.progress import Caller, Progress, caller_of
from ..seeds import seed_stream
from ..tuning.answers import Answers, compare
from ..tuning.methods import method_of
from ..tuning.objective import Objective
from ..tuning.prepare import Prepared, check, prepare
from ..tuning.result import DoubtfulPicture, TuneResult
from ..tuning.resume import (
    Record,
    exists_already,
    finished_result,
    remember_machine,
    save_record,
)
from ..tuning.tuned_prompt import is_prompt, save_prompt
from ..types import LabelledFeatures
from .outcome import prompt_of, result_of
from .reports import check_report, report_of_tune, versions
from .stages import Found, searched
from .tune_news import say_what_there_is, say_which_head


def tune_request(request: TuneRequest) -> TuneResult:
    """Tune a prompt on a folder of labelled pictures, and write it to `output`.

    The same call again goes on with a run that was interrupted, and repeats the result of a finished one.
    Arguments are the command line's options (`sharpzo-edge tune --help`); paths may be strings.
    memory_budget: bounds what the call adds to this process; None: what the machine can give
    on_progress, stop: told how it goes on, and asked whether to stop; see docs/python.md
    Raises SharpzoError's children; InterruptedRunError when `stop` returned True.
    """
    return tune_and_report(request)[0]


tune = by_keywords(TuneRequest)(tune_request)


def tune_and_report(request: TuneRequest) -> tuple[TuneResult, bool]:
    """The result, and whether it was there before; its report is in the work folder, if it could be made."""
    if request.report:
        check_report(request.memory_budget)
    result, is_repeated = tune_or_repeat(request)
    if request.report or not (is_repeated and WorkFolder.of(request.output_path).report.exists()):
        report_of_tune(request, caller_of(request.on_progress, request.stop))
    return result, is_repeated


class Pictures(Protocol):
    """Where a tune's pictures are: on this machine, or on the boards of a fleet.

    command: what was typed for it
    """

    command: str

    def prepare(self, request: TuneRequest) -> Prepared:
        """See tuning.prepare."""

    def refuse_others(self, request: TuneRequest, ready: Prepared, work: WorkFolder, caller: Caller) -> None:
        """Raises UsageError when a finished run has seen other pictures than there are now."""

    def tuned(self, request: TuneRequest, ready: Prepared, work: WorkFolder, caller: Caller) -> TuneResult:
        """The work itself, up to the prompt in its place."""


class OwnPictures:
    """Those of the folder after --images."""

    command = "tune"

    def prepare(self, request: TuneRequest) -> Prepared:
        return prepare(request)

    def refuse_others(self, request: TuneRequest, ready: Prepared, work: WorkFolder, caller: Caller) -> None:
        refuse_other_pictures(
            f"The finished {request.output_path}", work, ready.folder, ready.few_shot, caller
        )
        if request.strict:
            refuse_skipped_before(work, ready.folder)

    def tuned(self, request: TuneRequest, ready: Prepared, work: WorkFolder, caller: Caller) -> TuneResult:
        return _tuned(request, ready, work, caller)


def tune_or_repeat(request: TuneRequest, pictures: Pictures | None = None) -> tuple[TuneResult, bool]:
    """The result, and whether it was there before. No report is made.

    pictures: None: those of this machine
    """
    pictures = pictures or OwnPictures()
    check(request)
    output, work = request.output_path, WorkFolder.of(request.output_path, request.checkpoint_seconds)
    caller = caller_of(request.on_progress, request.stop)
    if is_there(output) and not is_there(work.path) and not request.restart:
        raise exists_already(output)
    if request.restart and is_there(output) and not is_prompt(output):
        raise UsageError(
            f"The output {output} exists, and is no tuned prompt. --restart replaces nothing else. "
            f"Choose another --output, or remove that file first"
        )
    ready = pictures.prepare(request)
    for note in ready.notes:
        caller.say(f"note: {note}")
    work.make()
    with work.locked(caller.say), Log(work.log, caller) as log:
        caller = dataclasses.replace(caller, listeners=(*caller.listeners, log))
        if not request.restart and (result := finished_result(output, work, ready.made_for)):
            pictures.refuse_others(request, ready, work, caller)
            caller.say(f"{output} is finished: this is its result, from when it was made")
            if result.none and result.none.share != request.none:
                caller.say(
                    f"it keeps --none {result.none.share:g}; predict --none {request.none:g} changes it there"
                )
            for line in skipped_before(work):
                caller.say(line)
            remove(work.checkpoint)  # a kill may have left it
            return result, True
        ready.budget.require_machine(ready.plan.peak_mib, this_machine(request.threads))
        try_to_replace(output)
        is_new = request.restart or not is_there(work.record)
        if request.restart:
            work.clear(but=(work.features, work.pictures) if request.keep_features else ())
        remember_machine(work, ready.machine)
        begun = {"is_new": is_new, "command": typed(pictures.command, request), "versions": versions()}
        caller.tell(Progress("begun", "the work begins", begun))
        save_record(work, Record(ready.made_for, file_checksum(output), None))
        needed = disk_bytes(ready.bundle, ready.folder, ready.few_shot)
        if not is_there(work.pictures) and (too_little := space_note(work, needed)):
            caller.say(too_little)
        result = pictures.tuned(request, ready, work, caller)
        save_record(work, Record(ready.made_for, file_checksum(output), result))
        remove(work.checkpoint)
        caller.tell(Progress("done", "", result.to_json()))
    return result, False


def _tuned(request: TuneRequest, ready: Prepared, work: WorkFolder, caller: Caller) -> TuneResult:
    """The work itself, up to the prompt in its place."""
    caller.phase_ended("listing" if "listing" in ready.plan.phases else "imports")
    pictures = training_features(
        ready.bundle,
        ready.folder,
        ready.few_shot,
        ready.plan.image,
        work,
        caller,
        on_disk=ready.plan.features_on_disk,
        strict=request.strict,
        keep=request.keep_features,
    )
    say_what_there_is(ready, pictures, caller)
    found = _searched(request, ready, pictures, work, caller)
    answers = _compared(request, ready, pictures, found, caller)
    _answered(ready, pictures, answers, work)
    save_prompt(request.output_path, prompt_of(request, ready, found, answers))
    names = ready.folder.names
    doubtful = [
        DoubtfulPicture(pictures.files[each.number], names[each.label], names[each.answer])
        for each in answers.doubtful
    ]
    return result_of(request, ready, found, answers, pictures.n_shots, doubtful)


def _searched(
    request: TuneRequest, ready: Prepared, pictures: TrainingFeatures, work: WorkFolder, caller: Caller
) -> Found:
    """Both stages on pictures of this machine."""
    tower = TextTower(ready.bundle, ready.plan.text)
    objective = objective_on(request, ready, tower, pictures.train, ready.plan.text.tower.batch)
    method = method_of(ready.settings, pictures.train, objective.logit_scale)
    return searched(request, ready, objective, method, tower, pictures.val, pictures.checksum, work, caller)


def objective_on(
    request: TuneRequest, ready: Prepared, tower: TextTower, train: LabelledFeatures, batch: int
) -> Objective:
    """The objective on pictures of this machine. batch: how many points to ask for at once"""
    return Objective(
        tower,
        ready.prompts,
        ready.context,
        ready.settings.projection(seed_stream(request.seed, "projection"), ready.context),
        train,
        ready.bundle.manifest.logit_scale,
        batch,
        has_tangents=ready.plan.text.tangents is not None,
    )


def _compared(
    request: TuneRequest, ready: Prepared, pictures: TrainingFeatures, found: Found, caller: Caller
) -> Answers:
    """The heads, and what each way to label is worth."""

    def before_each() -> None:
        return_freed_blocks()
        caller.status("fitting the head")
        caller.raise_if_stopped("The run is saved. To go on, type the same command again, without --restart")

    answers = compare(
        ready.head,
        pictures.drawn,
        pictures.n_shots,
        found.words,
        found.best.class_features if found.best.w.any() else None,
        ready.bundle.manifest.logit_scale,
        request.none,
        before_each,
    )
    if ready.head != "none":
        caller.phase_ended("head")
    say_which_head(ready, pictures, answers, caller)
    return answers


def _answered(ready: Prepared, pictures: TrainingFeatures, answers: Answers, work: WorkFolder) -> None:
    """Keep what every drawn picture was answered, for the report."""
    found = answers.of_use
    if found is None:
        remove(work.answers)
        return
    Answered(
        use=answers.use,
        names=list(ready.folder.names),
        files=list(pictures.files),
        labels=pictures.drawn.labels.tolist(),
        answers=found.answers.tolist(),
        scores=found.scores.clip(0, 1).round(SCORE_DIGITS).tolist(),
        label_scores=found.label_scores.clip(0, 1).round(SCORE_DIGITS).tolist(),
        has_say=answers.has_say.tolist(),
        is_val=[n >= pictures.n_shots for n in range(len(pictures.files))],
    ).save(work.answers)
