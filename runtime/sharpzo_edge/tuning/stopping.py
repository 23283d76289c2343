"""When a run ends, when stage 1 ends by itself, and which evaluation is the result."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self

from .objective import Evaluation

# The automatic change of stage (paper, sec. 3.1). Stage 1 ends when validation accuracy was not more than
# ACCURACY_RISE above its best for so many generations. Without validation pictures: when the loss on the
# shots has not fallen by the share LOSS_FALL.
PATIENCE_GENERATIONS = 10
ACCURACY_RISE = 0.01
LOSS_FALL = 0.01


@dataclass(frozen=True)
class Limits:
    """What a user sets to end a run. None is no limit.

    max_queries: all queries of the run
    max_minutes: counted from the first query
    """

    max_queries: int | None = None
    max_minutes: float | None = None

    @property
    def opening_queries(self) -> int:
        """Queries before stage 1: the evaluation at w = 0, and its repetition if max_queries allows it."""
        return 1 if self.max_queries == 1 else 2

    def is_out_of_time(self, seconds: float) -> bool:
        """Whether these seconds are more than max_minutes."""
        return self.max_minutes is not None and seconds > self.max_minutes * 60

    def room(self, queries: int, seconds: float, kept_back: int) -> float:
        """How many queries may still be spent; infinite without a limit, 0 when the time is over.

        queries, seconds: spent so far;  kept_back: queries to reserve for the end
        """
        if self.is_out_of_time(seconds):
            return 0
        return math.inf if self.max_queries is None else max(0, self.max_queries - kept_back - queries)


@dataclass(frozen=True)
class Patience:
    """Counts evaluations without improvement. Part of the checkpoint.

    An improvement is a lower loss or a higher accuracy on validation pictures. Without them it is a loss on
    the shots that is lower by the share LOSS_FALL.

    lowest_loss, highest_accuracy: over all evaluations so far
    idle:       evaluations since the last improvement
    """

    lowest_loss: float
    highest_accuracy: float
    idle: int

    @classmethod
    def start(cls, first: Evaluation) -> Self:
        return cls(first.watched.loss, first.watched.accuracy, 0)

    def after(self, found: Evaluation) -> Self:
        """The counter after one more evaluation."""
        watched, is_validated = found.watched, found.val is not None
        is_lower = watched.loss < (self.lowest_loss if is_validated else (1 - LOSS_FALL) * self.lowest_loss)
        is_higher = is_validated and watched.accuracy > self.highest_accuracy
        return replace(
            self,
            lowest_loss=watched.loss if is_lower else self.lowest_loss,
            highest_accuracy=watched.accuracy if is_higher else self.highest_accuracy,
            idle=0 if is_lower or is_higher else self.idle + 1,
        )


@dataclass(frozen=True)
class Plateau:
    """Counts generations of stage 1 without a new best, for the automatic change of stage.

    best:  highest validation accuracy so far; without validation pictures, minus the lowest loss on the shots
    stale: generations in a row that did not raise it enough
    """

    best: float | None = None
    stale: int = 0

    def after(self, found: Evaluation) -> Self:
        """The counter after one more evaluation."""
        figure = found.watched.accuracy if found.val else -found.watched.loss
        if self.best is None:
            return replace(self, best=figure)
        rise = ACCURACY_RISE if found.val else LOSS_FALL * abs(self.best)
        stale = 0 if figure > self.best + rise else self.stale + 1
        return replace(self, best=max(self.best, figure), stale=stale)

    @property
    def is_reached(self) -> bool:
        """Whether stage 1 should end."""
        return self.stale >= PATIENCE_GENERATIONS


def is_better(found: Evaluation, best: Evaluation) -> bool:
    """Whether `found` takes the place of the best evaluation so far.

    By validation the lower loss is better; a few pictures show smaller differences in loss than in
    accuracy. Of equal losses the higher accuracy is better, and of equal evaluations the earlier stays.
    Without validation pictures the later evaluation is better.
    """
    if found.val is None:
        return True
    return (found.watched.loss, -found.watched.accuracy) < (best.watched.loss, -best.watched.accuracy)
