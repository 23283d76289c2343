"""What the user asks of `tune`: checked, completed by defaults, and compared with what was asked before."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..clip.bundle import Bundle
from ..clip.class_prompts import context_from_words, random_context
from ..errors import UsageError
from ..memory.plan import Plan, parse_budget
from ..pictures.few_shot import Draw, pictures_checksum
from ..pictures.folder import LabelledFolder
from ..process_memory import DEFAULT_BUDGET
from ..run.files import CHECKPOINT_SECONDS
from ..seeds import stream
from ..types import Floats
from .heads import HEADS
from .presets import NOT_OPTIONS, TuneSettings

TIME_LIMIT = "--max-minutes"


@dataclass(frozen=True)
class TuneRequest:
    """What the user asked for; every field is an option of `tune`."""

    bundle: Path
    images: Path
    output: Path
    settings: TuneSettings
    shots: int = 16
    val: int = 4
    context_init: str | None = None
    context_tokens: int | None = None
    class_names: Path | None = None
    seed: int = 0
    max_queries: int | None = None
    max_minutes: float | None = None
    threads: int = 0
    memory_budget: str = DEFAULT_BUDGET
    restart: bool = False
    head: str = "none"
    views: int = 1
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    strict: bool = False

    @property
    def work(self) -> Path:
        """Where crops, features, log, record and checkpoint lie."""
        return self.output.with_name(f"{self.output.name}.work")

    @property
    def draw(self) -> Draw:
        split, views = stream(self.seed, "split"), stream(self.seed, "views")
        return Draw(self.shots, self.val, split, self.views, views)

    @property
    def query_limit(self) -> int | None:
        """The user's, or else the preset's."""
        return self.settings.default_queries if self.max_queries is None else self.max_queries

    def initial_words(self, bundle: Bundle) -> str:
        return bundle.manifest.initial_context if self.context_init is None else self.context_init

    def initial_context(self, bundle: Bundle) -> Floats:
        """(m, D): the words', or random vectors."""
        if self.context_tokens is not None:
            rng = np.random.default_rng(stream(self.seed, "context"))
            return random_context(bundle, self.context_tokens, rng)
        return context_from_words(bundle, self.initial_words(bundle))


def check(request: TuneRequest) -> None:
    """Raises UsageError for what no bundle and no pictures could make right."""
    for option, value, least in (
        ("--shots", request.shots, 1),
        ("--val", request.val, 0),
        ("--views", request.views, 1),
        ("--seed", request.seed, 0),
        ("--max-queries", request.max_queries, 1),
        (TIME_LIMIT, request.max_minutes, 0),
        ("--checkpoint-seconds", request.checkpoint_seconds, 0),
    ):
        if value is not None and not least <= value < math.inf:
            what = "too small" if value < least else "not a finite number"
            raise UsageError(
                f"{option} {value} is {what}. It takes {least} or more. Try {option} {max(least, 1)}"
            )
    if request.output.is_dir():
        raise UsageError(
            f"The output {request.output} is a folder. The tuned prompt is one file. "
            f"Try --output {request.output / 'prompt.safetensors'}"
        )
    if request.head not in HEADS:
        raise UsageError(
            f"--head {request.head} is not known. It takes one of: {', '.join(HEADS)}. Try --head gda"
        )
    if request.head != "none":
        check_validated(request.val)
    if request.context_init is not None and request.context_tokens is not None:
        raise UsageError(
            "--context-init and --context-tokens exclude each other. The context starts from words or from "
            "a number of random vectors. Leave one of them out"
        )


def check_validated(n_val: int) -> None:
    """A head's weight is chosen on validation pictures."""
    if n_val == 0:
        raise UsageError(
            "--head gda has no validation pictures (--val 0, or no class has more pictures than --shots). "
            "Its weight is chosen on one or more of them. Try --val 4 with fewer --shots, or leave --head out"
        )


def made_for(request: TuneRequest, bundle: Bundle, folder: LabelledFolder, plan: Plan) -> dict[str, Any]:
    """What decides the run's numbers, by the names the user types, in the order in which they are compared.

    The plan too: a product's last bits depend on how many rows it has, and on the threads.
    """
    settings = {
        f"--{name.replace('_', '-')}": value
        for name, value in dataclasses.asdict(request.settings).items()
        if name not in NOT_OPTIONS
    }
    towers = [dataclasses.asdict(tower) if tower else None for tower in (plan.text, plan.image)]
    return {
        "--bundle": bundle.checksum,
        "--images": pictures_checksum(folder),
        "--class-names": list(folder.names),
        "--seed": request.seed,
        "--preset": request.settings.preset,
        "--shots": request.shots,
        "--val": request.val,
        "--views": request.views,
        "--head": request.head,
        "--context-init": request.initial_words(bundle),
        "--context-tokens": request.context_tokens,
        **settings,
        "--max-queries": request.query_limit,
        TIME_LIMIT: request.max_minutes,
        "--memory-budget": _budget(request),
        "--threads": request.threads,
        "plan": [*towers, plan.chunk_rows, dataclasses.asdict(plan.sketch)],
    }


def without(asked: dict[str, Any], *names: str) -> dict[str, Any]:
    """An unfinished run may go on under another time limit; of a finished one it has decided the result."""
    return {name: value for name, value in asked.items() if name not in names}


def _budget(request: TuneRequest) -> str:
    """In one spelling."""
    mib = parse_budget(request.memory_budget)
    return f"{mib:.17g}MiB" if math.isfinite(mib) else "none"
