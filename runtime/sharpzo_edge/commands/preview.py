"""`tune --plan`: the plan of a tune, and how long it would take here. Tunes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..clip.towers import ImageTower, TextTower
from ..memory.plan import Plan
from ..requests import TuneRequest, by_keywords
from ..run.progress import caller_of
from ..tuning.prepare import check, prepare


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
    text_plan, image_plan = ready.plan.text, ready.plan.image
    with TextTower(ready.bundle, text_plan) as text:
        contexts = np.repeat(ready.context[None], text_plan.tower.batch, axis=0)
        text_seconds = _seconds_of(lambda: text.class_features(contexts, ready.prompts))
    pixels = np.zeros((image_plan.tower.micro_batch, 3, *ready.bundle.manifest.preprocess.size), np.float32)
    n_micro_batches = image_plan.tower.batch // image_plan.tower.micro_batch
    with ImageTower(ready.bundle, image_plan) as image:
        image_seconds = _seconds_of(lambda: image.image_features([pixels] * n_micro_batches))
    n_queries = ready.settings.expected_queries
    n_queries = min(n_queries, ready.limits.max_queries or n_queries)
    n_pictures = ready.few_shot.n_rows(ready.folder)
    query, picture = text_seconds / text_plan.tower.batch, image_seconds / image_plan.tower.batch
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


def _seconds_of(run: Callable[[], object]) -> float:
    """The second of two runs: the first one warms caches."""
    run()
    started = time.monotonic()
    run()
    return max(time.monotonic() - started, 1e-6)
