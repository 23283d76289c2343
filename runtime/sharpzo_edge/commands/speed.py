"""How fast a bundle's towers are on this machine, by batches through them."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np

from ..clip.bundle import Bundle
from ..clip.class_prompts import ClassPrompts
from ..clip.tower_plan import ImagePlan, TextPlan
from ..clip.towers import ImageTower, TextTower
from ..types import Floats


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
