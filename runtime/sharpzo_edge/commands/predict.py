"""`predict`: labels for single pictures, with a tuned prompt. Needs no text tower and costs no query."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..clip.bundle import Bundle
from ..clip.sessions import check_threads, onnxruntime_version
from ..errors import ImagesError, UsageError
from ..memory.budget import budget_of, machine_for
from ..memory.plan import plan_images
from ..pictures.encode import encode_files
from ..pictures.folder import Skipped, skipped_pictures
from ..requests import PredictRequest, by_keywords
from ..run.progress import caller_of
from ..search.losses import softmax
from ..tuning.tuned_prompt import check_fits, checked_use, load_prompt
from ..wording import counted


@dataclass(frozen=True)
class Prediction:
    """image: the picture's path as it was given; labels: the likeliest first; scores: their probabilities."""

    image: str
    labels: tuple[str, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True)
class SkippedPicture:
    """A picture that cannot be read, and why."""

    image: str
    reason: str


@dataclass(frozen=True)
class PredictResult:
    """In the order in which the pictures were given."""

    predictions: tuple[Prediction, ...]
    skipped: tuple[SkippedPicture, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "predictions": [
                {"image": p.image, "labels": list(p.labels), "scores": list(p.scores)}
                for p in self.predictions
            ],
            "skipped": [{"image": s.image, "reason": s.reason} for s in self.skipped],
        }


def predict_request(request: PredictRequest) -> PredictResult:
    """Labels for pictures.

    use: which answer of the prompt's file: "words", "prompt", "head" or "both"; None: what tune chose
    memory_budget: bounds what the call adds to this process; None: what the machine can give
    Pictures that cannot be read are in `skipped`, and are told to on_progress. Raises ImagesError when none
    can be read, and with `strict` SkippedPicturesError when one cannot, after all others were labelled.
    """
    return result_of(predict_each(request))


predict = by_keywords(PredictRequest)(predict_request)


def result_of(found: Iterable[Prediction | SkippedPicture]) -> PredictResult:
    everything = list(found)
    return PredictResult(
        tuple(each for each in everything if isinstance(each, Prediction)),
        tuple(each for each in everything if isinstance(each, SkippedPicture)),
    )


def predict_each(request: PredictRequest) -> Iterator[Prediction | SkippedPicture]:
    """The same, one after another, as soon as a batch is done; see predict_request."""
    caller = caller_of(request.on_progress, request.stop)
    if request.top < 1:
        raise UsageError(f"--top {request.top} is too small. It takes 1 or more. Try --top 5")
    check_threads(request.threads)
    images = [Path(image) for image in request.pictures]
    bundle, prompt = Bundle.open(Path(request.bundle)), load_prompt(Path(request.prompt))
    check_fits(Path(request.prompt), prompt, bundle)
    use = checked_use(request.use, prompt, Path(request.prompt))
    machine = machine_for(bundle, request.threads, request.memory_budget)
    budget = budget_of(request.memory_budget, onnxruntime_version(), machine)
    if budget.note:
        caller.say(f"note: {budget.note}")
    threads = request.threads or machine.cores
    plan = plan_images(bundle.manifest, threads, budget, prompt_bytes=prompt.n_bytes)
    budget.require_floor()
    passed_over = Skipped()
    skipped: list[SkippedPicture] = []
    n_labelled = 0

    def skip(path: Path, reason: str) -> None:
        passed_over.add(path, reason)
        skipped.append(SkippedPicture(str(path), reason))

    for numbers, features in encode_files(bundle, images, skip, plan):
        logits = prompt.logits(features, bundle.manifest.logit_scale, use)
        for i, row in zip(numbers, softmax(logits), strict=True):
            best = np.argsort(-row, kind="stable")[: request.top]
            labels = tuple(prompt.class_names[k] for k in best)
            yield Prediction(str(images[i]), labels, tuple(float(row[k]) for k in best))
        n_labelled += len(numbers)
        caller.raise_if_stopped(
            f"{n_labelled} of {counted(len(images), 'picture')} labelled. Type the same command again"
        )
    yield from skipped
    for line in passed_over.lines():
        caller.say(line)
    if not n_labelled:
        raise ImagesError(
            f"No picture of {len(images)} could be read, such as {images[0]}: {skipped[0].reason}. "
            f"JPEG, PNG and Pillow's other formats are allowed. Check the paths"
        )
    if skipped and request.strict:
        raise skipped_pictures(passed_over.lines())
