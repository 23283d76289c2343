"""Bundle and prompt -> one ONNX file that labels pictures: proved by parity, then written. Without torch."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from PIL import Image

from sharpzo_edge import Classifier
from sharpzo_edge.clip.bundle import Bundle
from sharpzo_edge.clip.manifest import PRECISIONS, Manifest
from sharpzo_edge.clip.preprocess import crop_of_image
from sharpzo_edge.clip.quiet_onnxruntime import ort
from sharpzo_edge.clip.sessions import run_session
from sharpzo_edge.errors import BundleError, UsageError
from sharpzo_edge.run.files import replacing, try_to_replace
from sharpzo_edge.run.reading import plain
from sharpzo_edge.search.losses import softmax
from sharpzo_edge.tuning.tuned_prompt import TunedPrompt, check_fits, checked_use, load_prompt
from sharpzo_edge.types import Doubles, Floats

from .agreement import ParityError, largest_difference, pictures_for
from .classifier_graph import (
    FEATURES,
    PIXELS,
    answer_graph,
    classifier_graph,
    image_tower,
    pack_layers,
    packed_layers,
    round_layers,
)
from .quantize import BITS

LARGEST_BYTES = (2 << 30) - (64 << 20)  # of weights: a file of protocol buffers ends at 2 GiB
TOLERANCE = 1e-4  # of a probability
MARK = "sharpzo-edge classifier"  # among the first bytes of every one
BEGINNING_BYTES = 256
ABOUT = f"{MARK}: crops of pictures (B, height, width, 3) uint8 in RGB -> probabilities (B, labels)"
N_FEATURES = 64  # random ones, on which the end of the graph is compared
ROUNDING = "rounding"  # in parity, what --weights has done


@dataclass(frozen=True)
class WrittenClassifier:
    """classifier: the file;  labels: in the order of its probabilities;  use: the way to label

    preprocessing: how a crop is made
    none_below: the largest logit below which a picture is none of the classes; None: nothing is
    weights: precision of the linear layers
    parity:  largest differences of a probability, by stage; that of `rounding` is no defect
    """

    classifier: str
    n_bytes: int
    labels: tuple[str, ...]
    preprocessing: dict[str, Any]
    none_below: float | None
    use: str
    weights: str
    parity: dict[str, float]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def write_classifier(
    bundle: Path, prompt: Path, output: Path, *, use: str | None = None, weights: str | None = None
) -> WrittenClassifier:
    """Write the file `output`, when it has proved to answer as predict does.

    use:     "words", "prompt", "head" or "both"; None: what tune chose
    weights: precision of the linear layers, "int8" or "int4"; None: as the bundle has them
    Memory: some five times the image tower, whatever the budget. Costs no query.
    Raises UsageError, BundleError, PromptFileError, and ParityError when the answers differ; then nothing is
    written, and an earlier file stays.
    """
    opened, tuned = Bundle.open(bundle), load_prompt(prompt)
    check_fits(prompt, tuned, opened)
    use = checked_use(use, tuned, prompt)
    weights, notes = _checked_weights(weights, opened)
    _check_size(opened)
    _check_output(output)
    with Classifier(bundle, prompt, use=use) as classify:
        pictures = list(pictures_for(opened.manifest.preprocess.size))
        expected = _by_label(classify, pictures)
        none_below = classify.threshold
    making = _Making(opened, tuned, use, weights, none_below)
    parity = {"answers": making.check_answers()}
    crops = np.stack([crop_of_image(picture, opened.manifest.preprocess) for picture in pictures])
    data = making.file(image_tower(opened))
    parity["pictures"] = _checked("pictures", _outputs(data, {PIXELS: crops})[0], expected)
    if weights != opened.manifest.weights:
        layers = packed_layers(image_tower(opened), BITS[weights])
        round_layers(rounded := image_tower(opened), layers)
        expected_rounded = _outputs(making.file(rounded), {PIXELS: crops})[0]
        pack_layers(packed := image_tower(opened), layers)
        found = _outputs(data := making.file(packed), {PIXELS: crops})[0]
        parity["rounded_weights"] = _checked("rounded weights", found, expected_rounded)
        parity[ROUNDING] = largest_difference(found, expected)
    with replacing(output) as file:
        file.write(data)
    return WrittenClassifier(
        classifier=str(output),
        n_bytes=len(data),
        labels=tuple(tuned.class_names),
        preprocessing=_preprocessing(opened.manifest),
        none_below=none_below,
        use=use,
        weights=weights,
        parity=parity,
        notes=notes,
    )


@dataclass(frozen=True)
class _Making:
    """What a file is made of."""

    bundle: Bundle
    prompt: TunedPrompt
    use: str
    weights: str
    none_below: float | None

    def file(self, tower: onnx.ModelProto) -> bytes:
        """The file with this image tower, which is written over."""
        manifest = self.bundle.manifest
        answering = self.prompt.answering(self.use, manifest.logit_scale)
        graph = classifier_graph(tower, manifest.preprocess, *answering)
        return graph.to_bytes(ABOUT, self.metadata())

    def metadata(self) -> dict[str, str]:
        """What whoever has the file alone needs to know."""
        manifest = self.bundle.manifest
        return {
            "labels": json.dumps(self.prompt.class_names, ensure_ascii=False),
            "preprocessing": json.dumps(_preprocessing(manifest)),
            "licence": _licence(manifest),
            "model": manifest.model,
            "pretrained": manifest.pretrained or "none",
            "weights": self.weights,
            "use": self.use,
            **({} if self.none_below is None else {"none_below": str(self.none_below)}),
        }

    def check_answers(self) -> float:
        """Compare the end of the graph, from features on, with the device's formulas. Raises ParityError.

        The features are random ones, and those that the prompt's file has: the answers differ most there.
        """
        logit_scale = self.bundle.manifest.logit_scale
        class_features, _, head = answering = self.prompt.answering(self.use, logit_scale)
        random = np.random.default_rng(0).standard_normal((N_FEATURES, class_features.shape[1]))
        random /= np.linalg.norm(random, axis=1, keepdims=True)
        near = [class_features] if head is None or head.pictures is None else [class_features, head.pictures]
        features = np.concatenate([random.astype(np.float32), *near])
        probabilities, largest = _outputs(answer_graph(*answering).to_bytes(), {FEATURES: features})
        logits = self.prompt.logits(features, logit_scale, self.use)
        difference = _checked("answers", probabilities, softmax(logits))
        size = max(logit_scale, float(np.abs(logits).max()))  # a head's logits can be much larger
        _checked("largest logits", largest / size, logits.max(axis=1) / size)
        return difference


def _outputs(model: bytes, feeds: dict[str, NDArray[Any]]) -> list[Floats]:
    """Probabilities (B, K) and largest logits (B,), from onnxruntime as it comes. Raises BundleError."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no useful common base class
        raise BundleError(
            f"onnxruntime {ort.__version__} cannot load the classifier: {str(error)[:300]}. The bundle's "
            f"image tower must be as export wrote it. Nothing was written. Copy the bundle again"
        ) from error
    return run_session(session, feeds)


