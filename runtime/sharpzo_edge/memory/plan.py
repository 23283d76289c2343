"""The memory plan: for each tower the fastest option that fits the budget, and what each phase will take.

A phase is a part of the work: reading pictures, the image tower, the text tower, the head. Each component
states what it takes in bytes, computed from sizes that are known before the work begins. This file adds the
statements up and chooses. So the same command gives the same plan on every run. Nothing is watched, limited
or dropped while the work goes on.

A plan that fits a budget also fits every larger budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from ..clip.class_prompts import CHUNK_ROWS, names_bytes
from ..clip.decoding import PICTURE_BYTES
from ..clip.manifest import Manifest
from ..clip.tower_plan import ImagePlan, Option, Tangents, TextPlan, TowerPlan, image_options, text_options
from ..errors import BudgetError
from ..pictures.feature_file import held_bytes as features_bytes
from ..process_memory import MIB
from ..search import sketched_descent
from ..search.losses import SCORING_BYTES
from ..search.sketched_descent import NO_SKETCH, Sketch
from .budget import Budget

T = TypeVar("T")

HELD_BESIDE_HEAD = 3  # words, prompt and a first head, while the second is fitted
# What the names, checksums and records of a picture leave in Python's heap when it is encoded: measured with
# 16,000 pictures.
PICTURE_LEAVES = 250
LISTING_IN_FLOOR = MIB  # of the names of files, 20,000 or so: more than these are planned for


@dataclass(frozen=True, kw_only=True)
class Work:
    """The sizes of the work that a plan is for.

    name_lengths: tokens of each class name, "." and EOT included
    n_context:    vectors of the context
    n_features:   image features that tuning holds or reads
    threads:      threads of the towers; 0: one a core
    dim:          numbers in w; 0 when nothing is tuned
    sketches:     sizes of sketch that stage 2 can use, the most wanted first
    tangents:     how the text tower computes tangents; None: not at all
    search_bytes: the most that stage 1 takes between two batches of the text tower
    projection_bytes: the matrix A, which maps w to the context
    head_bytes:   the most that fitting a head takes; 0 without a head
    may_do_without_head: whether the head may be left out where the budget has no room for it
    listing_bytes, listing_peak_bytes: the names of the pictures' files; the most while they are listed
    """

    name_lengths: tuple[int, ...] = ()
    n_context: int = 4
    n_features: int = 0
    threads: int = 0
    dim: int = 0
    sketches: tuple[Sketch, ...] = (NO_SKETCH,)
    tangents: Tangents | None = None
    search_bytes: int = 0
    projection_bytes: int = 0
    head_bytes: int = 0
    may_do_without_head: bool = False
    listing_bytes: int = 0
    listing_peak_bytes: int = 0


@dataclass(frozen=True)
class Plan:
    """How a command will run, and what it will take.

    image, text:  how the towers run
    sketch:       the first of the work's sketches that fits
    features_on_disk: True: image features stay in their file and are read in blocks
    has_head:     whether there is room for the head that is wanted
    phases:       MiB by phase, floor included. The largest is the peak that the plan promises
    query_seconds: by the rough model that compares plans; not a forecast for this machine
    """

    image: ImagePlan
    text: TextPlan
    sketch: Sketch
    features_on_disk: bool
    has_head: bool
    phases: dict[str, float]
    query_seconds: float

    @property
    def peak_mib(self) -> float:
        """The most that any phase takes, in MiB, floor included."""
        return max(self.phases.values())

    def to_json(self) -> dict[str, Any]:
        """The plan for --json and the log."""
        return {
            "text": tower_json(self.text.tower),
            "image": tower_json(self.image.tower),
            "chunk_rows": self.text.chunk_rows,
            "sketch": {"rank": self.sketch.rank, "kept_rounds": self.sketch.kept_rounds},
            "tangents": self.text.tangents or "none",
            "phases_mib": {name: round(mib, 1) for name, mib in self.phases.items()},
            "peak_mib": round(self.peak_mib, 1),
        }


def tower_json(tower: TowerPlan) -> dict[str, Any]:
    """A tower's plan with the keys of the JSON results, which stay as they are for their readers.

    There, "group" is the micro-batch, and "together" the batch.
    """
    return {"mode": tower.mode, "group": tower.micro_batch, "together": tower.batch}


def make_plan(manifest: Manifest, work: Work, budget: Budget) -> Plan:
    """The fastest plan of both towers that fits the budget.

    Raises BudgetError when none fits. The message names the smallest budget that would do.
    """
    return _that_fits(lambda within: _fastest(manifest, work, within), manifest.model, budget)


def smallest_plan(manifest: Manifest, work: Work, budget: Budget) -> Plan:
    """The plan that takes the least memory, whether it fits or not. budget: has the floor"""
    return _fastest(manifest, work, replace(budget, asked_mib=0.0))


def plan_images(
    manifest: Manifest, threads: int, budget: Budget, listing_bytes: int = 0, prompt_bytes: int = 0
) -> ImagePlan:
    """As make_plan, for a command that runs the image tower alone, and holds a prompt."""

    def fastest(within: Budget) -> _Part[ImagePlan]:
        return _image_part(manifest, threads, _beyond_floor(listing_bytes + prompt_bytes), within)

    return _that_fits(fastest, manifest.model, budget).plan


def plan_text(manifest: Manifest, work: Work, budget: Budget) -> TextPlan:
    """As make_plan, for a command that runs the text tower alone."""

    def fastest(within: Budget) -> _Part[TextPlan]:
        return _text_part(manifest, work, within)[1]

    return _that_fits(fastest, manifest.model, budget).plan


@dataclass(frozen=True)
class _Part(Generic[T]):
    """One tower's part of a plan: how it runs, MiB by phase, and seconds a candidate or picture."""

    plan: T
    phases: dict[str, float]
    seconds: float

    @property
    def peak_mib(self) -> float:
        return max(self.phases.values())


