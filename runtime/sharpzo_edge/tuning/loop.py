"""The loop over both stages: ask an optimiser, answer it, evaluate; change the stage; end.

It knows no files and no terminal. What evolves is one State, which is the checkpoint: a loop that is given a
state goes on as if it had never stopped. After everything that happens it calls `on_update`. That function
may save the state, show it, or raise an error to stop the loop there.

Stage 1 hands its mean to stage 2, where it starts (paper, algorithm 1). The best evaluation by validation is
the result, or the last where nothing is validated.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ..errors import NumericsError
from ..search.ask_tell import Ask, Optimiser
from ..types import Doubles, Floats, LabelledFeatures
from .methods import Method, SearchState
from .objective import Evaluation, Objective
from .stopping import Limits, Patience, Plateau, is_better

FINISHED = 3  # the stage when both are done


@dataclass
class State:
    """A run at one moment; this is the checkpoint.

    stage:       1, 2, or FINISHED
    search:      of the optimiser at work, or of the last one
    generations: of stage 1, made so far
    queries:     all so far, the opening ones included
    stage1_from, stage2_from: queries when the stage began; None: it has not
    zero_shot_loss: on the shots, at w = 0
    latest:      the latest evaluation
    best, best_queries: the best evaluation by validation, or the latest without; queries it came after
    patience, plateau: see stopping
    seconds:     spent so far, over all the processes that worked on it
    """

    stage: int
    search: SearchState
    generations: int
    queries: int
    stage1_from: int
    stage2_from: int | None
    zero_shot_loss: float
    latest: Evaluation
    best: Evaluation
    best_queries: int
    patience: Patience
    plateau: Plateau
    seconds: float

    @property
    def stage1_queries(self) -> int:
        return (self.queries if self.stage2_from is None else self.stage2_from) - self.stage1_from

    @property
    def stage2_queries(self) -> int:
        return 0 if self.stage2_from is None else self.queries - self.stage2_from


@dataclass(frozen=True)
class Update:
    """What has just happened in a loop.

    kind:  "evaluation", there is a new one, state.latest; "stage", stage 1 has ended; "answers", a batch of
           queries was answered, and perhaps an update made of it
    where: "zero-shot", "stage 1  generation 3"; for "stage": why stage 1 has ended
    state: the run at this moment; it goes on changing
    """

    kind: Literal["evaluation", "stage", "answers"]
    where: str
    state: State


@dataclass(frozen=True)
class Ended:
    """best: the result; why: in words."""

    best: Evaluation
    why: str


class Loop:
    """Both stages on one objective.

    >>> loop = Loop(method, objective, validation, Limits(max_queries=500), seeds)  # doctest: +SKIP
    >>> loop.run().best.val.accuracy  # doctest: +SKIP
    0.95
    """

    def __init__(
        self,
        method: Method,
        objective: Objective,
        validation: LabelledFeatures,
        limits: Limits,
        seeds: Callable[[str], np.random.SeedSequence],
        *,
        state: State | None = None,
        on_update: Callable[[Update], None] | None = None,
    ):
        """Goes on from a state; without one it evaluates w = 0, twice.

        seeds: the seed of the stream of that name ("stage1", "stage2")
        Raises NumericsError when the two answers differ, or are not finite.
        """
        self._method = method
        self._objective = objective
        self._validation = validation
        self._limits = limits
        self._seeds = seeds
        self._on_update = on_update
        self._started = time.monotonic() - (state.seconds if state else 0.0)
        if state is None:
            self.state, self._optimiser = self._begun()
            self._tell("evaluation", "zero-shot")
            if method.settings.change_point == 0:
                self._begin_stage2()
        else:
            objective.queries = state.queries
            self.state, self._optimiser = state, method.at_work(state.search, state.generations)
            self._take_state()

    def run(self) -> Ended:
        """Go on until both stages are done, the patience is out, or the limits are reached.

        A number in stage 2 that cannot be used ends the run too: what was found up to there is not lost.
        Raises NumericsError in stage 1, or when nothing was found yet; and whatever `on_update` raises.
        """
        try:
            self._tell("answers")
            while self.state.stage < FINISHED and (n := self._affordable()) > 0:
                for answers in self._answers(self._optimiser.ask(n)):
                    self._optimiser.tell(answers)
                    del answers  # the next ones would be made beside them
                self._take_state()
                if self._optimiser.between_updates:
                    self._after_update()
                self._tell("answers")
            self._evaluate("the end")
        except NumericsError as error:
            if self.state.stage == 1 or not self.state.best.w.any():
                raise
            return Ended(self.state.best, f"a number in stage 2 cannot be used. {error}")
        return Ended(self.state.best, self._why_it_ended())

    @property
    def seconds(self) -> float:
        """Spent so far, over all the processes that worked on this run."""
        return time.monotonic() - self._started

    # Stages.

    def _begun(self) -> tuple[State, Optimiser]:
        search = self._method.begin_stage1(self._seeds("stage1"))
        w = search.solution
        T = self._objective.finite_features(w)
        if self._limits.opening_queries > 1:
            self._objective.require_one_answer(w, T)
        first = self._objective.evaluation(w, T, self._validation)
        state = State(
            stage=1,
            search=search.state,
            generations=0,
            queries=self._objective.queries,
            stage1_from=self._objective.queries,
            stage2_from=None,
            zero_shot_loss=first.train.loss,
            latest=first,
            best=first,
            best_queries=self._objective.queries,
            patience=Patience.start(first),
            plateau=Plateau(),
            seconds=self.seconds,
        )
        return state, search

    def _begin_stage2(self) -> None:
        """From the mean of stage 1, where the latest evaluation was made if that is needed."""
        state = self.state
        begun = self._method.begin_stage2(
            self._optimiser.solution, state.latest.class_features, self._seeds("stage2"), state.generations
        )
        if begun is None:
            state.stage = FINISHED
            return
        state.stage, state.stage2_from = 2, self._objective.queries
        state.patience = replace(state.patience, idle=0)  # stage 1 has its own end
        self._optimiser = begun
        self._take_state()

    def _after_update(self) -> None:
        """At the end of a generation, a step or a round."""
        if self.state.stage == 1:
            self._after_generation()
        elif self._optimiser.finished:
            self.state.stage = FINISHED
        elif self._method.is_evaluated(self._optimiser) and self._can_evaluate():
            self._evaluate(f"stage 2  {self._method.update} {self._optimiser.n_updates}")
            self.state.patience = self.state.patience.after(self.state.latest)
        if self._patience_is_out():
            self.state.stage = FINISHED

    def _after_generation(self) -> None:
        state = self.state
        state.generations = self._optimiser.n_updates
        where = f"stage 1  generation {state.generations}"
        if self._can_evaluate():
            self._evaluate(where)
            state.plateau = state.plateau.after(state.latest)
            state.patience = state.patience.after(state.latest)
        if why := self._method.why_stage1_ends(state.search, state.plateau.is_reached):
            if self._method.evaluates_before_stage2:
                self._evaluate(where)
            self._begin_stage2()
            self._tell("stage", why)

    def _patience_is_out(self) -> bool:
        patience = self._method.settings.patience
        return self.state.stage2_from is not None and 0 < patience <= self.state.patience.idle

    def _why_it_ended(self) -> str:
        if self._patience_is_out():
            watched = "validation" if self.state.latest.val else "the loss on the shots"
            n = self._method.settings.patience
            return f"{watched} has not improved for {n} evaluation{'s'[: n > 1]}"
        if self.state.stage == FINISHED:
            return self._method.why_stage2_ends
        if self._limits.is_out_of_time(self.seconds):
            return f"its {self._limits.max_minutes:g} minutes are over"
        n_queries = self._limits.max_queries
        if n_queries == 1:
            return "no step fits in 1 query"
        return f"no further step fits in its {n_queries:,} queries"

    # Queries.

    def _affordable(self) -> int:
        """How many points may be asked for now: a batch, or 0 where the limits end the run.

        They do where the update that the points begin would not fit any more: its queries would buy nothing.
        """
        room, optimiser = self._room(), self._optimiser
        if optimiser.between_updates and room < optimiser.points_of_update:
            known, _ = self._split_known(optimiser.ask(1))
            if room < optimiser.points_of_update - len(known):
                return 0
        return int(min(self._objective.batch, room))

    def _room(self) -> float:
        """Queries that are left. One is kept back for the evaluation at the end, where that costs one."""
        for_the_end = self._optimiser.solution_features is None
        return self._limits.room(self._objective.queries, self.seconds, int(for_the_end))

    def _can_evaluate(self) -> bool:
        return self._optimiser.solution_features is not None or self._room() > 0

    def _split_known(self, asked: Ask) -> tuple[Doubles, Doubles]:
        """Points of a sketch whose class features are known (the latest evaluation's), and the others."""
        w = self.state.latest.w
        n = int(asked.wants == "features" and np.array_equal(asked.points[:1], w[np.newaxis]))
        return asked.points[:n], asked.points[n:]

    def _answers(self, asked: Ask) -> Iterator[Doubles | Floats]:
        """What the optimiser wants to know, in parts."""
        known, points = self._split_known(asked)
        if len(known):
            yield self.state.latest.class_features[np.newaxis]
        if len(points):
            wants_losses = asked.wants == "losses"
            yield self._objective.losses(points) if wants_losses else self._objective.class_features(points)

    def _evaluate(self, where: str) -> None:
        """Evaluate the optimiser's w; costs one query, or none when its class features are known."""
        state, w = self.state, self._optimiser.solution
        if np.array_equal(state.latest.w, w):
            return
        T = self._optimiser.solution_features
        if T is None:
            T = self._objective.finite_features(w)
        state.latest = self._objective.evaluation(w, T, self._validation)
        if is_better(state.latest, state.best):
            state.best, state.best_queries = state.latest, self._objective.queries
        self._tell("evaluation", where)

    # The caller.

    def _tell(self, kind: Literal["evaluation", "stage", "answers"], where: str = "") -> None:
        self.state.queries = self._objective.queries
        self.state.seconds = self.seconds
        if self._on_update:
            self._on_update(Update(kind, where, self.state))

    def _take_state(self) -> None:
        """After every change: an earlier state would keep arrays that the optimiser has let go."""
        self.state.search = self._optimiser.state
