"""`predict`: labels for single pictures, with a tuned prompt. Needs no text tower and costs no query."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ImagesError, UsageError
from ..pictures.folder import Skipped, skipped_pictures
from ..requests import PredictRequest, by_keywords
from ..run.progress import caller_of
from ..wording import counted
from .classifier import Classifier, Prediction


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
                {"image": p.image, "labels": list(p.labels), "scores": list(p.scores), "none": p.none}
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
    images = [Path(image) for image in request.pictures]
    passed_over = Skipped()
    skipped: list[SkippedPicture] = []
    n_labelled = 0

    def skip(path: Path, reason: str) -> None:
        passed_over.add(path, reason)
        skipped.append(SkippedPicture(str(path), reason))

    with Classifier(
        request.bundle,
        request.prompt,
        use=request.use,
        none=request.none,
        threads=request.threads,
        memory_budget=request.memory_budget,
    ) as classifier:
        for note in classifier.notes:
            caller.say(f"note: {note}")
        for batch in classifier.files(images, skip, request.top):
            yield from batch
            n_labelled += len(batch)
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
