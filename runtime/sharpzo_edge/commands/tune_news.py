"""What a tune tells its caller while it goes on, in words and in figures."""

from __future__ import annotations

import dataclasses
import math

from ..heads import kernel
from ..heads.fit import AUTO as ANY_HEAD
from ..pictures.features import TrainingFeatures
from ..process_memory import rss_mib
from ..run.progress import Caller, Progress, duration
from ..tuning.answers import Answers
from ..tuning.loop import Ended, State, Update
from ..tuning.prepare import Prepared
from ..tuning.settings import AUTO
from ..wording import counted

GAIN_QUERIES = 100


class Gain:
    """What the last hundred queries or so brought."""

    def __init__(self) -> None:
        self._losses: list[tuple[int, float]] = []  # queries, and the loss on the shots then

    def after(self, queries: int, loss: float) -> str:
        """By how much the loss has changed since an evaluation GAIN_QUERIES or more before; "" at first."""
        before = [each for each in self._losses if each[0] <= queries - GAIN_QUERIES]
        self._losses = [*before[-1:], *self._losses[len(before) :], (queries, loss)]
        if not before:
            return ""
        then, loss_then = before[-1]
        return f" ({loss - loss_then:+.4f} in {queries - then} queries)"


def evaluation_progress(ready: Prepared, update: Update, gain: Gain) -> Progress:
    state, found = update.state, update.state.latest
    validation = f"  validation {100 * found.val.accuracy:.1f} %" if found.val else ""
    text = (
        f"{update.where}  queries {state.queries}  loss {found.train.loss:.4f}"
        f"{gain.after(state.queries, found.train.loss)}  "
        f"accuracy {100 * found.train.accuracy:.1f} %{validation}  "
        f"{duration(state.seconds)}{_time_left(ready, state)}"
    )
    figures = {
        "where": update.where,
        "queries": state.queries,
        "seconds": round(state.seconds, 3),
        "train": dataclasses.asdict(found.train),
        "val": dataclasses.asdict(found.val) if found.val else None,
        "rss_mib": round(rss_mib(), 1),
    }
    return Progress("evaluation", text, figures, is_first=update.where == "zero-shot")


def stage_progress(update: Update) -> Progress:
    """Stage 1 has ended."""
    state = update.state
    text = (
        f"stage 1 ends: {update.where}; {counted(state.queries, 'query')}, loss {state.latest.train.loss:.4f}"
    )
    figures = {"why": update.where, "queries": state.queries, "seconds": round(state.seconds, 3)}
    return Progress("stage", text, figures)


def _time_left(ready: Prepared, state: State) -> str:
    settings, limits = ready.settings, ready.limits
    if state.queries < 2:
        return ""
    total = min(settings.expected_queries, limits.max_queries or math.inf)
    left = state.seconds / state.queries * max(0, total - state.queries)
    if limits.max_minutes is not None:
        left = min(left, max(0.0, limits.max_minutes * 60 - state.seconds))
    if not math.isfinite(left):
        return ""
    may_end_earlier = settings.change_point == AUTO or settings.patience > 0
    return f", {'at most ' * may_end_earlier}{duration(left)} left"


def say_what_there_is(ready: Prepared, pictures: TrainingFeatures, caller: Caller) -> None:
    if ready.plan.sketch.n_columns != ready.wanted_columns:
        caller.say(
            f"sketches of {ready.plan.sketch.n_columns} columns, not {ready.wanted_columns}: what the memory "
            f"budget leaves room for"
        )
    n_classes = len(ready.folder.names)
    caller.say(
        f"{counted(n_classes, 'class')}, {counted(len(pictures.train), 'picture')} to tune on, "
        f"{len(pictures.val)} to validate"
    )
    n_validated = len(set(pictures.val.labels.tolist()))
    if 0 < n_validated < n_classes:
        n_without = n_classes - n_validated
        has, whose = ("has", "its") if n_without == 1 else ("have", "their")
        caller.say(f"{counted(n_without, 'class')} {has} no validation pictures: {whose} shots stand in")


def say_how_it_ended(ended: Ended, state: State, caller: Caller) -> None:
    if state.latest.val is None:
        kept = "the last is kept, as there are no validation pictures"
    else:
        kept = f"the best by validation was after {counted(state.best_queries, 'query')}"
    caller.say(f"stopped: {ended.why}; {kept}")
    if not ended.best.w.any():
        why = "nothing was better by validation" if state.latest.w.any() else "no update was made"
        caller.say(f"{why}: the prompt is as it started, not tuned")


def say_which_head(ready: Prepared, pictures: TrainingFeatures, answers: Answers, caller: Caller) -> None:
    """What was left out or could not be made."""
    n, n_classes, embed_dim = len(pictures.drawn), len(ready.folder.names), ready.bundle.manifest.embed_dim
    if ready.head in (ANY_HEAD, kernel.KIND) and not kernel.fits(n_classes, embed_dim, n):
        caller.say(f"{n:,} pictures are too many for a kernel head: a linear one takes its place")
    if ready.head != "none" and answers.head is None:
        caller.say("no head can be made: the pictures of each class do not differ")
