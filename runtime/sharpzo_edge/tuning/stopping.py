"""When a run ends, when its stage changes, and which evaluation is the result."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self

from .objective import Evaluation

# The automatic change of stage (paper, sec. 3.1): validation accuracy has not risen by more than this
# over its best for so many generations; without validation pictures, the loss has not fallen by 1 %.
PATIENCE_GENERATIONS = 10
ACCURACY_RISE = 0.01
LOSS_FALL = 0.01


@dataclass(frozen=True)
class Limits:
    """What ends a run from outside; None is no limit. Minutes count from the first query."""

    max_queries: int | None = None
    max_minutes: float | None = None

    @property
    def opening_queries(self) -> int:
        """Before stage 1: the evaluation at w = 0, and its repetition where there is room for it."""
        return 1 if self.max_queries == 1 else 2

    def is_out_of_time(self, seconds: float) -> bool:
        return self.max_minutes is not None and seconds > self.max_minutes * 60

    def room(self, queries: int, seconds: float, kept_back: int) -> float:
        """Queries that are left to spend, when so many are kept back for the end."""
        if self.is_out_of_time(seconds):
            return 0
        return math.inf if self.max_queries is None else max(0, self.max_queries - kept_back - queries)


@dataclass(frozen=True)
class Patience:
    """Counts evaluations without improvement; part of the checkpoint.

    An improvement is a lower loss or a higher accuracy on validation pictures; without them, a loss on the
    shots that is lower by LOSS_FALL.

    lowest_loss, highest_accuracy: of all evaluations
    idle: evaluations since one of them improved
    """

    lowest_loss: float
    highest_accuracy: float
    idle: int

    @classmethod
    def start(cls, first: Evaluation) -> Self:
        return cls(first.watched.loss, first.watched.accuracy, 0)

    def after(self, found: Evaluation) -> Self:
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

    best: validation accuracy, or else minus the loss on the shots; stale: generations since it rose
    """

    best: float | None = None
    stale: int = 0

    def after(self, found: Evaluation) -> Self:
        figure = found.val.accuracy if found.val else -found.train.loss
        if self.best is None:
            return replace(self, best=figure)
        rise = ACCURACY_RISE if found.val else LOSS_FALL * abs(self.best)
        stale = 0 if figure > self.best + rise else self.stale + 1
        return replace(self, best=max(self.best, figure), stale=stale)

    @property
    def is_reached(self) -> bool:
        return self.stale >= PATIENCE_GENERATIONS


def is_better(found: Evaluation, best: Evaluation) -> bool:
    """By validation loss, which a few pictures tell finer than accuracy; equal ones by accuracy.

    A later evaluation is not better for being later; where nothing is validated, it is.
    """
    if found.val is None or best.val is None:
        return True
    return (found.val.loss, -found.val.accuracy) < (best.val.loss, -best.val.accuracy)
