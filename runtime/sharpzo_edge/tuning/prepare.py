"""What is known of a tune before its work begins; it reads the bundle and lists the pictures."""

from __future__ import annotations

from dataclasses import dataclass

from ..clip.bundle import Bundle
from ..clip.class_prompts import ClassPrompts, checked_token_ids, prompts_of
from ..clip.towers import plan_towers
from ..memory.plan import Plan, Work
from ..pictures.folder import LabelledFolder, read_folder
from ..types import Floats
from .presets import TuneSettings
from .request import TuneRequest


@dataclass(frozen=True)
class Prepared:
    """context: (m, D), the initial one; settings: the user's, for this context; the plan has both towers."""

    bundle: Bundle
    folder: LabelledFolder
    context: Floats
    settings: TuneSettings
    plan: Plan
    prompts: ClassPrompts


def prepare(request: TuneRequest) -> Prepared:
    """Read the bundle, the folder and the names, and plan. Raises BudgetError when no plan fits."""
    bundle = Bundle.open(request.bundle)
    folder = read_folder(request.images, request.class_names)
    context = request.initial_context(bundle)
    name_ids = checked_token_ids(bundle, folder.names, len(context), folder.folders)
    settings = request.settings.for_context(context.size)
    work = Work(
        name_lengths=tuple(map(len, name_ids)),
        n_context=len(context),
        n_features=request.draw.n_rows(folder),
        dim=settings.dim,
        projected=settings.is_projected(context.size),
        full_covariance=settings.stage1().covariance == "full",
        sketches=settings.sketches,
        head=request.head != "none",
        threads=request.threads,
    )
    plan = plan_towers(bundle, work, request.memory_budget)
    prompts = prompts_of(bundle, folder.names, name_ids, len(context), plan.chunk_rows)
    return Prepared(bundle, folder, context, settings, plan, prompts)
