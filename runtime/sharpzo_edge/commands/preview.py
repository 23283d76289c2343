"""`tune --plan`: the plan of a tune, and how long it would take here. Tunes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..clip.bundle import Bundle
from ..clip.class_prompts import ClassPrompts
from ..clip.tower_plan import ImagePlan, TextPlan
from ..clip.towers import ImageTower, TextTower
from ..memory.plan import Plan
from ..requests import TuneRequest, by_keywords
from ..run.progress import caller_of
from ..tuning.prepare import check, prepare
from ..types import Floats


@dataclass(frozen=True)
class Preview:
    """queries, pictures: of the whole run; seconds: about, in the towers, decoding and arithmetic aside.

    queries, seconds: the most;  likely_queries, likely_seconds: when patience is likely to end it
    """

    plan: Plan
    queries: float
    queries_per_second: float
    pictures: int
    pictures_per_second: float
    seconds: float
    likely_queries: float
    likely_seconds: float

    def to_json(self) -> dict[str, Any]:
        return {
            "plan": self.plan.to_json(),
            "queries": self.queries,
            "queries_per_second": self.queries_per_second,
            "pictures": self.pictures,
            "pictures_per_second": self.pictures_per_second,
            "seconds": self.seconds,
            "likely_queries": self.likely_queries,
            "likely_seconds": self.likely_seconds,
        }


def preview_of(request: TuneRequest) -> Preview:
    """The plan, and how long it would take on this machine by a batch through each tower.

    Arguments are those of `tune`. Raises what `tune` would raise before its work begins.
    """
    check(request)
    ready = prepare(request)
    caller = caller_of(request.on_progress, request.stop)
    for note in ready.notes:
        caller.say(f"note: {note}")
    query, direction = text_seconds(ready.bundle, ready.plan.text, ready.context, ready.prompts)
    if direction:
        query += (direction - query) * ready.settings.tangents_share
    picture = image_seconds(ready.bundle, ready.plan.image)
    n_queries = ready.settings.expected_queries
    n_queries = min(n_queries, ready.limits.max_queries or n_queries)
    n_pictures = ready.few_shot.n_rows(ready.folder)
    likely = min(n_queries, ready.settings.likely_queries)

    def seconds(queries: float) -> float:
        tuning = queries * query
        if request.max_minutes is not None:
            tuning = min(tuning, request.max_minutes * 60)
        return n_pictures * picture + tuning

    return Preview(
        ready.plan,
        n_queries,
        1 / query,
        n_pictures,
        1 / picture,
        seconds(n_queries),
        likely,
        seconds(likely),
    )


preview = by_keywords(TuneRequest)(preview_of)


def text_seconds(
    bundle: Bundle, plan: TextPlan, context: Floats, prompts: ClassPrompts, at_least: float = 0.0
) -> tuple[float, float | None]:
    """Seconds a query, by batches through the text tower, for some seconds at least. context: (m, D).

    The second number is the same of a direction; None where the plan has no tangents.
    """
    n = plan.tower.batch
    contexts = np.repeat(context[None], n, axis=0)
    with TextTower(bundle, plan) as tower:
        query = _seconds_of(lambda: tower.class_features(contexts, prompts), at_least) / n
        if not plan.tangents:
            return query, None
        sketch = partial(tower.class_feature_tangents, context, contexts, prompts)
        return query, _seconds_of(sketch, at_least) / n


def image_seconds(bundle: Bundle, plan: ImagePlan, at_least: float = 0.0) -> float:
    """Seconds a picture, by batches through the image tower, for some seconds at least."""
    pixels = np.zeros((plan.tower.micro_batch, 3, *bundle.manifest.preprocess.size), np.float32)
    batch = [pixels] * (plan.tower.batch // plan.tower.micro_batch)
    with ImageTower(bundle, plan) as tower:
        return _seconds_of(lambda: tower.image_features(batch), at_least) / plan.tower.batch


def _seconds_of(run: Callable[[], object], at_least: float) -> float:
    """The mean of one run or more, after one that warms caches."""
    run()
    started, n_runs = time.monotonic(), 0
    while n_runs == 0 or time.monotonic() - started < at_least:
        run()
        n_runs += 1
    return max(time.monotonic() - started, 1e-6) / n_runs
