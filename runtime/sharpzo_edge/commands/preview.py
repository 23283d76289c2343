"""The plan of a tune, and how long it would take here: `tune --plan`. Tunes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ..clip.towers import ImageTower, TextTower
from ..tuning.loop import expected_queries
from ..tuning.prepare import prepare
from ..tuning.request import TuneRequest, check


def preview(request: TuneRequest) -> dict[str, Any]:
    """The plan, and how long it would take on this machine by a pass through each tower.

    Returns what `tune --plan --json` prints. Raises what `tune` would raise before its work begins.
    """
    check(request)
    ready = prepare(request)
    plan = ready.plan
    assert plan.text is not None and plan.image is not None  # tuning needs both
    with TextTower(ready.bundle, plan.text, request.threads) as text:
        contexts = np.repeat(ready.context[None], plan.text.together, axis=0)
        a_pass = _seconds_of(lambda: text.class_features(contexts, ready.prompts))
    pixels = np.zeros((plan.image.group, 3, *ready.bundle.manifest.preprocess.size), np.float32)
    n_groups = plan.image.together // plan.image.group
    with ImageTower(ready.bundle, plan.image, request.threads) as image:
        picture_pass = _seconds_of(lambda: image.image_features([pixels] * n_groups))
    n_queries = expected_queries(ready.settings)
    n_queries = min(n_queries, request.query_limit or n_queries)
    n_pictures = request.draw.n_rows(ready.folder)
    query, picture = a_pass / plan.text.together, picture_pass / plan.image.together
    total = n_pictures * picture + n_queries * query
    if request.max_minutes is not None:
        total = min(total, n_pictures * picture + request.max_minutes * 60)
    return {
        "plan": plan.report(),
        "said": plan.lines(),
        "queries": n_queries,
        "queries_per_second": 1 / query,
        "pictures": n_pictures,
        "pictures_per_second": 1 / picture,
        "seconds": total,
    }


def _seconds_of(run: Callable[[], object]) -> float:
    """The second of two runs: the first one warms caches."""
    run()
    started = time.monotonic()
    run()
    return max(time.monotonic() - started, 1e-6)
