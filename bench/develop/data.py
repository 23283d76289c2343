"""What a development run sees: a model, a task's pictures as features, and a loop over them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from accuracy.harness.features import encoded, labelled, pool
from accuracy.harness.tasks import Task, folder_task
from sharpzo_edge.clip.bundle import Bundle
from sharpzo_edge.clip.class_prompts import checked_token_ids, class_prompts, context_from_words
from sharpzo_edge.clip.sessions import onnxruntime_version
from sharpzo_edge.clip.tower_plan import Tangents, TextPlan
from sharpzo_edge.clip.towers import TextTower
from sharpzo_edge.memory.budget import budget_of
from sharpzo_edge.memory.plan import Work, plan_text
from sharpzo_edge.seeds import seed_stream
from sharpzo_edge.tuning.loop import Ended, Loop, Update
from sharpzo_edge.tuning.methods import Method, method_of
from sharpzo_edge.tuning.objective import Objective
from sharpzo_edge.tuning.prepare import choose_tangents
from sharpzo_edge.tuning.settings import TuneSettings
from sharpzo_edge.tuning.stopping import Limits
from sharpzo_edge.types import Floats, LabelledFeatures

from .kinds import KINDS

MODELS = tuple(kind.name for kind in KINDS)
TASKS = ("groups", "families", "themes", "icon_park", "ultimate", "health")


@dataclass(frozen=True)
class Drawn:
    """One task as one model sees it, at one seed.

    classes: features (n, E) of each class, in the order in which pictures are drawn
    tests:   "test", and the shifted styles where there are any
    """

    bundle: Bundle
    task: Task
    classes: tuple[Floats, ...]
    tests: dict[str, LabelledFeatures]


@functools.cache
def opened(work: Path, model: str, task: str) -> tuple[Bundle, Task]:
    """The model's bundle and the task's pictures, as the recipe leaves them in `work`."""
    return Bundle.open(work / model / "bundle"), folder_task(task, work / "develop_tasks" / task)


def drawn(work: Path, model: str, task: str, seed: int) -> Drawn:
    bundle, found = opened(work, model, task)
    cache = work / "features"
    tests = {name: encoded(bundle, split.files, cache) for name, split in found.splits.items()}
    return Drawn(bundle, found, pool(bundle, found, seed, cache).train, tests)


def pictures_of(classes: Sequence[Floats], parts: Sequence[slice]) -> LabelledFeatures:
    """A part of each class's pictures."""
    return labelled([rows[part] for rows, part in zip(classes, parts, strict=True)])


def words_features(bundle: Bundle, names: Sequence[str]) -> Floats:
    """Class features (K, E) of the bundle's initial words. Costs one query."""
    context = context_from_words(bundle, bundle.manifest.initial_context)
    with TextTower(bundle, _plan(bundle, names, len(context))) as tower:
        T = tower.class_features(context[np.newaxis], class_prompts(bundle, tuple(names), len(context)))
    found: Floats = T[0]
    return found


def tuned(
    bundle: Bundle,
    names: Sequence[str],
    settings: TuneSettings,
    train: LabelledFeatures,
    val: LabelledFeatures,
    seed: int,
    max_queries: int | None,
    on_evaluation: Callable[[Update], Any],
    make_method: Callable[..., Method] = method_of,
    make_objective: Callable[..., Objective] = Objective,
) -> Ended:
    """A run of the product's own loop on one thread. on_evaluation is told of every evaluation.

    make_method, make_objective: for trials of another loss
    """
    context = context_from_words(bundle, bundle.manifest.initial_context)
    settings = settings.for_context(context.size).with_tangents(functools.partial(choose_tangents, bundle))
    plan = _plan(bundle, names, len(context), settings.tower_tangents)

    def see(update: Update) -> None:
        if update.kind == "evaluation":
            on_evaluation(update)

    with TextTower(bundle, plan) as tower:
        prompts = class_prompts(bundle, tuple(names), len(context))
        A = settings.projection(seed_stream(seed, "projection"), context)
        scale = bundle.manifest.logit_scale
        has_tangents = plan.tangents is not None
        objective = make_objective(tower, prompts, context, A, train, scale, plan.tower.batch, has_tangents)
        method = make_method(settings, train, scale)
        loop = Loop(
            method, objective, val, Limits(max_queries), functools.partial(seed_stream, seed), on_update=see
        )
        return loop.run()


def _plan(bundle: Bundle, names: Sequence[str], n_context: int, tangents: Tangents | None = None) -> TextPlan:
    lengths = tuple(map(len, checked_token_ids(bundle, tuple(names), n_context)))
    work = Work(name_lengths=lengths, n_context=n_context, threads=1, tangents=tangents)
    return plan_text(bundle.manifest, work, budget_of(None, onnxruntime_version()))