P = TypeVar("P", Plan, _Part[ImagePlan], _Part[TextPlan])


def _that_fits(fastest: Callable[[Budget], P], model: str, budget: Budget) -> P:
    """What `fastest` returns for the budget, if that fits; otherwise BudgetError is raised.

    fastest: budget -> the fastest plan that fits it, or the smallest plan if none fits
    """
    plan = fastest(budget)
    if plan.peak_mib > budget.limit_mib:
        smallest = math.ceil(fastest(replace(budget, asked_mib=0.0)).peak_mib)
        budget.require_given(smallest, model)
        raise BudgetError(
            f"--memory-budget {budget.asked_mib:.0f}MiB is too small for {model} on this work. The "
            f"smallest that would do is {smallest}MiB. Type the command again with "
            f"--memory-budget {smallest}MiB"
        )
    return plan


def _fastest(manifest: Manifest, work: Work, budget: Budget) -> Plan:
    """The fastest option of each tower that fits, or the smallest if none fits."""
    names = _names_bytes(manifest, work) + _beyond_floor(work.listing_bytes)
    features = features_bytes(work.n_features, manifest.embed_dim)
    image = _image_part(manifest, work.threads, names, budget)
    head = _head_phase(manifest, work, features, budget)
    sketch, text = _text_part(manifest, work, budget)
    return Plan(
        image=image.plan,
        text=text.plan,
        sketch=sketch,
        features_on_disk=work.n_features > 0 and not features,
        has_head=bool(head),
        phases=_listing_phases(work, budget) | image.phases | text.phases | head,
        query_seconds=text.seconds,
    )


def _image_part(manifest: Manifest, threads: int, names: int, budget: Budget) -> _Part[ImagePlan]:
    """The image tower's part. names: bytes of the class names, which are held at the same time."""
    decoding = max(PICTURE_BYTES, budget.room_mib * MIB - names)
    options = image_options(
        manifest,
        threads,
        held_bytes=names,
        decoding_bytes=decoding,
        reading=budget.reading(manifest.files[manifest.image.data].size),
    )
    chosen = _choose(options, budget)
    phases = _phase("pictures", names + PICTURE_BYTES, budget)
    phases |= _phase("image tower", chosen.n_bytes, budget)
    return _Part(chosen.plan, {"imports": budget.floor.imports} | phases, chosen.seconds)


