"""All that comes before the work of a tune: it checks the request, fixes the settings, and makes the plan.

It reads the bundle and lists the pictures. It opens no picture and runs no tower.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..clip.bundle import Bundle
from ..clip.class_prompts import (
    ClassPrompts,
    checked_token_ids,
    context_from_words,
    prompts_of,
    random_context,
)
from ..clip.sessions import check_threads, onnxruntime_version
from ..errors import BudgetError, UsageError
from ..heads import fit as heads
from ..machine import Machine
from ..memory.budget import Budget, budget_of, machine_for
from ..memory.plan import Plan, Work, make_plan
from ..pictures.few_shot import FewShot
from ..pictures.folder import LabelledFolder, read_folder
from ..processor import this_processor
from ..requests import TuneRequest
from ..run.folder import WorkFolder
from ..run.output import check_output
from ..search import cmaes
from ..seeds import seed_stream
from ..types import Floats
from .known import checked_share
from .objective import projection_bytes
from .presets import HEAD_ALONE, overrides_of, settings_for
from .resume import made_for, remembered_machine
from .settings import AUTO, NO_TANGENTS, TuneSettings
from .stopping import Limits

HEADS = (heads.AUTO, *heads.KINDS, "none")


@dataclass(frozen=True)
class Prepared:
    """A tune that is ready to begin.

    context:        (m, D) float32, the initial one
    context_words:  the words that it consists of; None for random vectors
    settings:       of this run: for this context, and with the sketch that the plan has room for
    wanted_columns: columns of the sketch that was asked for
    made_for:       what decides the run's numbers, by the names of options
    head:           the kind of head; "none" where none is wanted, or the memory budget has no room for it
    machine:        what it could give when the run began
    notes:          messages for the user
    """

    bundle: Bundle
    folder: LabelledFolder
    few_shot: FewShot
    context: Floats
    context_words: str | None
    settings: TuneSettings
    wanted_columns: int
    limits: Limits
    budget: Budget
    machine: Machine
    plan: Plan
    prompts: ClassPrompts
    made_for: dict[str, Any]
    head: str
    notes: tuple[str, ...]


def prepare(request: TuneRequest, folder: LabelledFolder | None = None, in_fleet: bool = False) -> Prepared:
    """Read the bundle, the picture folder and the class names, and make the plan. Call `check` before.

    folder: in place of the one that the request names;  in_fleet: see budget_of
    The plan of a run that has begun is made for the machine as it was then.
    Raises UsageError or a subclass of it for what the user can change, BudgetError when no plan fits.
    """
    asked, notes = settings_for(request.preset, overrides_of(request))
    bundle = Bundle.open(Path(request.bundle))
    if folder is None:
        folder = read_folder(Path(request.images), Path(request.class_names) if request.class_names else None)
    may_do_without_tangents = asked.tower_tangents is not None and request.tangents in (None, AUTO)
    asked = asked.with_tangents(partial(choose_tangents, bundle))
    words = initial_words(request, bundle)
    context = initial_context(request, bundle, words)
    name_ids = checked_token_ids(bundle, folder.names, len(context), folder.folders)
    settings = asked.for_context(context.size)
    few_shot = few_shot_of(request)
    limits = Limits(
        asked.default_queries if request.max_queries is None else request.max_queries, request.max_minutes
    )
    begun = None if request.restart else remembered_machine(WorkFolder.of(request.output_path))
    machine = begun or machine_for(bundle, request.threads, request.memory_budget)
    head_bytes = heads.peak_bytes(len(folder.names), bundle.manifest.embed_dim, few_shot.n_taken(folder))
    work = replace(
        work_of(settings, context, name_ids, request.threads or machine.cores),
        n_features=few_shot.n_rows(folder),
        listing_bytes=folder.listing_bytes,
        listing_peak_bytes=folder.listing_peak_bytes,
        head_bytes=0 if request.head == "none" else head_bytes,
        may_do_without_head=request.head == heads.AUTO and settings.tunes,
    )
    budget = budget_of(request.memory_budget, onnxruntime_version(), machine, in_fleet)
    try:
        plan = make_plan(bundle.manifest, work, budget)
    except BudgetError:
        if not may_do_without_tangents:
            raise
        asked, settings = (s.with_tangents(lambda _: NO_TANGENTS) for s in (asked, settings))
        plan = make_plan(bundle.manifest, replace(work, tangents=None), budget)
        notes.append(
            "tangents are left out: there is no room for them. Differences take their place, and more time"
        )
    budget.require_floor()
    if budget.note:
        notes.append(budget.note)
    if request.head != "none" and not plan.has_head:
        larger = "more memory" if budget.note else "a larger --memory-budget"
        notes.append(f"the head is left out: there is no room for it. --head auto with {larger} makes one")
    return Prepared(
        bundle=bundle,
        folder=folder,
        few_shot=few_shot,
        context=context,
        context_words=words if request.context_tokens is None else None,
        settings=settings.with_sketch(plan.sketch),
        wanted_columns=settings.sketches[0].n_columns,
        limits=limits,
        budget=budget,
        machine=machine,
        plan=plan,
        prompts=prompts_of(bundle, folder.names, name_ids, len(context), plan.text.chunk_rows),
        made_for=made_for(request, asked, limits, words, bundle, folder, plan, budget),
        head=request.head if plan.has_head else "none",
        notes=tuple(notes),
    )


def few_shot_of(request: TuneRequest) -> FewShot:
    """Which pictures of a class are taken, and how often a shot is seen."""
    split, views = (seed_stream(request.seed, name) for name in ("split", "views"))
    return FewShot(request.shots, request.val, split, request.views, views)


def work_of(settings: TuneSettings, context: Floats, name_ids: Sequence[list[int]], threads: int) -> Work:
    """The sizes of both stages. context: (m, D) at w = 0;  name_ids: tokens of each class name"""
    is_projected = settings.is_projected(context.size)
    return Work(
        name_lengths=tuple(map(len, name_ids)),
        n_context=len(context),
        threads=threads,
        dim=settings.dim if settings.tunes else 0,
        sketches=settings.sketches,
        tangents=settings.tower_tangents,
        search_bytes=cmaes.peak_bytes(settings.stage1()) if settings.tunes else 0,
        projection_bytes=projection_bytes(context.size, settings.dim) if is_projected else 0,
    )


def choose_tangents(bundle: Bundle, wanted: str, has_int8: bool | None = None) -> str:
    """How tangents are computed, one of TANGENTS. wanted: as the option has it.

    auto: 8 bits where the processor has instructions for that. Others may be slower so, or round too much.
    has_int8: whether it has them; None: this machine's is asked
    Raises UsageError for what the bundle does not have.
    """
    spec = bundle.manifest.text.tangents
    found = [NO_TANGENTS, *(["fp32"] if spec else []), *(["int8"] if spec and spec.data else [])]
    if wanted == AUTO:
        has_int8 = this_processor().has_int8_dot if has_int8 is None else has_int8
        return found[-1] if has_int8 else found[min(1, len(found) - 1)]
    if wanted not in found:
        raise UsageError(
            f"--tangents {wanted} cannot be used with the bundle {bundle.folder}: it has no graphs for that. "
            f"It has: {', '.join(found)}. Leave --tangents out, or export the bundle again"
        )
    return wanted


def initial_words(request: TuneRequest, bundle: Bundle) -> str:
    """The words that the context starts from."""
    return bundle.manifest.initial_context if request.context_init is None else request.context_init


def initial_context(request: TuneRequest, bundle: Bundle, words: str) -> Floats:
    """The context at w = 0: (m, D) float32, the embeddings of `words` or random vectors."""
    if request.context_tokens is not None:
        rng = np.random.default_rng(seed_stream(request.seed, "context"))
        return random_context(bundle, request.context_tokens, rng)
    return context_from_words(bundle, words)


def check(request: TuneRequest) -> None:
    """Raises UsageError for values of a request that are wrong with any bundle and any pictures."""
    for option, value, least in (
        ("--shots", request.shots, 1),
        ("--val", request.val, 0),
        ("--views", request.views, 1),
        ("--seed", request.seed, 0),
        ("--max-queries", request.max_queries, 1),
        ("--max-minutes", request.max_minutes, 0),
        ("--checkpoint-seconds", request.checkpoint_seconds, 0),
    ):
        if value is not None and not least <= value < math.inf:
            what = "too small" if value < least else "not a finite number"
            raise UsageError(
                f"{option} {value} is {what}. It takes {least} or more. Try {option} {max(least, 1)}"
            )
    checked_share(request.none)
    check_threads(request.threads)
    check_output(request.output)
    if request.head not in HEADS:
        raise UsageError(
            f"--head {request.head} is not known. It takes one of: {', '.join(HEADS)}. Try --head auto"
        )
    if request.preset == HEAD_ALONE and request.max_queries not in (None, 1):
        raise UsageError(
            f"--max-queries {request.max_queries} means nothing to --preset {HEAD_ALONE}: it tunes nothing. "
            f"It takes one query. Leave --max-queries out, or choose --preset edge"
        )
    if request.preset == HEAD_ALONE and request.head == "none":
        raise UsageError(
            f"--preset {HEAD_ALONE} makes nothing but a head, and --head none leaves it out. It takes "
            f"auto, or a kind: {', '.join(heads.KINDS)}. Leave --head out"
        )
    if request.context_init is not None and request.context_tokens is not None:
        raise UsageError(
            "--context-init and --context-tokens exclude each other. The context starts from words or from "
            "a number of random vectors. Leave one of them out"
        )
