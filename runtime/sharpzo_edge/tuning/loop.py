"""The loop over both stages: ask an optimiser, evaluate, tell it; look, change the stage, save.

Stage 1 hands its mean to stage 2, where it starts (paper, algorithm 1); the best look by validation is the
result, or the last where nothing is validated. The settings decide which pair of optimisers it is: the
paper's, or our own on class features.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import NumericsError
from ..run.checkpoint import load_state, refuse_another_command, save_state
from ..run.files import CHECKPOINT_SECONDS
from ..run.interrupt import Interrupt
from ..run.progress import Progress, duration
from ..search import cmaes, sketched_descent, sparse_zo
from ..search.ask_tell import Ask, Optimiser
from ..search.losses import FeatureLoss, Score, scores
from ..types import Doubles, Floats, LabelledFeatures
from .objective import Objective
from .presets import AUTO, EdgeSettings, PaperSettings, TuneSettings

STEPS_A_LOOK = 100  # stage-2 steps between two looks at loss and accuracy; stage 1 looks every generation

# The automatic change of stage (paper, sec. 3.1): validation accuracy has not risen by more than this
# over its best for so many generations; without validation pictures, the loss has not fallen by 1 %.
PATIENCE_GENERATIONS = 10
ACCURACY_RISE = 0.01
LOSS_FALL = 0.01


@dataclass(frozen=True)
class Budget:
    """None is no limit. A query is one pass of the text tower over all classes."""

    max_queries: int | None
    max_minutes: float | None

    @property
    def opening_queries(self) -> int:
        """Before stage 1: the look at w = 0, and its repetition where the budget has room for it."""
        return 1 if self.max_queries == 1 else 2


@dataclass(frozen=True)
class Look:
    """What w is worth, for one query: w (d,), unit class features (K, E), scores on shots and validation."""

    w: Doubles
    class_features: Floats
    train: Score
    val: Score | None


@dataclass
class RunState:
    """A run at one moment; this is the checkpoint.

    stage:       1, 2, or 3 when both are done
    look:        the latest one
    best, best_queries: the best look by validation, or the latest without; queries it came after
    lowest_loss, highest_accuracy: on validation pictures, or else on the shots, of all looks
    idle:        looks of stage 2 since one of them improved
    watched_best, stale: for the automatic change of stage: best figure, generations since
    seconds:     spent so far, over all the processes that worked on it
    """

    stage: int
    stage1: cmaes.State
    stage2: sparse_zo.State | sketched_descent.State | None
    stage1_queries: int
    stage2_queries: int
    zero_shot_loss: float
    look: Look
    best: Look
    best_queries: int
    lowest_loss: float
    highest_accuracy: float
    idle: int
    watched_best: float | None
    stale: int
    seconds: float


class Run:
    """Both stages on one objective. `made_for` tells, by names the user knows, what decides its numbers."""

    def __init__(
        self,
        settings: TuneSettings,
        budget: Budget,
        objective: Objective,
        validation: LabelledFeatures,
        stream: Callable[[str], np.random.SeedSequence],
        checkpoint: Path,
        made_for: dict[str, Any],
        progress: Progress,
        *,
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
        watch: Callable[[Look, int, float], None] | None = None,
    ):
        """Goes on from the checkpoint when there is one; otherwise looks at w = 0, twice.

        checkpoint_seconds: the most between two checkpoints; 0 is one after every batch of answers.
        watch: is told every look of this process, the zero-shot one included: (look, queries, seconds).
        Raises UsageError when the checkpoint is another command's, NumericsError when the two looks differ.
        """
        self._settings = settings
        self._budget = budget
        self._objective = objective
        self._loss = FeatureLoss(objective.pictures, objective.logit_scale)
        self._validation = validation
        self._stream = stream
        self._checkpoint = checkpoint
        self._checkpoint_seconds = checkpoint_seconds
        self._made_for = made_for
        self._progress = progress
        self._watch_look = watch or _unwatched
        self.why_stopped = "it goes on"
        self._started = time.monotonic()
        resumed = self._resumed()
        self.state = resumed or self._begun()
        self._started -= self.state.seconds
        self._saved = time.monotonic()
        self._optimiser = self._optimiser_at_work()
        self._take_state()
        if resumed is None:
            self._warn_of_a_short_budget()
            self._show("zero-shot", always=True)
            self._watch_look(self.state.look, self.queries, self.seconds)

    def to_the_end(self, interrupt: Interrupt) -> Look:
        """Run until both stages are done, the patience is out, or the budget is spent; returns the best look.

        The best is by validation, the last where there are no validation pictures. A number in stage 2
        that cannot be used ends the run too: what was found up to there is not lost.

        Raises InterruptedRunError, with the run saved, when a signal has come, NumericsError in stage 1, or
        when nothing was found yet.
        """
        try:
            self._work(interrupt)
            self._look()
        except NumericsError as error:
            if self.state.stage == 1 or not self.state.best.w.any():
                raise
            self.why_stopped = f"a number in stage 2 cannot be used. {error}"
        else:
            self.why_stopped = self._why_it_ended()
            self._save()
        self._progress.say(f"stopped: {self.why_stopped}; {self._which_is_kept()}")
        return self.state.best

    def _work(self, interrupt: Interrupt) -> None:
        """Ask, evaluate and tell until there is nothing to do, or no budget to do it with."""
        while self.state.stage < 3 and (limit := self._affordable()) > 0:
            if interrupt.received:
                self._save()
                interrupt.raise_if_received(
                    f"The run is saved after {self.queries} queries, in {self._checkpoint.parent}. "
                    f"To go on, type the same command again, without --restart"
                )
            for answers in self._answers(self._optimiser.ask(limit)):
                self._optimiser.tell(answers)
                del answers  # the next ones would be made beside them
            self._take_state()
            if self._optimiser.between_updates:
                self._after_update()
            if time.monotonic() - self._saved >= self._checkpoint_seconds:
                self._save()

    @property
    def queries(self) -> int:
        """All so far, over all the processes that worked on this run."""
        return self._objective.queries

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    # Stages.

    def _begun(self) -> RunState:
        origin = np.zeros(self._settings.dim)
        search = cmaes.SharpnessAwareCMAES.start(
            self._settings.stage1(), origin, self._stream("stage1"), self._loss.gradient
        )
        look = self._evaluated(origin)
        if self._budget.opening_queries > 1:
            self._require_one_answer(look)
        watched = look.val or look.train
        state = RunState(
            stage=1,
            stage1=search.state,
            stage2=None,
            stage1_queries=0,
            stage2_queries=0,
            zero_shot_loss=look.train.loss,
            look=look,
            best=look,
            best_queries=self.queries,
            lowest_loss=watched.loss,
            highest_accuracy=watched.accuracy,
            idle=0,
            watched_best=None,
            stale=0,
            seconds=0.0,
        )
        if self._settings.change_point == 0:
            self._begin_stage2(state)
        return state

    def _begin_stage2(self, state: RunState) -> None:
        """From the mean of stage 1 (the released code starts from a mean of fresh samples instead).

        Sketches need the class features there: the look must be at the mean.
        """
        settings, seed, x0 = self._settings, self._stream("stage2"), state.stage1.mean
        if isinstance(settings, EdgeSettings):
            state.stage2 = sketched_descent.SketchedDescent.start(
                settings.stage2(), self._sketched_loss(settings), x0, state.look.class_features, seed
            ).state
        elif isinstance(settings, PaperSettings):
            own = self._stage2_settings(settings, state)
            if own.steps == 0:
                state.stage = 3
                return
            state.stage2 = sparse_zo.SparseZOSGD.start(own, x0, seed).state
        state.stage = 2
        state.idle = 0  # stage 1 has its own end

    def _optimiser_at_work(self) -> Optimiser:
        state, settings = self.state, self._settings
        if isinstance(state.stage2, sketched_descent.State):
            assert isinstance(settings, EdgeSettings)  # the checkpoint is this command's
            return sketched_descent.SketchedDescent(
                settings.stage2(), self._sketched_loss(settings), state.stage2
            )
        if state.stage2 is not None:
            assert isinstance(settings, PaperSettings)
            return sparse_zo.SparseZOSGD(self._stage2_settings(settings, state), state.stage2)
        return cmaes.SharpnessAwareCMAES(settings.stage1(), state.stage1, self._loss.gradient)

    def _sketched_loss(self, settings: EdgeSettings) -> FeatureLoss:
        objective = self._objective
        return FeatureLoss(objective.pictures, objective.logit_scale, settings.label_smoothing)

    def _after_update(self) -> None:
        """At the end of a generation or a step."""
        state = self.state
        if state.stage2 is None:
            if self._room() > 0:
                self._look()
                self._watch()
                self._count_idle()
                self._show(f"stage 1  generation {state.stage1.generation}")
            if why := self._stage1_is_over():
                if isinstance(self._settings, EdgeSettings):
                    self._look()
                self._begin_stage2(state)
                self._optimiser = self._optimiser_at_work()
                self._progress.say(
                    f"stage 1 ends: {why}; {self._objective.queries} queries, "
                    f"loss {state.look.train.loss:.4f}"
                )
                self._save()
        elif self._stage2_is_over():
            state.stage = 3
        elif self._optimiser.solution_features is not None:
            self._look()
            self._count_idle()
            self._show(f"stage 2  round {state.stage2.step}")
        elif state.stage2.step % STEPS_A_LOOK == 0 and self._room() > 0:
            self._look()
            self._count_idle()
            self._show(f"stage 2  step {state.stage2.step}")
        if self._patience_is_out():
            state.stage = 3

    def _stage1_is_over(self) -> str:
        """Why it is, or nothing."""
        state, change = self.state, self._settings.change_point
        limit = generations(self._settings)
        if state.stage1.generation >= limit:
            return f"generation {limit} of {limit}"
        if change == AUTO and state.stale >= PATIENCE_GENERATIONS:
            return f"nothing better in {PATIENCE_GENERATIONS} generations"
        reasons = cmaes.stop_reasons(self._settings.stage1(), state.stage1)
        return ", ".join(f"converged ({name} {value:.3g})" for name, value in reasons.items())

    def _stage2_is_over(self) -> bool:
        optimiser = self._optimiser
        local_searches = (sketched_descent.SketchedDescent, sparse_zo.SparseZOSGD)
        return isinstance(optimiser, local_searches) and optimiser.finished

    def _patience_is_out(self) -> bool:
        return self.state.stage2 is not None and 0 < self._settings.patience <= self.state.idle

    def _watch(self) -> None:
        """Count the generations without a new best, for the automatic change of stage."""
        state, look = self.state, self.state.look
        figure = look.val.accuracy if look.val else -look.train.loss
        best = state.watched_best
        if best is None:
            state.watched_best = figure
            return
        rise = ACCURACY_RISE if look.val else LOSS_FALL * abs(best)
        state.stale = 0 if figure > best + rise else state.stale + 1
        state.watched_best = max(best, figure)

    def _count_idle(self) -> None:
        """Count the looks without improvement, for the patience.

        That is a lower loss or a higher accuracy on validation pictures; without them, a training loss
        that is lower by LOSS_FALL.
        """
        state, val = self.state, self.state.look.val
        loss = val.loss if val else state.look.train.loss
        is_lower = loss < (state.lowest_loss if val else (1 - LOSS_FALL) * state.lowest_loss)
        is_higher = val is not None and val.accuracy > state.highest_accuracy
        if is_lower:
            state.lowest_loss = loss
        if val and is_higher:
            state.highest_accuracy = val.accuracy
        state.idle = 0 if is_lower or is_higher else state.idle + 1

    @staticmethod
    def _stage2_settings(settings: PaperSettings, state: RunState) -> sparse_zo.Settings:
        return settings.stage2(settings.steps - state.stage1.generation)

    # Queries.

    def _affordable(self) -> int:
        """How many points may be asked for now: a batch, or 0 where the budget ends.

        It ends where the update that they begin would not fit any more: its queries would buy nothing.
        """
        room, optimiser = self._room(), self._optimiser
        if optimiser.between_updates and room < optimiser.points_of_update:
            known, _ = self._split_known(optimiser.ask(1))
            if room < optimiser.points_of_update - len(known):
                return 0
        return int(min(self._objective.batch, room))

    def _room(self) -> float:
        """Queries that are left to spend. One is kept back for the look at the end, where that costs one."""
        minutes, queries = self._budget.max_minutes, self._budget.max_queries
        if minutes is not None and self.seconds > minutes * 60:
            return 0
        if queries is None:
            return math.inf
        for_the_end = self._optimiser.solution_features is None
        return max(0, queries - for_the_end - self._objective.queries)

    def _split_known(self, asked: Ask) -> tuple[Doubles, Doubles]:
        """Points of a sketch whose class features the last look knows (the first or none), and the others."""
        n = int(asked.wants == "features" and np.array_equal(asked.points[:1], self.state.look.w[np.newaxis]))
        return asked.points[:n], asked.points[n:]

    def _answers(self, asked: Ask) -> Iterator[Doubles | Floats]:
        """What the optimiser wants to know, in parts."""
        known, points = self._split_known(asked)
        if len(known):
            yield self.state.look.class_features[np.newaxis]
        if len(points):
            self._count(len(points))
            wants_losses = asked.wants == "losses"
            yield self._objective.losses(points) if wants_losses else self._objective.class_features(points)

    def _look(self) -> None:
        """Look at the optimiser's w; costs one query, or none when its class features are known."""
        w = self._optimiser.solution
        if np.array_equal(self.state.look.w, w):
            return
        T = self._optimiser.solution_features
        if T is None:
            self._count(1)
            self.state.look = self._evaluated(w)
        else:
            self.state.look = self._scored(w, T)
        if is_better(self.state.look, self.state.best):
            self.state.best, self.state.best_queries = self.state.look, self.queries
        self._watch_look(self.state.look, self.queries, self.seconds)

    def _evaluated(self, w: Doubles) -> Look:
        T = self._objective.class_features(w[None])[0]
        if not np.isfinite(T).all():
            raise NumericsError(
                f"The text tower's answer is not finite, at query {self._objective.queries}, for a w of norm "
                f"{np.linalg.norm(w):.3g}. Class features must be finite numbers. Use smaller steps "
                f"(--eta, --sigma0, --projection-std), or check the bundle with: "
                f"sharpzo-edge doctor --bundle BUNDLE"
            )
        return self._scored(w, T)

    def _require_one_answer(self, look: Look) -> None:
        """Costs one query. Without it no run could be repeated, nor a difference of losses be trusted."""
        again = self._objective.class_features(look.w[None])[0]
        if not np.array_equal(look.class_features, again):
            raise NumericsError(
                f"The text tower answers one prompt differently when it is asked twice, by up to "
                f"{np.abs(look.class_features - again).max():.1e}. The same input must give the same answer, "
                f"bit for bit. Try --threads 1, and check the bundle with: "
                f"sharpzo-edge doctor --bundle BUNDLE"
            )

    def _scored(self, w: Doubles, T: Floats) -> Look:
        scale = self._objective.logit_scale
        (train,) = scores(T[None], self._objective.pictures, scale)
        (val,) = scores(T[None], self._validation, scale) if len(self._validation) else (None,)
        return Look(w, T, train, val)

    def _count(self, n: int) -> None:
        if self.state.stage == 1:
            self.state.stage1_queries += n
        else:
            self.state.stage2_queries += n

    # The user, and the checkpoint.

    def _warn_of_a_short_budget(self) -> None:
        settings, limit = self._settings, self._budget.max_queries
        if settings.change_point == AUTO:
            return  # nobody knows when stage 1 ends
        steps = settings.steps if isinstance(settings, PaperSettings) else math.inf
        if steps <= generations(settings):
            self._progress.say(f"--steps {steps} ends in stage 1: there will be no stage 2")
            return
        if limit is None:
            return
        stage1 = stage1_queries(settings)
        left = limit - self._budget.opening_queries - stage1
        is_presets = limit == settings.default_queries
        named = f"the preset's limit of {limit:,} queries" if is_presets else f"--max-queries {limit}"
        if left <= 0:
            self._progress.say(
                f"{named} ends in stage 1, which takes {stage1:,} queries with these settings "
                f"({queries_a_generation(settings):,} a generation); --change-point sets its length"
            )
        elif isinstance(settings, EdgeSettings) and left < (one := queries_a_round(settings)):
            self._progress.say(
                f"{named} leaves {left} for stage 2, where a round takes {one:,}; --rank sets that, and "
                f"--change-point the length of stage 1"
            )

    def _why_it_ended(self) -> str:
        settings, budget = self._settings, self._budget
        if self._patience_is_out():
            watched = "validation" if self.state.look.val else "the loss on the shots"
            return f"{watched} has not improved for {settings.patience} look{'s'[: settings.patience > 1]}"
        if self.state.stage == 3:
            if isinstance(settings, PaperSettings):
                return f"all {settings.steps:,} steps are done"
            return "no step lowers the loss"
        if budget.max_minutes is not None and self.seconds > budget.max_minutes * 60:
            return f"its {budget.max_minutes:g} minutes are over"
        n = budget.max_queries
        return "no step fits in 1 query" if n == 1 else f"no further step fits in its {n:,} queries"

    def _which_is_kept(self) -> str:
        if self.state.look.val is None:
            return "the last is kept, as there are no validation pictures"
        return f"the best by validation was after {self.state.best_queries:,} queries"

    def _show(self, where: str, always: bool = False) -> None:
        look, queries, seconds = self.state.look, self._objective.queries, self.seconds
        validation = f"  validation {100 * look.val.accuracy:.1f} %" if look.val else ""
        self._progress.status(
            f"{where}  queries {queries}  loss {look.train.loss:.4f}  "
            f"accuracy {100 * look.train.accuracy:.1f} %{validation}  "
            f"{duration(seconds)}{self._time_left(queries, seconds)}",
            always,
        )
        self._progress.event(
            "look",
            where=where,
            queries=queries,
            seconds=round(seconds, 3),
            train=asdict(look.train),
            val=asdict(look.val) if look.val else None,
        )

    def _time_left(self, queries: int, seconds: float) -> str:
        if queries < 2:
            return ""
        total = expected_queries(self._settings)
        total = min(total, self._budget.max_queries or total)
        left = seconds / queries * max(0, total - queries)
        if self._budget.max_minutes is not None:
            left = min(left, max(0.0, self._budget.max_minutes * 60 - seconds))
        if not math.isfinite(left):
            return ""
        may_end_earlier = self._settings.change_point == AUTO or self._settings.patience > 0
        return f", {'at most ' * may_end_earlier}{duration(left)} left"

    def _take_state(self) -> None:
        """After every change: an earlier state would keep arrays that the optimiser has let go."""
        if self.state.stage2 is None:
            self.state.stage1 = self._optimiser.state
        else:
            self.state.stage2 = self._optimiser.state

    def _save(self) -> None:
        self.state.seconds = self.seconds
        save_state(self._checkpoint, self.state, self._made_for)
        self._saved = time.monotonic()

    def _resumed(self) -> RunState | None:
        loaded = load_state(self._checkpoint, RunState)
        if loaded is None:
            return None
        state, made_for = loaded
        refuse_another_command(f"The interrupted run in {self._checkpoint.parent}", made_for, self._made_for)
        assert isinstance(state, RunState)
        self._objective.queries = self._budget.opening_queries + state.stage1_queries + state.stage2_queries
        self._progress.say(f"going on after {self._objective.queries} queries")
        return state


