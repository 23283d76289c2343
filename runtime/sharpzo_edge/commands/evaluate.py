"""`eval`: accuracy on a folder of labelled pictures, zero-shot or with a tuned prompt."""

from __future__ import annotations

import dataclasses
import unicodedata
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ..clip.bundle import Bundle
from ..clip.class_prompts import checked_token_ids, context_from_words, prompts_of
from ..clip.sessions import check_threads, onnxruntime_version
from ..clip.tower_plan import ImagePlan
from ..clip.towers import TextTower
from ..errors import ImagesError, NumericsError
from ..memory.budget import budget_of
from ..memory.plan import Work, make_plan, plan_images
from ..pictures.encode import encode_files
from ..pictures.folder import LabelledFolder, Skipped, read_folder, skipped_pictures
from ..requests import EvaluateRequest, by_keywords
from ..run.progress import caller_of
from ..tuning.heads import blended_logits
from ..tuning.tuned_prompt import TunedPrompt, check_fits, load_prompt
from ..types import Floats
from ..wording import counted


@dataclass(frozen=True)
class EvaluateResult:
    """accuracy, per_class: fractions, per_class for classes that have pictures; n_images: that were read."""

    accuracy: float
    n_images: int
    n_classes: int
    per_class: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def evaluate_request(request: EvaluateRequest) -> EvaluateResult:
    """The accuracy on a folder of labelled pictures.

    prompt:  a tuned prompt's file; without it, the bundle's initial words
    classes: names to choose among, instead of the prompt's own or the folders'; they do without the prompt's
             head
    memory_budget: bounds what the call adds to this process; None is no limit
    Costs one query, or none for a prompt's own classes.
    Raises ImagesError when a folder is no class, or no picture could be read; with `strict`
    SkippedPicturesError when one could not.
    """
    caller = caller_of(request.on_progress, request.stop)
    check_threads(request.threads)
    bundle = Bundle.open(Path(request.bundle))
    # What to choose among may come from elsewhere; then one class is enough.
    fewest = 1 if request.prompt or request.classes else 2
    class_names = Path(request.class_names) if request.class_names else None
    folder = read_folder(Path(request.images), class_names, fewest)
    prompt = load_prompt(Path(request.prompt)) if request.prompt else None
    if prompt and request.prompt:
        check_fits(Path(request.prompt), prompt, bundle)
    head = prompt.head if prompt and request.classes is None else None
    if prompt and prompt.head and head is None:
        caller.say("the prompt's head knows only the classes it was made from: with --classes it is left out")
    names, class_features, plan = _class_features(request, bundle, folder, prompt)
    by_disk = prompt if request.classes is None and class_names is None else None
    truth = _class_of_folder(folder, names, by_disk)

    n_files = sum(map(len, folder.files))
    labels = np.repeat(truth, [len(paths) for paths in folder.files])
    right, seen = np.zeros(len(names), int), np.zeros(len(names), int)
    skipped = Skipped()
    for numbers, image_features in encode_files(bundle, chain.from_iterable(folder.files), skipped.add, plan):
        logits = blended_logits(image_features, class_features, bundle.manifest.logit_scale, head)
        guesses = logits.argmax(axis=1)
        np.add.at(seen, labels[numbers], 1)
        np.add.at(right, labels[numbers], guesses == labels[numbers])
        # No accuracy before the end: classes come one after the other, and the first may be the worst.
        caller.status(f"{seen.sum()} of {counted(n_files, 'picture')}")
        caller.raise_if_stopped("Nothing is kept of an evaluation. Type the same command again")
    if empty := [name for name, paths in zip(folder.folders, folder.files, strict=True) if not paths]:
        caller.say(f"without a picture: {', '.join(empty)}")
    passed_over = [*folder.skipped_lines(), *skipped.lines()]
    if request.strict and passed_over:
        raise skipped_pictures(passed_over)
    for line in (*folder.passed_over, *passed_over):
        caller.say(line)
    if not seen.any():
        raise ImagesError(
            f"No picture in {request.images} could be read ({counted(n_files, 'file')}). At least one is "
            f"needed. Check the path after --images"
        )
    return EvaluateResult(
        accuracy=float(right.sum() / seen.sum()),
        n_images=int(seen.sum()),
        n_classes=len(names),
        per_class={names[k]: float(right[k] / seen[k]) for k in range(len(names)) if seen[k]},
    )


evaluate = by_keywords(EvaluateRequest)(evaluate_request)


def _class_features(
    request: EvaluateRequest, bundle: Bundle, folder: LabelledFolder, prompt: TunedPrompt | None
) -> tuple[list[str], Floats, ImagePlan]:
    """The names to choose among, their unit features (K, E), and how the image tower will run."""
    budget = budget_of(request.memory_budget, onnxruntime_version())
    if prompt and request.classes is None:
        image_plan = plan_images(bundle.manifest, request.threads, budget, folder.listing_bytes)
        budget.require_floor()
        return prompt.class_names, prompt.class_features, image_plan
    own_names = folder.names, folder.folders
    names, folders = own_names if request.classes is None else (tuple(request.classes), ())
    context = prompt.context if prompt else context_from_words(bundle, bundle.manifest.initial_context)
    ids = checked_token_ids(bundle, names, len(context), folders)
    work = Work(
        name_lengths=tuple(map(len, ids)),
        n_context=len(context),
        threads=request.threads,
        listing_bytes=folder.listing_bytes,
        listing_peak_bytes=folder.listing_peak_bytes,
    )
    plan = make_plan(bundle.manifest, work, budget)
    budget.require_floor()
    prompts = prompts_of(bundle, names, ids, len(context), plan.text.chunk_rows)
    with TextTower(bundle, plan.text) as tower:
        features = tower.class_features(context[None], prompts)[0]
    if not np.isfinite(features).all():
        raise NumericsError(
            f"The text tower's answer holds {np.isnan(features).sum()} NaN among {features.size} numbers. "
            f"Class features must be finite. Check the bundle with: sharpzo-edge doctor "
            f"--bundle {bundle.folder}"
        )
    return list(names), features, plan.image


def _class_of_folder(folder: LabelledFolder, names: list[str], prompt: TunedPrompt | None) -> list[int]:
    """The class number of every folder: by its name on disk as when tuned, or by the words it reads as."""
    by_folder = {_same(f): k for k, f in enumerate(prompt.class_folders)} if prompt else {}
    by_name = {_same(name): k for k, name in enumerate(names)}
    found = [
        by_folder.get(_same(on_disk), by_name.get(_same(words)))
        for on_disk, words in zip(folder.folders, folder.names, strict=True)
    ]
    missing = [f for f, k in zip(folder.folders, found, strict=True) if k is None]
    if missing:
        raise ImagesError(
            f"The folders {missing[:5]} of {folder.root} are none of the classes {names[:5]}… "
            f"Every folder must be named like a class. Rename them, give words with --class-names FILE, or "
            f"name the classes to choose among with --classes"
        )
    return [k for k in found if k is not None]


def _same(name: str) -> str:
    """One spelling of a name: file systems spell accents in two ways."""
    return unicodedata.normalize("NFC", name)