def _text_part(manifest: Manifest, work: Work, budget: Budget) -> tuple[Sketch, _Part[TextPlan]]:
    """The first sketch with which some option of the text tower fits, and the best such option.

    If none fits: the last sketch, and the smallest option.
    """
    held = work.projection_bytes + features_bytes(work.n_features, manifest.embed_dim)
    held += _beyond_floor(work.listing_bytes)
    for sketch in work.sketches:
        sizes = work.dim, len(work.name_lengths), manifest.embed_dim
        options = text_options(
            manifest,
            work.name_lengths,
            work.n_context,
            work.threads,
            held_bytes=held + sketched_descent.held_bytes(sketch, *sizes),
            between_bytes=_between_bytes(work, sketched_descent.peak_bytes(sketch, *sizes)),
            # The opening, the latest and the best evaluation; with a sketch the best trial.
            n_kept_answers=3 + (sketch.rank > 0),
            may_share_arena=work.dim > 0 and budget.bounds_process,
            reading=budget.reading(manifest.files[manifest.text.data].size),
            tangents=work.tangents,
            n_directions=max(1, sketch.rank),
        )
        chosen = _choose(options, budget)
        if chosen.n_bytes <= budget.room_mib * MIB:
            break
    phases = {"imports": budget.floor.imports} | _phase("text tower", chosen.n_bytes, budget)
    return sketch, _Part(chosen.plan, phases, chosen.seconds)


def _head_phase(manifest: Manifest, work: Work, features: int, budget: Budget) -> dict[str, float]:
    """After the text tower has closed. Empty without a head, and where it does not fit and need not be."""
    if not work.head_bytes:
        return {}
    held = features + _beyond_floor(work.listing_bytes) + HELD_BESIDE_HEAD * _class_bytes(manifest, work)
    held += PICTURE_LEAVES * work.n_features
    phase = _phase("head", held + work.head_bytes, budget)
    fits = max(phase.values()) <= budget.limit_mib
    return phase if fits or not work.may_do_without_head else {}


def _choose(options: Iterable[Option[T]], budget: Budget) -> Option[T]:
    """The fastest option that fits the budget, or the smallest if none fits."""
    options = list(options)
    fitting = [o for o in options if o.n_bytes <= budget.room_mib * MIB]
    if fitting:
        return min(fitting, key=lambda o: (o.seconds, o.n_bytes))
    return min(options, key=lambda o: (o.n_bytes, o.seconds))


def _phase(name: str, n_bytes: float, budget: Budget) -> dict[str, float]:
    return {name: budget.floor.work + n_bytes / MIB}


def _listing_phases(work: Work, budget: Budget) -> dict[str, float]:
    """Listing very many files is a phase of its own, while what the imports need is still resident."""
    listing = _beyond_floor(work.listing_peak_bytes)
    imports = {"imports": budget.floor.imports}
    return imports | ({"listing": budget.floor.imports + listing / MIB} if listing else {})


def _beyond_floor(listing_bytes: int) -> int:
    return max(0, listing_bytes - LISTING_IN_FLOOR)


def _between_bytes(work: Work, sketch_bytes: int) -> int:
    """The most that tuning needs at one moment between two batches of the text tower; 0 without tuning.

    What is held all the time is not part of it.
    """
    return max(SCORING_BYTES, work.search_bytes, sketch_bytes) if work.dim else 0


def _names_bytes(manifest: Manifest, work: Work) -> int:
    """What the class names take, before the size of chunks is chosen: the most over all chunk sizes."""
    width = manifest.text.width
    return max(names_bytes(width, work.name_lengths, work.n_context, rows) for rows in CHUNK_ROWS)


def _class_bytes(manifest: Manifest, work: Work) -> int:
    """Class features (K, E) in float32."""
    return 4 * len(work.name_lengths) * manifest.embed_dim
