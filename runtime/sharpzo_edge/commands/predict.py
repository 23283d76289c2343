"""`predict`: labels for single pictures, with a tuned prompt. Needs no text tower and costs no query."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..pictures.folder import Skipped, skipped_pictures
from ..requests import AnyPath, PredictRequest, by_keywords
from ..run.progress import Caller, caller_of
from ..wording import counted
from .classifier import Classifier, Prediction, check_top, classifier_of
from .paths import nothing_read, paths_of


@dataclass(frozen=True)
class SkippedPicture:
    """A picture that cannot be read, and why."""

    image: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class PredictResult:
    """In the order in which the pictures were given.

    threshold: the largest logit below which a picture is none of the classes; None where nothing is
    """

    predictions: tuple[Prediction, ...]
    skipped: tuple[SkippedPicture, ...]
    threshold: float | None

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def predict_request(request: PredictRequest) -> PredictResult:
    """Labels for pictures.

    pictures: paths of pictures or of folders, in which all pictures are meant, also those of folders within;
              "-": paths on standard input, one a line. One path alone will do
    use: which answer of the prompt's file: "words", "prompt", "head" or "both"; None: what tune chose
    none: the share of known pictures that may be called none of the classes; None: as tune was asked
    memory_budget: bounds what the call adds to this process; None: what the machine can give
    Pictures that cannot be read are in `skipped`, and are told to on_progress. Raises ImagesError when none
    can be read, and with `strict` SkippedPicturesError when one cannot, after all others were labelled.
    """
    caller = caller_of(request.on_progress, request.stop)
    with _opened(request, caller) as classifier:
        found = list(_each(classifier, request, caller))
        return PredictResult(
            tuple(each for each in found if isinstance(each, Prediction)),
            tuple(each for each in found if isinstance(each, SkippedPicture)),
            classifier.threshold,
        )


predict = by_keywords(PredictRequest)(predict_request)


def predict_each(request: PredictRequest) -> Iterator[Prediction | SkippedPicture]:
    """The same, one after another, as soon as a batch is done. Those that are skipped come last in it."""
    caller = caller_of(request.on_progress, request.stop)
    with _opened(request, caller) as classifier:
        yield from _each(classifier, request, caller)


def _opened(request: PredictRequest, caller: Caller) -> Classifier:
    check_top(request.top)
    classifier = classifier_of(request)
    for note in classifier.notes:
        caller.say(f"note: {note}")
    return classifier


def _each(
    classifier: Classifier, request: PredictRequest, caller: Caller
) -> Iterator[Prediction | SkippedPicture]:
    unreadable, no_pictures = Skipped(), Skipped()
    skipped: list[SkippedPicture] = []
    n_labelled = 0

    def skip(path: Path, reason: str) -> None:
        unreadable.add(path, reason)
        skipped.append(SkippedPicture(str(path), reason))

    def ask_stop() -> None:
        caller.raise_if_stopped(f"{counted(n_labelled, 'picture')} labelled. Type the same command again")

    given = _given(request)
    for batch in classifier.files(paths_of(given, no_pictures, ask_stop), skip, request.top):
        yield from batch
        yield from skipped
        skipped.clear()
        n_labelled += len(batch)
        ask_stop()
    yield from skipped
    for line in (*no_pictures.lines("file"), *unreadable.lines()):
        caller.say(line)
    if not n_labelled:
        raise nothing_read(given, unreadable)
    if unreadable.counts and request.strict:
        raise skipped_pictures(unreadable.lines())


def _given(request: PredictRequest) -> Sequence[AnyPath]:
    """A word is a sequence too, of letters: it is one path."""
    given = request.pictures
    return (given,) if isinstance(given, (str, os.PathLike)) else given
