"""The prompt file: the result of `tune`, some hundred kilobytes of safetensors.

Tensors: context (m, D) and class_features (K, E), float32. With heads also words_features (K, E),
head_weights (K, E), head_bias (K,), and both_weights and both_bias likewise; a kernel head's weights are
(K, M), and its M pictures' features are head_pictures (M, E), which both share. All else is canonical JSON
under one metadata key. It holds no times, hosts or paths. So two runs that did the same write the same bytes.
Files of an older version do not say when a picture is none of the classes, nor calibrate the words.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from ..clip.bundle import Bundle
from ..errors import PromptFileError, UsageError, cannot_read, is_absent
from ..heads.fit import KINDS
from ..heads.head import Head, base_by
from ..heads.kernel import KIND as KERNEL
from ..requests import NONE_SHARE
from ..run.files import cannot, canonical_json, replacing
from ..run.reading import plain
from ..search.losses import logits_of
from ..types import Floats
from ..wording import NAMED
from .answers import BOTH, HEAD, PROMPT, USES, WORDS
from .known import MOST_SHARE, Known, checked_share

FORMAT_VERSION = 1
# Of a prompt with one head, on the prompt. It is read, and no longer written.
OLD_HEAD_FORMAT_VERSION = 2
# Of a prompt with heads and the words. A program that knows only older versions refuses it.
HEADS_FORMAT_VERSION = 3
KNOWN_VERSIONS = (FORMAT_VERSION, OLD_HEAD_FORMAT_VERSION, HEADS_FORMAT_VERSION)
LARGEST_OLD_WEIGHT = 10.0
HIGHEST_TEMPERATURE = 1e4  # of the words
METADATA_KEY = "sharpzo-edge prompt"
SIZE_LIMIT_BYTES = 64 << 20
BEGINNING_BYTES = 1 << 10  # of a prompt file: safetensors writes metadata before the tensors
UNIT_TOLERANCE = 1e-3


@dataclass(frozen=True)
class TunedPrompt:
    """What a prompt file holds.

    context:        (m, D) float32
    class_features: (K, E) float32, each row of length one
    about:          the rest, ready for JSON: format_version, class_names, class_folders, model, bundle (its
                    checksum), seed, settings, queries, train_loss, none (the share of known pictures that may
                    be called none of the classes) and known (what they are like, by ways to label; see
                    Known); with heads also use, left_out, heads and words_temperature
    words:          (K, E) class features of the initial context; None in a file without heads
    head, both:     heads on the words and on the prompt; None without
    """

    context: Floats
    class_features: Floats
    about: dict[str, Any]
    words: Floats | None = None
    head: Head | None = None
    both: Head | None = None

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> TunedPrompt:
        """Read and check a prompt file. Raises PromptFileError."""
        return load_prompt(Path(path))

    @property
    def class_names(self) -> list[str]:
        return [str(name) for name in self.about["class_names"]]

    @property
    def class_folders(self) -> list[str]:
        return [str(name) for name in self.about["class_folders"]]

    @property
    def use(self) -> str:
        """The way to label that `tune` chose: "words", "prompt", "head" or "both"."""
        return str(self.about.get("use", PROMPT if self.both is None else BOTH))

    @property
    def uses(self) -> tuple[str, ...]:
        """The ways to label that this file can take."""
        is_tuned = self.words is None or not np.array_equal(self.words, self.class_features)
        tuned = self.class_features if is_tuned else None
        has = {WORDS: self.words, PROMPT: tuned, HEAD: self.head, BOTH: self.both}
        return tuple(use for use in USES if has[use] is not None)

    @property
    def known(self) -> dict[str, Known]:
        """The largest logits of known pictures, by the ways to label that were measured."""
        return {
            use: Known(found["pictures"], tuple(found["lowest"]))
            for use, found in self.about.get("known", {}).items()
        }

    @property
    def none(self) -> float:
        """The share of known pictures that may be called none of the classes, as tune was asked."""
        return float(self.about.get("none", NONE_SHARE))

    @property
    def n_bytes(self) -> int:
        """What its arrays take in memory."""
        heads = [part for head in (self.head, self.both) if head for part in (head.weights, head.bias)]
        heads += [head.pictures for head in (self.head or self.both,) if head and head.pictures is not None]
        arrays = [self.context, self.class_features, *([] if self.words is None else [self.words]), *heads]
        return sum(array.nbytes for array in arrays)

    def logits(self, features: Floats, logit_scale: float, use: str) -> Floats:
        """Logits (N, K) of image features (N, E), N > 0, by one of `uses`. logit_scale: the bundle's.

        Row by row, so that a picture's bits do not depend on its batch: the last bits of a product depend on
        how many rows it has.
        """
        T, scale, head = self.answering(use, logit_scale)

        def answers(rows: Floats) -> Floats:
            return logits_of(rows, T, scale) if head is None else head.logits(rows, T, scale)

        return np.concatenate([answers(features[n : n + 1]) for n in range(len(features))])

    def answering(self, use: str, logit_scale: float) -> tuple[Floats, float, Head | None]:
        """What one of `uses` takes: class features (K, E), the scale of their logits, and a head."""
        T = self.words if use in (WORDS, HEAD) else self.class_features
        assert T is not None
        temperature = self.about.get("words_temperature", 1.0) if use == WORDS else 1.0
        return T, logit_scale * temperature, {HEAD: self.head, BOTH: self.both}.get(use)


def checked_use(use: str | None, prompt: TunedPrompt, path: Path) -> str:
    """The way to label that a user asks for, or the file's own. Raises UsageError."""
    if use is None:
        return prompt.use
    if use not in USES:
        raise UsageError(
            f"--use {use} is not known. It takes one of: {', '.join(USES)}. Try --use {prompt.use}"
        )
    if use not in prompt.uses:
        why = "nothing was tuned" if prompt.head else "it was made without a head"
        raise UsageError(
            f"--use {use} is not in the prompt {path}: {why}. This file has: {', '.join(prompt.uses)}. "
            f"Choose one of them, or tune again with --head auto"
        )
    return use