def _by_label(classify: Classifier, pictures: list[Image.Image]) -> Doubles:
    """What predict answers: the probability of each label, in the prompt's order."""
    answers = classify(pictures, top=len(classify.labels))
    scores = [dict(zip(answer.labels, answer.scores, strict=True)) for answer in answers]
    return np.array([[each[label] for label in classify.labels] for each in scores])


def _checked(stage: str, found: Floats, expected: Floats | Doubles) -> float:
    """The largest difference. Raises ParityError when it is too large, or no number."""
    difference = largest_difference(found, expected)
    if not difference <= TOLERANCE:
        raise ParityError(
            f"The classifier answers otherwise than predict in {stage}, by {difference:.3g}. At most "
            f"{TOLERANCE:.3g} is allowed. Nothing was written. Check the bundle with: sharpzo-edge doctor "
            f"--bundle BUNDLE. If it is in order, please report this line; another --use may work"
        )
    return difference


def _checked_weights(weights: str | None, bundle: Bundle) -> tuple[str, tuple[str, ...]]:
    """The precision that the file will have, and notes for the user. Raises UsageError."""
    has = bundle.manifest.weights
    if weights in (None, has):
        return has, ()
    if weights not in PRECISIONS:
        raise UsageError(
            f"--weights {weights} is not known. The linear layers' weights can be {', '.join(PRECISIONS)}; "
            f"activations are fp32 always. Leave out --weights to keep those of the bundle"
        )
    if has != "fp32":
        raise UsageError(
            f"--weights {weights} cannot be made of the bundle {bundle.folder}: its weights are {has}. Only "
            f"those of an fp32 bundle can be rounded. Leave out --weights to keep {has}, or export again"
        )
    if bundle.manifest.image.kind == "traced":
        return has, (f"The weights stay fp32: torch traced this image tower, and it cannot be {weights}.",)
    return weights, ()


def _check_size(bundle: Bundle) -> None:
    """Raises UsageError for an image tower that is too large for one file."""
    n_bytes = bundle.manifest.files[bundle.manifest.image.data].size
    if n_bytes > LARGEST_BYTES:
        raise UsageError(
            f"The image tower of {bundle.folder} has {n_bytes >> 20:,} MiB of weights. One ONNX file holds "
            f"{LARGEST_BYTES >> 20:,} MiB at most. Export the model again with --weights int8, tune on that "
            f"bundle, and type the same command again"
        )


def _check_output(output: Path) -> None:
    """Before the work: raises SharpzoError where the file cannot be written, or is no classifier of ours."""
    try:
        with open(output, "rb", opener=plain) as file:
            is_ours = MARK.encode() in file.read(BEGINNING_BYTES)
    except FileNotFoundError:
        return try_to_replace(output)
    except OSError as error:
        raise UsageError(
            f"--output {output} cannot be written ({error.strerror}). It takes a plain file, new or an "
            f"earlier classifier. Try --output classifier.onnx"
        ) from error
    if not is_ours:
        raise UsageError(
            f"--output {output} exists, and is no classifier. Nothing else is replaced by one. "
            f"Choose another name, such as --output classifier.onnx"
        )
    try_to_replace(output)


def _preprocessing(manifest: Manifest) -> dict[str, Any]:
    """How a picture becomes a crop, without what the graph does itself."""
    fields = dataclasses.asdict(manifest.preprocess)
    return {name: value for name, value in fields.items() if name not in ("mean", "std")}


def _licence(manifest: Manifest) -> str:
    """Whose the weights are: the bundle does not know under which terms."""
    weights = ", ".join(filter(None, (manifest.model, manifest.pretrained)))
    return (
        f"Weights of {weights}: under the licence of whoever trained them. "
        f"The graph around them was written by sharpzo-edge, MIT."
    )
