"""The loop over both stages: it asks an optimiser for points, tells it the answers, and evaluates.

It knows no files and no terminal. All that changes is in one State, which is the checkpoint: a loop that is
given a state goes on as if it had never stopped. After each event it calls `on_update`. That function may
save the state, show it, or raise an error to stop the loop.

Stage 2 starts at the mean of stage 1 (paper, algorithm 1). The result is the best evaluation on validation
pictures. Without validation pictures it is the last evaluation.
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
from ..wording import counted
from .methods import Method, SearchState
from .objective import BaseObjective, Evaluation
from .stopping import Limits, Patience, Plateau, is_better

FINISHED = 3  # the stage when both are done


@dataclass
class State:
    """A run at one moment: the checkpoint.

    stage:       1, 2, or FINISHED
    search:      state of the present optimiser, or of the last one
    generations: of stage 1, made so far
    queries:     all so far, those before stage 1 included
    stage1_from, stage2_from: queries when the stage began; None before stage 2
    opening:     the evaluation at w = 0
    latest:      the latest evaluation
    best:        the best evaluation on validation pictures, or the latest without them
    best_queries: queries when the best evaluation was made
    patience, plateau: see stopping
    seconds:     spent so far, over all processes that worked on the run
    """

    stage: int
    search: SearchState
    generations: int
    queries: int
    stage1_from: int
    stage2_from: int | None
    opening: Evaluation
    latest: Evaluation
    best: Evaluation
    best_queries: int
    patience: Patience
    plateau: Plateau
    seconds: float

    @property
    def stage1_queries(self) -> int:
        """Queries of stage 1, those before it left out."""
        return (self.queries if self.stage2_from is None else self.stage2_from) - self.stage1_from

    @property
    def stage2_queries(self) -> int:
        """Queries of stage 2."""
        return 0 if self.stage2_from is None else self.queries - self.stage2_from


@dataclass(frozen=True)
class Update:
    """What has just happened in a loop.

    kind:  "evaluation": state.latest is new. "stage": stage 1 has ended. "answers": a batch of queries was
           answered, and perhaps the optimiser made an update
    where: "zero-shot", "stage 1  generation 3"; for "stage", why stage 1 has ended
    state: the run at this moment. The loop goes on changing it
    """

    kind: Literal["evaluation", "stage", "answers"]
    where: str
    state: State


@dataclass(frozen=True)
class Ended:
    """How a run has ended.

    best: the evaluation that is the result
    why:  the reason, in words for the user
    """

    best: Evaluation
    why: str


class Loop:
    """Runs both stages on one objective.

    loop = Loop(method, objective, validation, Limits(max_queries=500), seeds)
    best = loop.run().best
    """

    def __init__(
        self,
        method: Method,
        objective: BaseObjective,
        validation: LabelledFeatures,
        limits: Limits,
        seeds: Callable[[str], np.random.SeedSequence],
        *,
        state: State | None = None,
        on_update: Callable[[Update], None] | None = None,
    ):
        """Go on from a state. Without one: evaluate w = 0, twice if the limits have room for it.

        validation: the validation pictures, or none (length 0)
        seeds:      name of a seed stream ("stage1", "stage2") -> its seed
        Raises NumericsError when the class features at w = 0 are not finite, or differ the second time.
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
        """Run until both stages are done, the patience is used up, or a limit is reached.

        A NumericsError in stage 2 ends the run too, and the best evaluation so far is the result. Raises
        NumericsError in stage 1, or if nothing better than w = 0 was found; and whatever `on_update` raises.
        """
        try:
            self._tell("answers")
            while self.state.stage < FINISHED and (n := self._affordable()) > 0:
                for answers in self._answers(self._optimiser.ask(n)):
                    self._optimiser.tell(answers)
                    del answers  # freed before the next answers are made
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
        """Seconds spent so far, over all processes that worked on this run."""
        return time.monotonic() - self._started

    # Stages.

    def _begun(self) -> tuple[State, Optimiser]:
        """A new run's state, evaluated at w = 0, and the optimiser of stage 1."""
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
            opening=first,
            latest=first,
            best=first,
            best_queries=self._objective.queries,
            patience=Patience.start(first),
            plateau=Plateau(),
            seconds=self.seconds,
        )
        return state, search

    def _begin_stage2(self) -> None:
        """Start stage 2 at the mean of stage 1. If the method needs it, the latest evaluation is there."""
        state = self.state
        begun = self._method.begin_stage2(
            self._optimiser.solution, state.latest.class_features, self._seeds("stage2"), state.generations
        )
        if begun is None:
            state.stage = FINISHED
            return
        state.stage, state.stage2_from = 2, self._objective.queries
        state.patience = replace(state.patience, idle=0)  # patience counts from the beginning of stage 2
        self._optimiser = begun
        self._take_state()

    def _after_update(self) -> None:
        """What follows a complete update: an evaluation, a new stage, or the end."""
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
            return f"{watched} has not improved for {counted(n, 'evaluation')}"
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
        """How many points to ask for now: at most a batch. 0 ends the run.

        It is 0 when the rest of the limit is too small for the update that would begin: its queries would be
        wasted.
        """
        room, optimiser = self._room(), self._optimiser
        needed = optimiser.points_of_update + self._objective.primal_queries * optimiser.has_sketch
        if optimiser.between_updates and room < needed:
            known, _ = self._split_known(optimiser.ask(1))
            if room < needed - len(known):
                return 0
        return int(min(self._objective.batch, room))

    def _room(self) -> float:
        """Queries that are left. One is reserved for the evaluation at the end, unless that costs none."""
        for_the_end = self._optimiser.solution_features is None
        return self._limits.room(self._objective.queries, self.seconds, int(for_the_end))

    def _can_evaluate(self) -> bool:
        return self._optimiser.solution_features is not None or self._room() > 0

    def _split_known(self, asked: Ask) -> tuple[Doubles, Doubles]:
        """The points of `asked` in two parts: those whose class features are known, and the others.

        Only the centre of a sketch can be known: it is where the latest evaluation was made.
        """
        w = self.state.latest.w
        n = int(asked.wants == "features" and np.array_equal(asked.points[:1], w[np.newaxis]))
        return asked.points[:n], asked.points[n:]

    def _answers(self, asked: Ask) -> Iterator[Doubles | Floats]:
        """Yields the answers to `asked`, in one or two parts."""
        known, points = self._split_known(asked)
        if len(known):
            yield self.state.latest.class_features[np.newaxis]
        if asked.centre and len(points):
            yield self._objective.tangents(asked.centre, points)
        elif len(points):
            wants_losses = asked.wants == "losses"
            yield self._objective.losses(points) if wants_losses else self._objective.class_features(points)

    def _evaluate(self, where: str) -> None:
        """Evaluate the optimiser's solution. Costs one query, or none if its class features are known.

        It does nothing if the latest evaluation was made there.
        """
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
        """Bring the state up to date, and call `on_update`."""
        self.state.queries = self._objective.queries
        self.state.seconds = self.seconds
        if self._on_update:
            self._on_update(Update(kind, where, self.state))

    def _take_state(self) -> None:
        """Put the optimiser's state into the run's, after every change: so its old arrays can be freed."""
        self.state.search = self._optimiser.state