def threshold_of(share: float | None, use: str, prompt: TunedPrompt, path: Path) -> float | None:
    """The largest logit below which a picture is none of the classes; None: nothing is.

    share: after --none; None: the file's own
    Raises UsageError for a share that is out of range, or that the file has no threshold for.
    """
    wanted = prompt.none if share is None else checked_share(share)
    known = prompt.known.get(use)
    found = known.threshold(wanted) if known else None
    if found is None and share is not None:
        allowed = "No share has one here. Leave --none out, or tune again with more pictures"
        if known:
            allowed = f"It takes {known.least_share:g} or more. Try --none {known.least_share:g}"
        raise UsageError(
            f"--none {share:g} has no threshold in the prompt {path}: {without_threshold(use, prompt)}. "
            f"{allowed}"
        )
    return found


def without_threshold(use: str, prompt: TunedPrompt) -> str:
    """Why a prompt calls nothing none of the classes."""
    if "known" not in prompt.about:
        return "it was made by an older version"
    known = prompt.known.get(use)
    return f"too few pictures that {NAMED[use]} had not learnt from ({known.pictures if known else 0})"


def save_prompt(path: Path, prompt: TunedPrompt) -> None:
    """Write a prompt file. An old file is replaced only when the new one is complete."""
    tensors = {"context": prompt.context, "class_features": prompt.class_features}
    if prompt.words is not None:
        tensors["words_features"] = prompt.words
    for name, head in ((HEAD, prompt.head), (BOTH, prompt.both)):
        if head is not None:
            tensors |= {f"{name}_weights": head.weights, f"{name}_bias": head.bias}
            if head.pictures is not None:
                tensors["head_pictures"] = head.pictures
    metadata = {METADATA_KEY: canonical_json(prompt.about).decode()}
    data = safetensors.numpy.save(
        {n: np.ascontiguousarray(tensor) for n, tensor in tensors.items()}, metadata
    )
    with replacing(path) as file:
        file.write(data)


def is_prompt(path: Path) -> bool:
    """Whether a file begins as a prompt does, though it may be damaged or newer. Raises SharpzoError."""
    try:
        with path.open("rb") as file:
            return METADATA_KEY.encode() in file.read(BEGINNING_BYTES)
    except OSError as error:
        raise cannot("read", path, error) from error


