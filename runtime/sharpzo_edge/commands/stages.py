"""Both stages of a tune: begun, or gone on with from the checkpoint, which is saved now and then.

Wherever the pictures are: the objective knows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..requests import TuneRequest
from ..run.checkpoint import load_state, save_state
from ..run.files import checksum
from ..run.folder import WorkFolder
from ..run.progress import Caller
from ..seeds import seed_stream
from ..tuning.loop import Loop, State, Update
from ..tuning.methods import Method
from ..tuning.objective import BaseObjective, Evaluation
from ..tuning.prepare import Prepared
from ..tuning.resume import TIME_LIMIT, refuse_another_command, without
from ..types import Floats, LabelledFeatures
from ..wording import counted
from .tune_news import Gain, evaluation_progress, say_how_it_ended, stage_progress


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
