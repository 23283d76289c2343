"""The run that all pictures in one place would give, to compare a fleet with.

It is the product's own tune on the very pictures that members draw: objective, losses and heads are those of
`tuning`. Only what a fleet cannot do is left out: the kernel head, and more than one look at the linear model
in a round.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ..clip.towers import TextTower
from ..commands.outcome import prompt_of, result_of
from ..commands.stages import searched
from ..commands.tune import objective_on
from ..heads.fit import AUTO, OF_SUMS
from ..pictures.features import TrainingFeatures, training_features
from ..pictures.folder import read_folder
from ..requests import TuneRequest
from ..run.files import make_folder
from ..run.folder import WorkFolder
from ..run.progress import Caller
from ..search.gauss_newton import quadratic_model
from ..search.losses import FeatureLoss
from ..search.sketched_descent import ModelOf
from ..tuning.answers import compare
from ..tuning.methods import method_by
from ..tuning.prepare import Prepared, prepare
from ..tuning.result import TuneResult
from ..tuning.tuned_prompt import save_prompt
from ..types import LabelledFeatures, joined
from .board import relabelled, with_pictures
from .fleet_objective import points_at_once


class Pooled:
    """Pictures (see commands.tune.Pictures): those that members with these folders draw."""

    command = "tune"

    def __init__(self, folders: Sequence[Path], model_of: ModelOf = quadratic_model):
        """model_of: of edge's stage 2; by default as a fleet has it"""
        self._folders, self._model_of = folders, model_of

    def prepare(self, request: TuneRequest) -> Prepared:
        return prepare(request, read_folder(self._folders[0]))

    def refuse_others(self, request: TuneRequest, ready: Prepared, work: WorkFolder, caller: Caller) -> None:
        """Nothing: a comparison is made once."""

    def tuned(self, request: TuneRequest, ready: Prepared, work: WorkFolder, caller: Caller) -> TuneResult:
        parts = [self._drawn(i, ready, work, caller) for i in range(len(self._folders))]
        train, val = (together([getattr(part, name) for part in parts]) for name in ("train", "val"))
        scale, tower = ready.bundle.manifest.logit_scale, TextTower(ready.bundle, ready.plan.text)
        at_once = points_at_once(len(ready.folder.names), ready.bundle.manifest.embed_dim)
        objective = objective_on(request, ready, tower, train, at_once)
        method = method_by(ready.settings, partial(FeatureLoss, train, scale), self._model_of)
        found = searched(request, ready, objective, method, tower, val, "pooled", work, caller)
        shots = together([LabelledFeatures(p.train.features, p.train.labels[: p.n_shots]) for p in parts])
        kind = OF_SUMS if ready.head == AUTO else ready.head
        prompt = found.best.class_features if found.best.w.any() else None
        answers = compare(kind, joined(shots, val), len(shots), found.words, prompt, scale)
        save_prompt(request.output_path, prompt_of(request, ready, found, answers))
        return result_of(request, ready, found, answers, len(shots))

    def _drawn(self, i: int, ready: Prepared, work: WorkFolder, caller: Caller) -> TrainingFeatures:
        folder, classes = with_pictures(read_folder(self._folders[i]))
        own = WorkFolder(work.path / f"board-{i}")
        make_folder(own.path)
        found = training_features(ready.bundle, folder, ready.few_shot, ready.plan.image, own, caller)
        return relabelled(found, classes)


def together(parts: Sequence[LabelledFeatures]) -> LabelledFeatures:
    """One part after the other, in memory."""
    features = np.concatenate([part.features[: len(part)] for part in parts])
    return LabelledFeatures(features, np.concatenate([part.labels for part in parts]))