def load_prompt(path: Path) -> TunedPrompt:
    """Read and check a prompt file. Raises PromptFileError."""
    try:
        with open(path, "rb", opener=plain) as opened:  # safetensors calls whatever refuses it "no such file"
            size = os.fstat(opened.fileno()).st_size
            opened.read(1)
        if size > SIZE_LIMIT_BYTES:
            raise _unusable(path, f"it has more than {SIZE_LIMIT_BYTES >> 20} MiB")
        with safe_open(path, "numpy") as file:
            about = json.loads(
                (file.metadata() or {})[METADATA_KEY], parse_constant=_no_number, parse_float=_finite
            )
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
        context, features = tensors.pop("context"), tensors.pop("class_features")
    except OSError as error:
        if not is_absent(error):
            raise cannot_read(path, error) from error
        raise _unusable(path, f"it cannot be read ({error.strerror or error})") from error
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        # AttributeError: numpy has no such dtype.
        raise _unusable(path, "it is not a tuned prompt, or it is damaged") from error
    version = about.get("format_version") if isinstance(about, dict) else None
    if type(version) is not int or version not in KNOWN_VERSIONS:
        known = f"{FORMAT_VERSION} to {HEADS_FORMAT_VERSION}"
        raise _unusable(path, f"it has format version {version!r}, and this program reads {known}")
    try:
        if defect := _defect(TunedPrompt(context, features, about)):
            raise ValueError(defect)
        if version == OLD_HEAD_FORMAT_VERSION:
            return TunedPrompt(context, features, about, both=_old_head(about, tensors, features))
        if version == HEADS_FORMAT_VERSION:
            return _with_heads(TunedPrompt(context, features, about), tensors)
        if tensors:
            raise ValueError(f"it has format version {version}, and holds {', '.join(sorted(tensors))}")
    except ValueError as error:
        raise _unusable(path, str(error)) from error
    return TunedPrompt(context, features, about)


def check_fits(path: Path, prompt: TunedPrompt, bundle: Bundle) -> None:
    """Raises PromptFileError when the prompt was tuned on another bundle."""
    if prompt.about["bundle"] != bundle.checksum:
        raise PromptFileError(
            f"The prompt {path} belongs to another bundle: {prompt.about['model']} "
            f"({prompt.about['bundle'][:12]}…), not {bundle.manifest.model} ({bundle.checksum[:12]}…). "
            f"A prompt works with the very bundle it was tuned on. Pass that one as --bundle, or tune "
            f"again with this one"
        )
    width, embed_dim = bundle.manifest.text.width, bundle.manifest.embed_dim
    if prompt.context.shape[1] != width or prompt.class_features.shape[1] != embed_dim:
        raise _unusable(path, f"its vectors do not have the bundle's widths {width} and {embed_dim}")


def _defect(prompt: TunedPrompt) -> str:
    """What is wrong with a prompt, its heads aside, or ""."""
    about = prompt.about
    for key, kind in (
        ("class_names", list),
        ("class_folders", list),
        ("model", str),
        ("bundle", str),
        ("seed", int),
        ("settings", dict),
        ("queries", int),
        ("train_loss", float),
    ):
        if type(about.get(key)) is not kind:
            return f"its {key} is missing or of another kind"
    for name, array in (("context", prompt.context), ("class_features", prompt.class_features)):
        if array.dtype != np.float32 or array.ndim != 2 or not array.size or not np.isfinite(array).all():
            return f"its {name} is not a finite float32 matrix"
    if not _has_unit_rows(prompt.class_features):
        return "its class features are not unit vectors"
    if not len(about["class_names"]) == len(about["class_folders"]) == len(prompt.class_features):
        return "its class names do not match its class features"
    if not all(isinstance(n, str) for n in (*about["class_names"], *about["class_folders"])):
        return "its class names are not words"
    if len(set(about["class_names"])) < len(about["class_names"]):
        return "two of its classes have one name"
    return _defect_of_none(about)


def _defect_of_none(about: dict[str, Any]) -> str:
    """What is wrong with the numbers by which a picture is none of the classes, or ""."""
    known, share = about.get("known", {}), about.get("none", NONE_SHARE)
    temperature = about.get("words_temperature", 1.0)
    if type(share) is not float or not 0 < share <= MOST_SHARE:
        return "its share of known pictures is out of range"
    if type(temperature) is not float or not 0 < temperature <= HIGHEST_TEMPERATURE:
        return "the temperature of its words is out of range"
    if not isinstance(known, dict) or not {*known} <= {*USES}:
        return "its known pictures are of another kind"
    for found in known.values():
        if not isinstance(found, dict) or {*found} != {"pictures", "lowest"}:
            return "its known pictures are of another kind"
        n, lowest = found["pictures"], found["lowest"]
        is_list = isinstance(lowest, list) and all(type(each) is float for each in lowest)
        if type(n) is not int or n < 1 or not is_list:
            return "its known pictures are of another kind"
        if len(lowest) != Known.size(n) or lowest != sorted(lowest):
            return "the logits of its known pictures are not in order"
    return ""


