"""`tune`, in the order of events: pictures, image features, objective, both stages, heads, prompt file.

Validation pictures are ones beyond the shots; no test set is ever seen here.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

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
from ..process_memory import peak_rss_mib, return_freed_blocks
from ..report.answered import SCORE_DIGITS, Answered
from ..requests import TuneRequest, by_keywords, typed
from ..run.checkpoint import load_state, save_state
from ..run.files import checksum, file_checksum, is_there, remove, try_to_replace
from ..run.folder import WorkFolder
from ..run.log import Log
from ..run.output import space_note
from ..run.progress import Caller, Progress, caller_of
from ..seeds import seed_stream
from ..tuning.answers import BOTH, HEAD, Answers, compare
from ..tuning.loop import Loop, State, Update
from ..tuning.methods import Method, method_of
from ..tuning.objective import BaseObjective, Evaluation, Objective
from ..tuning.prepare import Prepared, check, prepare
from ..tuning.result import DoubtfulPicture, HeadResult, NoneResult, TuneResult
from ..tuning.resume import (
    TIME_LIMIT,
    Record,
    exists_already,
    finished_result,
    refuse_another_command,
    remember_machine,
    save_record,
    without,
)
from ..tuning.tuned_prompt import FORMAT_VERSION, HEADS_FORMAT_VERSION, TunedPrompt, is_prompt, save_prompt
from ..types import Floats, LabelledFeatures
from ..wording import counted
from .reports import check_report, report_of_tune, versions
from .tune_news import (
    Gain,
    evaluation_progress,
    say_how_it_ended,
    say_what_there_is,
    say_which_head,
    stage_progress,
)


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


@dataclass(frozen=True, eq=False)
class Found:
    """What both stages have found. The optimiser and the text tower are gone by then.

    words:   (K, E) class features at w = 0
    best:    the evaluation that is the result;  context: (m, D), its context
    """

    words: Floats
    best: Evaluation
    context: Floats
    why_ended: str
    queries: int
    stage1_queries: int
    stage2_queries: int
    best_queries: int
    zero_shot_loss: float
    seconds: float


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


def searched(
    request: TuneRequest,
    ready: Prepared,
    objective: BaseObjective,
    method: Method,
    tower: AbstractContextManager[Any],
    validation: LabelledFeatures,
    pictures_checksum: str,
    work: WorkFolder,
    caller: Caller,
    on_update: Callable[[Update], None] = lambda update: None,
) -> Found:
    """Both stages, from the beginning or from the checkpoint.

    tower:      what the objective asks; it is closed when the stages are done
    validation: the validation pictures of this machine
    pictures_checksum: of the pictures that a checkpoint must be of
    on_update:  is told what happens, before the state is saved
    """
    settings = ready.settings
    checkpoint = _Checkpoint(
        work,
        without(ready.made_for, TIME_LIMIT)
        | {"choice of pictures": pictures_checksum, "projection": checksum(objective.A.reshape(-1).data)},
    )
    gain = Gain()

    def updated(update: Update) -> None:
        on_update(update)
        _updated(ready, checkpoint, caller, gain, update)

    with tower:
        state = checkpoint.load()
        if state:
            caller.say(f"going on after {counted(state.queries, 'query')}")
        elif settings.tunes and (note := method.short_limit_note(ready.limits)):
            caller.say(note)
        loop = Loop(
            method,
            objective,
            validation,
            ready.limits,
            partial(seed_stream, request.seed),
            state=state,
            on_update=updated,
        )
        ended = loop.run()
        checkpoint.save(loop.state)
    caller.phase_ended("text tower")
    state = loop.state
    if settings.tunes:
        say_how_it_ended(ended, state, caller)
    return Found(
        words=state.opening.class_features,
        best=ended.best,
        context=objective.contexts(ended.best.w[None])[0],
        why_ended=ended.why if settings.tunes else "nothing is tuned",
        queries=state.queries,
        stage1_queries=state.stage1_queries,
        stage2_queries=state.stage2_queries,
        best_queries=state.best_queries,
        zero_shot_loss=state.opening.train.loss,
        seconds=state.seconds,
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


class _Checkpoint:
    """The checkpoint of a run, saved now and then."""

    def __init__(self, work: WorkFolder, made_for: dict[str, Any]):
        self._work = work
        self._made_for = made_for
        self._saved = time.monotonic()

    @property
    def folder(self) -> Path:
        return self._work.path

    def load(self) -> State | None:
        """None where there is none. Raises UsageError when it is another command's."""
        loaded = load_state(self._work.checkpoint, State)
        if loaded is None:
            return None
        state, made_for = loaded
        refuse_another_command(f"The interrupted run in {self._work.path}", made_for, self._made_for)
        return state

    def save(self, state: State) -> None:
        save_state(self._work.checkpoint, state, self._made_for)
        self._saved = time.monotonic()

    @property
    def is_due(self) -> bool:
        return time.monotonic() - self._saved >= self._work.checkpoint_seconds


