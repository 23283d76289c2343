"""Encoding the demo's pictures, as `tune` does it, with an interrupt that comes where a test wants it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from sharpzo_edge.clip.bundle import Bundle
from sharpzo_edge.clip.tower_plan import ImagePlan, TowerPlan
from sharpzo_edge.demo import BUNDLE, DEFAULT_TASK, TASKS
from sharpzo_edge.memory.budget import budget_of
from sharpzo_edge.memory.plan import plan_images
from sharpzo_edge.pictures.features import TrainingFeatures, training_features
from sharpzo_edge.pictures.few_shot import FewShot
from sharpzo_edge.pictures.folder import read_folder
from sharpzo_edge.run.folder import WorkFolder
from sharpzo_edge.run.progress import Caller

TRAIN = TASKS / DEFAULT_TASK / "train"
SHOTS, N_VAL = 2, 1
PLAN = plan_images(Bundle.open(BUNDLE).manifest, 1, budget_of(None, ""))
BATCHES = replace(PLAN, tower=TowerPlan("packed", micro_batch=2, batch=6))  # five for 30 pictures


class Stop:
    """A `stop` that comes when it is asked for the n-th time, or never."""

    def __init__(self, n: float = float("inf")) -> None:
        self.n = n

    def __call__(self) -> bool:
        self.n -= 1
        return self.n < 0


def encode(
    work: Path,
    seed: int = 0,
    stop: Callable[[], bool] | None = None,
    n_views: int = 1,
    *,
    images: Path = TRAIN,
    plan: ImagePlan = PLAN,
    shots: int = SHOTS,
    strict: bool = False,
    keep: bool = False,
    said: list[str] | None = None,
) -> TrainingFeatures:
    """said: takes every line that the caller is told."""
    listeners = () if said is None else (lambda progress: said.append(progress.text),)
    return training_features(
        Bundle.open(BUNDLE),
        read_folder(images),
        FewShot(shots, N_VAL, np.random.SeedSequence(seed), n_views, np.random.SeedSequence(7)),
        plan,
        WorkFolder(work),
        Caller(listeners, stop),
        strict=strict,
        keep=keep,
    )


def same(one: TrainingFeatures, other: TrainingFeatures) -> bool:
    return np.array_equal(one.train.features, other.train.features) and np.array_equal(
        one.val.features, other.val.features
    )


TWICE = 2  # the first picture, to see that the tower repeats itself