def _with_heads(prompt: TunedPrompt, tensors: dict[str, NDArray[Any]]) -> TunedPrompt:
    """Of format version 3. Raises ValueError, which says what is wrong."""
    about, shape = prompt.about, prompt.class_features.shape
    words = _finite_array("words_features", tensors, shape)
    if not _has_unit_rows(words):
        raise ValueError("the features of its words are not unit vectors")
    described = about.get("heads")
    if not isinstance(described, dict) or HEAD not in described or not {*described} <= {HEAD, BOTH}:
        raise ValueError("its heads are missing or of another kind")
    pictures = None
    if "head_pictures" in tensors:
        n_pictures = len(np.atleast_1d(tensors["head_pictures"]))
        pictures = _finite_array("head_pictures", tensors, (n_pictures, shape[1]))
    heads = {name: _head(name, described[name], tensors, shape, pictures) for name in described}
    if tensors:
        raise ValueError(f"it holds {', '.join(sorted(tensors))}, which are of no head")
    whole = TunedPrompt(prompt.context, prompt.class_features, about, words, heads[HEAD], heads.get(BOTH))
    if about.get("use") not in whole.uses:
        raise ValueError("its use is missing, or it does not hold what that takes")
    return whole


def _head(
    name: str,
    described: Any,
    tensors: dict[str, NDArray[Any]],
    shape: tuple[int, ...],
    pictures: Floats | None,
) -> Head:
    if not isinstance(described, dict) or described.get("kind") not in KINDS:
        raise ValueError(f"its {name} is of no known kind")
    numbers = {key: value for key, value in described.items() if key != "kind"}
    if not all(type(value) is float and value >= 0 for value in numbers.values()):
        raise ValueError(f"the numbers of its {name} are out of range")
    has_pictures = described["kind"] == KERNEL
    if has_pictures and (pictures is None or "scale" not in numbers):
        raise ValueError(f"the pictures of its {name} are missing")
    width = len(pictures) if has_pictures and pictures is not None else shape[1]
    weights = _finite_array(f"{name}_weights", tensors, (shape[0], width))
    bias = _finite_array(f"{name}_bias", tensors, shape[:1])
    own = pictures if has_pictures else None
    return Head(described["kind"], base_by(numbers), weights, bias, numbers, own)


def _old_head(about: dict[str, Any], tensors: dict[str, NDArray[Any]], class_features: Floats) -> Head:
    """Of format version 2: weight times the head is added to the prompt."""
    described = about.get("head")
    if not isinstance(described, dict) or described.get("kind") not in KINDS:
        raise ValueError("its head is of no known kind")
    weight = described.get("weight")
    if type(weight) is not float or not 0 <= weight <= LARGEST_OLD_WEIGHT:
        raise ValueError("its head's weight is out of range")
    shape, factor = class_features.shape, np.float32(weight)
    weights = factor * _finite_array("head_weights", tensors, shape)
    bias = factor * _finite_array("head_bias", tensors, shape[:1])
    if tensors:
        raise ValueError(f"it holds {', '.join(sorted(tensors))}, which are of no head")
    return Head(described["kind"], 1.0, weights, bias, {"weight": weight})


def _finite_array(name: str, tensors: dict[str, NDArray[Any]], shape: tuple[int, ...]) -> Floats:
    """Takes a tensor out. Raises ValueError unless it is finite float32 of that shape."""
    array = tensors.pop(name, None)
    if array is None or array.dtype != np.float32 or array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"its {name.replace('_', ' ')} are not finite float32 of shape {shape}")
    return array


def _has_unit_rows(class_features: Floats) -> bool:
    lengths = np.linalg.norm(class_features.astype(np.float64), axis=1)
    return bool(np.abs(lengths - 1).max() <= UNIT_TOLERANCE)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not a number of JSON")


def _finite(text: str) -> float:
    """A number of JSON as a float. Raises ValueError for one that is too large, such as 1e999."""
    number = float(text)
    return number if math.isfinite(number) else _no_number(text)


def _unusable(path: Path, what: str) -> PromptFileError:
    return PromptFileError(
        f"The prompt {path} cannot be used: {what}. It must be a file that tune wrote. "
        f"Check the path, or make one with: sharpzo-edge tune --bundle BUNDLE --images DIR "
        f"--output prompt.safetensors"
    )
