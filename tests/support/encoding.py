"""Encoding the demo's pictures, as `tune` does it, with an interrupt that comes where a test wants it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from sharpzo_edge.clip.bundle import Bundle
from sharpzo_edge.clip.towers import plan_towers
from sharpzo_edge.demo import BUNDLE, DEFAULT_TASK, TASKS
from sharpzo_edge.errors import InterruptedRunError
from sharpzo_edge.memory.plan import Plan, TowerPlan, Work
from sharpzo_edge.pictures.features import TrainingFeatures, training_features
from sharpzo_edge.pictures.few_shot import Draw
from sharpzo_edge.pictures.folder import read_folder
from sharpzo_edge.run.interrupt import Interrupt
from sharpzo_edge.run.progress import Progress
from sharpzo_edge.run.workplace import Workplace

TRAIN = TASKS / DEFAULT_TASK / "train"
SHOTS, N_VAL = 2, 1
PLAN = plan_towers(Bundle.open(BUNDLE), Work(threads=1), "none")
PASSES = replace(PLAN, image=TowerPlan("packed", group=2, together=6))  # five passes for 30 pictures


class Power:
    """An interrupt that never comes, or at the n-th look."""

    def __init__(self, looks: float = float("inf")) -> None:
        self.looks = looks

    def raise_if_received(self, what_is_kept: str) -> None:
        self.looks -= 1
        if self.looks < 0:
            raise InterruptedRunError(what_is_kept, 15)


def encode(
    work: Path,
    seed: int = 0,
    interrupt: Power | Interrupt | None = None,
    n_views: int = 1,
    *,
    images: Path = TRAIN,
    plan: Plan = PLAN,
    shots: int = SHOTS,
    strict: bool = False,
) -> TrainingFeatures:
    return training_features(
        Bundle.open(BUNDLE),
        read_folder(images),
        Draw(shots, N_VAL, np.random.SeedSequence(seed), n_views, np.random.SeedSequence(7)),
        plan,
        1,
        Workplace(work, Progress(), interrupt or Power()),
        strict=strict,
    )


def same(one: TrainingFeatures, other: TrainingFeatures) -> bool:
    return np.array_equal(one.train.features, other.train.features) and np.array_equal(
        one.val.features, other.val.features
    )


TWICE = 2  # the first picture, to see that the tower repeats itself
