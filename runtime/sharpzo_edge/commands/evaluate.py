"""Accuracy on a folder of labelled pictures: zero-shot, or with a tuned prompt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..clip.bundle import Bundle
from ..clip.class_prompts import checked_token_ids, context_from_words, prompts_of
from ..clip.towers import TextTower, plan_towers
from ..errors import ImagesError, NumericsError
from ..memory.plan import Plan, Work
from ..pictures.encode import stream_features
from ..pictures.folder import LabelledFolder, Skipped, read_folder, skipped_pictures
from ..process_memory import DEFAULT_BUDGET
from ..run.progress import Progress
from ..tuning.heads import blended_logits
from ..tuning.tuned_prompt import TunedPrompt, check_fits, load_prompt
from ..types import Floats


def evaluate(
    bundle_path: Path,
    images: Path,
    progress: Progress,
    *,
    prompt_path: Path | None = None,
    classes: Sequence[str] | None = None,
    class_names: Path | None = None,
    threads: int = 0,
    memory_budget: str = DEFAULT_BUDGET,
    strict: bool = False,
) -> dict[str, Any]:
    """Returns what `eval --json` prints: accuracy, n_images, n_classes, per_class (fractions).

    Without a prompt: the bundle's initial words. `classes`: names to choose among, instead of the
    prompt's own or the folders'; they do without the prompt's head. Costs one query, or none for a
    prompt's own classes.
    Raises ImagesError when a folder is no class, or no picture could be read; with `strict`
    SkippedPicturesError when one could not.
    """
    bundle = Bundle.open(bundle_path)
    # What to choose among may come from elsewhere; then one class is enough.
    folder = read_folder(images, class_names, fewest=1 if prompt_path or classes else 2)
    prompt = load_prompt(prompt_path) if prompt_path else None
    if prompt and prompt_path:
        check_fits(prompt_path, prompt, bundle)
    head = prompt.head if prompt and classes is None else None
    if prompt and prompt.head and head is None:
        progress.say(
            "the prompt's head knows only the classes it was made from: with --classes it is left out"
        )
    names, features, plan = _class_features(bundle, folder, prompt, classes, threads, memory_budget)
    by_disk = prompt if classes is None and class_names is None else None
    truth = _class_of_folder(folder, names, by_disk)

    files = [path for paths in folder.files for path in paths]
    labels = np.repeat(truth, [len(paths) for paths in folder.files])
    right, seen = np.zeros(len(names), int), np.zeros(len(names), int)
    skipped = Skipped()
    for numbers, image_features in stream_features(bundle, files, skipped, plan, threads):
        logits = blended_logits(image_features, features, bundle.manifest.logit_scale, head)
        guesses = logits.argmax(axis=1)
        np.add.at(seen, labels[numbers], 1)
        np.add.at(right, labels[numbers], guesses == labels[numbers])
        progress.status(f"{seen.sum()} of {len(files)} pictures  accuracy {right.sum() / seen.sum():.3f}")
    if empty := [name for name, paths in zip(folder.folders, folder.files, strict=True) if not paths]:
        progress.say(f"without a picture: {', '.join(empty)}")
    passed_over = [*folder.skipped_lines(), *skipped.lines()]
    if strict and passed_over:
        raise skipped_pictures(passed_over)
    for line in passed_over:
        progress.say(line)
    if not seen.any():
        raise ImagesError(
            f"No picture in {images} could be read ({len(files)} files). At least one is needed. "
            f"Check the path after --images"
        )
    return {
        "accuracy": float(right.sum() / seen.sum()),
        "n_images": int(seen.sum()),
        "n_classes": len(names),
        "per_class": {names[k]: float(right[k] / seen[k]) for k in range(len(names)) if seen[k]},
    }


def _class_features(
    bundle: Bundle,
    folder: LabelledFolder,
    prompt: TunedPrompt | None,
    classes: Sequence[str] | None,
    threads: int,
    memory_budget: str,
) -> tuple[list[str], Floats, Plan]:
    """The names to choose among, their unit features (K, E), and the plan for whichever towers run."""
    if prompt and classes is None:
        plan = plan_towers(bundle, Work(threads=threads), memory_budget)
        return prompt.class_names, prompt.class_features, plan
    names, folders = (folder.names, folder.folders) if classes is None else (tuple(classes), ())
    context = prompt.context if prompt else context_from_words(bundle, bundle.manifest.initial_context)
    ids = checked_token_ids(bundle, names, len(context), folders)
    work = Work(name_lengths=tuple(map(len, ids)), n_context=len(context), threads=threads)
    plan = plan_towers(bundle, work, memory_budget)
    prompts = prompts_of(bundle, names, ids, len(context), plan.chunk_rows)
    assert plan.text is not None  # there are names
    with TextTower(bundle, plan.text, threads) as tower:
        features = tower.class_features(context[None], prompts)[0]
    if not np.isfinite(features).all():
        raise NumericsError(
            f"The text tower's answer holds {np.isnan(features).sum()} NaN among {features.size} numbers. "
            f"Class features must be finite. Check the bundle with: sharpzo-edge doctor "
            f"--bundle {bundle.folder}"
        )
    return list(names), features, plan


def _class_of_folder(folder: LabelledFolder, names: list[str], prompt: TunedPrompt | None) -> list[int]:
    """The class number of every folder: by its name on disk as when tuned, or by the words it reads as."""
    by_folder = {f: k for k, f in enumerate(prompt.class_folders)} if prompt else {}
    by_name = {name: k for k, name in enumerate(names)}
    found = [
        by_folder.get(on_disk, by_name.get(words))
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
