"""Labels for single pictures, with a tuned prompt. Needs no text tower and costs no query."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..clip.bundle import Bundle
from ..clip.towers import plan_towers
from ..errors import ImagesError, UsageError
from ..memory.plan import Work
from ..pictures.encode import stream_features
from ..pictures.folder import Skipped
from ..process_memory import DEFAULT_BUDGET
from ..run.progress import Progress
from ..search.losses import softmax
from ..tuning.heads import blended_logits
from ..tuning.tuned_prompt import check_fits, load_prompt


def predict(
    bundle_path: Path,
    prompt_path: Path,
    images: Sequence[Path],
    progress: Progress,
    top: int = 5,
    threads: int = 0,
    memory_budget: str = DEFAULT_BUDGET,
) -> dict[str, Any]:
    """Returns what `predict --json` prints: for every picture its best labels and their probabilities.

    Pictures that cannot be read are reported and passed over. Raises ImagesError when none can.
    """
    if top < 1:
        raise UsageError(f"--top {top} is too small. It takes 1 or more. Try --top 5")
    bundle = Bundle.open(bundle_path)
    prompt = load_prompt(prompt_path)
    check_fits(prompt_path, prompt, bundle)
    plan = plan_towers(bundle, Work(threads=threads), memory_budget)
    skipped = Skipped()
    predictions = []
    for numbers, features in stream_features(bundle, images, skipped, plan, threads):
        logits = blended_logits(features, prompt.class_features, bundle.manifest.logit_scale, prompt.head)
        for i, row in zip(numbers, softmax(logits), strict=True):
            best = np.argsort(-row, kind="stable")[:top]
            predictions.append(
                {
                    "image": str(images[i]),
                    "labels": [prompt.class_names[k] for k in best],
                    "scores": [float(row[k]) for k in best],
                }
            )
    for line in skipped.lines():
        progress.say(line)
    if not predictions:
        raise ImagesError(
            f"None of the {len(images)} pictures could be read, such as {images[0]}. "
            f"JPEG, PNG and Pillow's other formats are allowed. Check the paths"
        )
    return {"predictions": predictions}