def _updated(ready: Prepared, checkpoint: _Checkpoint, caller: Caller, gain: Gain, update: Update) -> None:
    """What follows from an update of the loop: the user sees it, the state is saved, the run stops."""
    state = update.state
    if update.kind == "evaluation":
        caller.tell(evaluation_progress(ready, update, gain))
        return
    if update.kind == "stage":
        caller.tell(stage_progress(update))
    stops = caller.wants_to_stop
    if stops or update.kind == "stage" or checkpoint.is_due:
        checkpoint.save(state)
    if stops:
        caller.raise_if_stopped(
            f"The run is saved after {counted(state.queries, 'query')}, in {checkpoint.folder}. "
            f"To go on, type the same command again, without --restart"
        )


def prompt_of(request: TuneRequest, ready: Prepared, found: Found, answers: Answers) -> TunedPrompt:
    """The tuned prompt, with all that is told about it."""
    made_heads = {HEAD: answers.head, BOTH: answers.both}
    heads = {use: each.head for use, each in made_heads.items() if each}
    about = {
        "format_version": HEADS_FORMAT_VERSION if heads else FORMAT_VERSION,
        "class_names": list(ready.folder.names),
        "class_folders": list(ready.folder.folders),
        "model": ready.bundle.manifest.model,
        "bundle": ready.bundle.checksum,
        "seed": request.seed,
        "settings": {
            **dataclasses.asdict(ready.settings),
            "shots": request.shots,
            "val": request.val,
            "views": request.views,
            "context_init": ready.context_words,
            "context_tokens": request.context_tokens,
            "max_queries": ready.limits.max_queries,
        },
        "queries": found.queries,
        "train_loss": found.best.train.loss,
        "none": float(request.none),
        "known": {use: dataclasses.asdict(known) for use, known in answers.known.items()},
    }
    if heads:
        about["use"] = answers.use
        about["left_out"] = dataclasses.asdict(answers.left_out)
        about["words_temperature"] = answers.words_temperature
        about["heads"] = {use: {"kind": head.kind, **head.made_by} for use, head in heads.items()}
    return TunedPrompt(
        context=found.context,
        class_features=found.best.class_features,
        about=about,
        words=found.words if heads else None,
        head=heads.get(HEAD),
        both=heads.get(BOTH),
    )


def result_of(
    request: TuneRequest,
    ready: Prepared,
    found: Found,
    answers: Answers,
    n_shots: int = 0,
    doubtful: Sequence[DoubtfulPicture] = (),
) -> TuneResult:
    """n_shots: how many of the drawn pictures are shots, where the answers know the pictures"""
    best = found.best
    return TuneResult(
        queries=found.queries,
        stage1_queries=found.stage1_queries,
        stage2_queries=found.stage2_queries,
        seconds=round(found.seconds, 3),
        peak_rss_mib=round(peak_rss_mib(), 1),
        best_queries=found.best_queries,
        stopped=found.why_ended,
        train_loss=best.train.loss,
        train_accuracy=best.train.accuracy,
        val_accuracy=best.val.accuracy if best.val else None,
        val_loss=best.val.loss if best.val else None,
        zero_shot_train_loss=found.zero_shot_loss,
        plan=ready.plan.to_json(),
        prompt=str(request.output),
        head=_head_result(answers, n_shots),
        use=answers.use,
        left_out=answers.left_out,
        validated=answers.validated,
        covered=answers.covered,
        by_halves=answers.by_halves,
        doubtful=tuple(doubtful),
        none=_none_result(request.none, answers),
    )


def _none_result(share: float, answers: Answers) -> NoneResult:
    known, caught = answers.known.get(answers.use), answers.caught
    return NoneResult(
        share=share,
        pictures=known.pictures if known else 0,
        threshold=answers.threshold,
        called_none=answers.called_none,
        strangers=caught.share if caught else None,
        classes=caught.classes if caught else 0,
    )


def _head_result(answers: Answers, n_shots: int) -> HeadResult | None:
    if answers.head is None:
        return None
    left_out = answers.head.left_out
    of_val = None if left_out is None else left_out.losses[n_shots:]
    return HeadResult(
        kind=answers.head.head.kind,
        weight=answers.head.head.weight,
        val_accuracy=answers.validated.head,
        val_loss=float(of_val.mean()) if of_val is not None and len(of_val) else None,
    )
