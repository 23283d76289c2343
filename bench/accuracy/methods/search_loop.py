"""The loop that every method of losses alone shares: ask, evaluate, answer, and look now and then.

A search is a generator: it yields an Ask and is sent the losses at the points that it asked for. It knows
nothing of queries, batches or pictures, and ends, if ever, with an Ask of no points.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import NamedTuple

import numpy as np

from sharpzo_edge.search.losses import logits_of, scores
from sharpzo_edge.tuning.objective import Objective
from sharpzo_edge.types import Doubles, Floats

from .method import Moment

LOOK_EVERY = 75  # queries between two looks, of which each costs one


class Ask(NamedTuple):
    """points: (n, d) float64 whose losses are wanted; w: (d,) what an end at this moment would return."""

    points: Doubles
    w: Doubles


Search = Generator[Ask, Doubles, None]


def watched(objective: Objective, search: Search, max_queries: int) -> Iterator[Moment]:
    """A look at the search's first w, one about every LOOK_EVERY queries, and one at its last w.

    Ends when the next points and the look behind them would pass max_queries, or when a look meets numbers
    that are not finite: then the look before it was the last one.
    """
    ask = next(search)
    seen: Doubles | None = None
    due = 0
    while True:
        ends = _ends(objective, ask, max_queries)
        if (ends or objective.queries >= due) and (seen is None or not np.array_equal(seen, ask.w)):
            moment = look(objective, ask.w)
            if not np.isfinite(moment.train_loss):
                return
            yield moment
            seen, due = ask.w.copy(), objective.queries + LOOK_EVERY
            ends = _ends(objective, ask, max_queries)  # the look may have taken the last query that fitted
        if ends:
            return
        ask = search.send(losses(objective, ask.points))


def _ends(objective: Objective, ask: Ask, max_queries: int) -> bool:
    return not len(ask.points) or objective.queries + len(ask.points) + 1 > max_queries


def look(objective: Objective, w: Doubles) -> Moment:
    """What w is worth. Costs one query."""
    with np.errstate(invalid="ignore", over="ignore"):
        return moment_of(objective, objective.class_features(w[np.newaxis])[0])


def moment_of(objective: Objective, class_features: Floats, seconds: float | None = None) -> Moment:
    """Of class features (K, E) that are known already. Costs no query."""
    scale = objective.logit_scale
    (train,) = scores(class_features[np.newaxis], objective.pictures, scale)
    return Moment(
        objective.queries, train.loss, lambda features: logits_of(features, class_features, scale), seconds
    )


def losses(objective: Objective, points: Doubles) -> Doubles:
    """(n, d) -> (n,), in batches of the tower's size. Costs n queries."""
    parts = range(0, len(points), objective.batch)
    with np.errstate(over="ignore"):
        return np.concatenate([objective.losses(points[i : i + objective.batch]) for i in parts])
