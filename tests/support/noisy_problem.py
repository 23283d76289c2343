"""A few-shot problem of the accuracy bench, on the embedded model, that every method can learn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from accuracy.methods.method import Problem
from sharpzo_edge.clip.bundle import Bundle
from sharpzo_edge.clip.class_prompts import class_prompts, context_from_words
from sharpzo_edge.clip.tower_plan import RESIDENT, TextPlan
from sharpzo_edge.clip.towers import TextTower
from sharpzo_edge.types import LabelledFeatures

NAMES = ("food", "sport", "clothing", "sky")


@contextmanager
def noisy_problem(bundle: Bundle, noise: float, n_shots: int, n_val: int) -> Iterator[Problem]:
    """Noisy pictures that lie between their class's features and, a little nearer, the next class's."""
    rng = np.random.default_rng(0)
    context = context_from_words(bundle, "a photo of a")
    with TextTower(bundle, TextPlan(RESIDENT, chunk_rows=256, threads=1)) as tower:
        T = tower.class_features(context[np.newaxis], class_prompts(bundle, NAMES, 4))[0]
        T = 0.45 * T + 0.55 * np.roll(T, 1, axis=0)

        def drawn(n: int) -> LabelledFeatures:
            labels = np.repeat(np.arange(len(NAMES)), n)
            X = T[labels] + noise * rng.standard_normal((len(labels), T.shape[1])).astype(np.float32)
            return LabelledFeatures(X / np.linalg.norm(X, axis=1, keepdims=True), labels)

        size = bundle.manifest.preprocess.size
        pixels = rng.standard_normal((n_shots * len(NAMES), 3, *size)).astype(np.float32)
        yield Problem(
            "test", bundle, tower, 16, NAMES, context, drawn(n_shots), drawn(n_val), 0, 1, lambda: pixels
        )
