"""The prompt file: the result of `tune`, some kilobytes of safetensors.

Tensors: context (m, D) and class_features (K, E), float32. With a head also head_weights (K, E) and head_bias
(K,). All else is canonical JSON under one metadata key. It holds no times, hosts or paths. So two runs that
did the same write the same bytes.
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
from ..errors import PromptFileError
from ..run.files import cannot, canonical_json, replacing
from .heads import HEADS, WEIGHTS, Head

FORMAT_VERSION = 1
# Of a prompt with a head. A program that knows only version 1 refuses it, and does not ignore the head.
HEAD_FORMAT_VERSION = 2
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
                    checksum), seed, settings, queries, train_loss; with a head, its kind and weight as well
    head:           None without a head
    """

    context: NDArray[np.float32]
    class_features: NDArray[np.float32]
    about: dict[str, Any]
    head: Head | None = None

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


def save_prompt(path: Path, prompt: TunedPrompt) -> None:
    """Write a prompt file. An old file is replaced only when the new one is complete."""
    tensors = {
        "context": np.ascontiguousarray(prompt.context),
        "class_features": np.ascontiguousarray(prompt.class_features),
    }
    if prompt.head is not None:
        tensors["head_weights"] = np.ascontiguousarray(prompt.head.weights)
        tensors["head_bias"] = np.ascontiguousarray(prompt.head.bias)
    metadata = {METADATA_KEY: canonical_json(prompt.about).decode()}
    with replacing(path) as file:
        file.write(safetensors.numpy.save(tensors, metadata))


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
        if path.stat().st_size > SIZE_LIMIT_BYTES:
            raise _unusable(path, f"it has more than {SIZE_LIMIT_BYTES >> 20} MiB")
        with safe_open(path, "numpy") as file:
            about = json.loads(
                (file.metadata() or {})[METADATA_KEY], parse_constant=_no_number, parse_float=_finite
            )
            context, features = file.get_tensor("context"), file.get_tensor("class_features")
            has_head = not {"head_weights", "head_bias"}.isdisjoint(file.keys())
            weights, bias = (file.get_tensor(f"head_{p}") if has_head else None for p in ("weights", "bias"))
    except OSError as error:
        raise _unusable(path, f"it cannot be read ({error.strerror or error})") from error
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        # AttributeError: numpy has no such dtype.
        raise _unusable(path, "it is not a tuned prompt, or it is damaged") from error
    version = about.get("format_version") if isinstance(about, dict) else None
    if type(version) is not int or version not in (FORMAT_VERSION, HEAD_FORMAT_VERSION):
        known = f"{FORMAT_VERSION} and {HEAD_FORMAT_VERSION}"
        raise _unusable(path, f"it has format version {version!r}, and this program reads {known}")
    if has_head != (version == HEAD_FORMAT_VERSION):
        raise _unusable(path, f"it has format version {version}, and {'a' if has_head else 'no'} head")
    head = None
    if weights is not None and bias is not None:
        if defect := _head_defect(about, weights, bias, features):
            raise _unusable(path, defect)
        head = Head(weights, bias, about["head"]["weight"])
    prompt = TunedPrompt(context, features, about, head)
    if defect := _defect(prompt):
        raise _unusable(path, defect)
    return prompt


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
    """What is wrong with a prompt, or ""."""
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
    lengths = np.linalg.norm(prompt.class_features.astype(np.float64), axis=1)
    if np.abs(lengths - 1).max() > UNIT_TOLERANCE:
        return "its class features are not unit vectors"
    if not len(about["class_names"]) == len(about["class_folders"]) == len(prompt.class_features):
        return "its class names do not match its class features"
    if not all(isinstance(n, str) for n in (*about["class_names"], *about["class_folders"])):
        return "its class names are not words"
    if len(set(about["class_names"])) < len(about["class_names"]):
        return "two of its classes have one name"
    return ""


def _head_defect(
    about: dict[str, Any], weights: NDArray[Any], bias: NDArray[Any], class_features: NDArray[Any]
) -> str:
    """What is wrong with a prompt's head, or ""."""
    described = about.get("head")
    if not isinstance(described, dict) or described.get("kind") not in HEADS[1:]:
        return "its head is of no known kind"
    weight = described.get("weight")
    if type(weight) is not float or not 0 <= weight <= WEIGHTS[-1]:
        return "its head's weight is out of range"
    shape = class_features.shape
    for name, array, expected in (("weights", weights, shape), ("bias", bias, shape[:1])):
        if array.dtype != np.float32 or array.shape != expected or not np.isfinite(array).all():
            return f"its head's {name} are not finite float32 of shape {expected}"
    return ""


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