def is_better(look: Look, best: Look) -> bool:
    """By validation loss, which a few pictures tell finer than accuracy; equal ones by accuracy.

    A later look is not better for being later; where nothing is validated, it is.
    """
    if look.val is None or best.val is None:
        return True
    return (look.val.loss, -look.val.accuracy) < (best.val.loss, -best.val.accuracy)


def _unwatched(look: Look, queries: int, seconds: float) -> None:
    """Nobody asked to be told."""


def generations(settings: TuneSettings) -> int:
    """Length of stage 1; with an automatic change of stage, as if it took all the steps there are."""
    steps = settings.steps if isinstance(settings, PaperSettings) else sys.maxsize
    return steps if settings.change_point == AUTO else min(int(settings.change_point), steps)


def queries_a_generation(settings: TuneSettings) -> int:
    """The sweep or the sketch, the population and a look, which is the sketch's first point."""
    stage1 = settings.stage1()
    n_sweep = cmaes.n_sweep(stage1)
    shared = stage1.sketch_rank is not None and n_sweep > 0
    return n_sweep + settings.population + 1 - shared


def queries_a_round(settings: EdgeSettings) -> int:
    """Of stage 2: the new directions, and the trials."""
    return min(settings.rank, settings.dim) + len(sketched_descent.FACTORS)


def stage1_queries(settings: TuneSettings) -> int:
    return generations(settings) * queries_a_generation(settings)


def expected_queries(settings: TuneSettings) -> float:
    """Queries of a whole run without a limit, those before stage 1 included; infinite when it has no end."""
    if not isinstance(settings, PaperSettings):
        return math.inf
    steps = settings.steps - generations(settings)
    opening = Budget(None, None).opening_queries
    sweeps = math.ceil(steps / settings.prune_interval) if settings.prune_ratio > 0 else 0
    return opening + stage1_queries(settings) + 2 * steps + sweeps * 2 * settings.dim + steps // STEPS_A_LOOK
