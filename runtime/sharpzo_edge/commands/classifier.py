"""`Classifier`: labels pictures in a program that goes on. Bundle, prompt and image tower are opened once."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, overload

import numpy as np
from numpy.typing import NDArray

from ..clip.bundle import Bundle
from ..clip.decoding import UnreadablePictureError
from ..clip.preprocess import crop_of_array, crop_of_bytes, crop_of_image, is_image, read_crop
from ..clip.sessions import check_threads, onnxruntime_version
from ..errors import ImagesError, UsageError
from ..memory.budget import budget_of, machine_for
from ..memory.plan import plan_images
from ..pictures.encode import Encoder
from ..requests import PredictRequest, WatchRequest
from ..search.losses import softmax
from ..tuning.known import are_none
from ..tuning.tuned_prompt import check_fits, checked_use, load_prompt, threshold_of, without_threshold
from ..types import Floats

TOP = 5


@dataclass(frozen=True)
class Prediction:
    """image: the picture's path as it was given, "" where it has none

    labels: the likeliest first;  scores: their probabilities
    none:   whether it is likely none of the classes; False of a prompt without a threshold
    """

    image: str
    labels: tuple[str, ...]
    scores: tuple[float, ...]
    none: bool

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


class Classifier:
    """Labels pictures with a tuned prompt. A context manager; or call `close`.

        with Classifier("vit-b-16", "prompt.safetensors") as classify:
            print(classify("new.jpg").labels[0])

    A picture is a path, the bytes of a picture's file, a Pillow image, or an array (H, W, 3) uint8 in RGB.
    Labelling costs no query. It can be used from several threads; one of them is served at a time.
    """

    def __init__(
        self,
        bundle: str | os.PathLike[str],
        prompt: str | os.PathLike[str],
        *,
        use: str | None = None,
        none: float | None = None,
        threads: int = 0,
        memory_budget: str | None = None,
        held_bytes: int = 0,
    ):
        """Open both, and make the plan. The options are those of `predict`.

        none: the share of known pictures that may be called none of the classes; None: as tune was asked.
              `threshold` is the largest logit below which a picture is none; None where the prompt has none
        held_bytes: what the caller holds meanwhile; the budget has room for it, too

        Raises BundleError, PromptFileError, UsageError, and BudgetError when no plan fits.
        """
        check_threads(threads)
        opened, self._prompt = Bundle.open(Path(bundle)), load_prompt(Path(prompt))
        check_fits(Path(prompt), self._prompt, opened)
        self.use = checked_use(use, self._prompt, Path(prompt))
        self.threshold = threshold_of(none, self.use, self._prompt, Path(prompt))
        machine = machine_for(opened, threads, memory_budget)
        budget = budget_of(memory_budget, onnxruntime_version(), machine)
        without = ""
        if self.threshold is None:
            why = without_threshold(self.use, self._prompt)
            without = f"{os.fspath(prompt)} calls nothing none of the classes: {why}"
        self.notes = tuple(filter(None, (budget.note, without)))
        self._plan = plan_images(
            opened.manifest, threads or machine.cores, budget, prompt_bytes=self._prompt.n_bytes + held_bytes
        )
        budget.require_floor()
        self._how, self._scale = opened.manifest.preprocess, opened.manifest.logit_scale
        self._encoder = Encoder(opened, self._plan)

    @property
    def labels(self) -> tuple[str, ...]:
        """All of them, in the order of the prompt."""
        return tuple(self._prompt.class_names)

    @overload
    def __call__(self, pictures: list[Any] | tuple[Any, ...], top: int = TOP) -> list[Prediction]: ...

    @overload
    def __call__(self, pictures: Any, top: int = TOP) -> Prediction: ...

    def __call__(self, pictures: Any, top: int = TOP) -> Prediction | list[Prediction]:
        """Label one picture, or each of a list. top: how many labels a picture gets.

        Raises ImagesError for the first picture that cannot be used, UsageError for what is no picture, and
        where `top` is no number of labels.
        """
        check_top(top)
        is_list = isinstance(pictures, (list, tuple))
        given = pictures if is_list else (pictures,)
        if not given:
            return []
        features = self._encoder.crops(map(self._crop, given))
        found = list(self._predictions(features, map(_path_of, given), top))
        return found if is_list else found[0]

    def files(
        self, files: Iterable[Path], on_skipped: Callable[[Path, str], None], top: int = TOP
    ) -> Iterator[list[Prediction]]:
        """Label files, batch by batch. on_skipped: is told every one that cannot be read, and why.

        Each file is asked for when its turn comes. Raises UsageError for a `top` that is no number of labels.
        """
        check_top(top)
        waiting: dict[int, Path] = {}

        def noted() -> Iterator[Path]:
            for i, path in enumerate(files):
                waiting[i] = path
                yield path

        for numbers, features in self._encoder.files(noted(), on_skipped):
            yield list(self._predictions(features, (str(waiting[i]) for i in numbers), top))
            waiting.clear()

    def close(self) -> None:
        """Free the memory. A closed classifier cannot be used again."""
        self._encoder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _crop(self, picture: Any) -> NDArray[np.uint8]:
        try:
            if isinstance(picture, (str, os.PathLike)):
                return read_crop(Path(picture), self._how, self._plan.decoding_bytes)
            if isinstance(picture, bytes):
                return crop_of_bytes(picture, self._how, self._plan.decoding_bytes)
            if isinstance(picture, np.ndarray):
                return crop_of_array(picture, self._how)
            if is_image(picture):
                return crop_of_image(picture, self._how)
        except UnreadablePictureError as error:
            raise ImagesError(
                f"The picture {_path_of(picture) or 'that was given'} cannot be used: {error}. JPEG, PNG and "
                f"Pillow's other formats are allowed. Try another one"
            ) from error
        raise UsageError(
            f"A {type(picture).__name__} is no picture. It takes a path, the bytes of a picture's file, "
            f"a Pillow image, or an array (H, W, 3) of uint8. Try one of these"
        )

    def _predictions(self, features: Floats, images: Iterable[str], top: int) -> Iterator[Prediction]:
        logits = self._prompt.logits(features, self._scale, self.use)
        names = self.labels
        found = zip(images, softmax(logits), are_none(logits, self.threshold), strict=True)
        for image, row, is_none in found:
            best = np.argsort(-row, kind="stable")[:top]
            labels, scores = tuple(names[k] for k in best), tuple(float(row[k]) for k in best)
            yield Prediction(image, labels, scores, bool(is_none))


def check_top(top: int) -> None:
    """Raises UsageError unless it is a number of labels."""
    if top < 1:
        raise UsageError(f"--top {top} is too small. It takes 1 or more. Try --top {TOP}")


def classifier_of(request: PredictRequest | WatchRequest, held_bytes: int = 0) -> Classifier:
    """A classifier with the options of a command."""
    return Classifier(
        request.bundle,
        request.prompt,
        use=request.use,
        none=request.none,
        threads=request.threads,
        memory_budget=request.memory_budget,
        held_bytes=held_bytes,
    )


def _path_of(picture: Any) -> str:
    """The path as it was given; nothing for what is no path."""
    return os.fspath(picture) if isinstance(picture, (str, os.PathLike)) else ""
