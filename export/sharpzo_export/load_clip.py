"""open_clip model names, tags, files and folders -> one frozen model with its preprocessing.

Owns open_clip's traps: weights that want QuickGELU under a name that says GELU, a folder without
weights that would be random in silence, training mode by default.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import nn

from sharpzo_edge.errors import UsageError

LOCAL_DIR = "local-dir:"
NO_WEIGHTS = "none"
# In a folder: what open_clip itself looks for first, in its order. Others it may pass over in silence.
WEIGHT_FILES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
)
RANDOM_WEIGHTS_SEED = 0
SHOWN_TAGS = 5


@dataclass(frozen=True)
class LoadedClip:
    """A model in eval mode and float32, and what the manifest says of it."""

    model: nn.Module
    name: str
    pretrained: str | None
    embed_dim: int
    preprocess: dict[str, Any]
    tokenizer: Any
    notes: tuple[str, ...]


def load_clip(model: str, pretrained: str | None, quick_gelu: bool | None) -> LoadedClip:
    """Load `model` (open_clip name or local-dir:FOLDER) with `pretrained` (tag, file, none).

    quick_gelu: None follows the weights' tag or the model's own config; True or False overrides it.
    Raises UsageError when the model is unknown, or the weights are missing or of another shape.
    """
    notes = []
    config = _model_config(model)
    is_folder = model.startswith(LOCAL_DIR)
    if is_folder and pretrained not in (None, NO_WEIGHTS):
        raise UsageError(
            f"--pretrained {pretrained} does not go with --model {model}: a folder brings its own "
            f"weights. Leave --pretrained out, or say --pretrained none for random weights."
        )
    if not is_folder and pretrained is None:
        raise UsageError(
            f"--pretrained is missing for --model {model}. It takes one of open_clip's tags "
            f"({_tags(model)}), a checkpoint file, or none (random weights). "
            f"Add --pretrained none to try the way with random weights"
        )
    if is_folder and pretrained is None and not _weights_in(model):
        raise UsageError(
            f"The folder {model[len(LOCAL_DIR) :]} holds open_clip_config.json but no weights. It must hold "
            f"one of {', '.join(WEIGHT_FILES)}, or its config alone with random weights. "
            f"Add the file, or say --pretrained none"
        )

    says = bool(config.get("quick_gelu", False))
    wants = says if quick_gelu is None else quick_gelu
    tag = {} if is_folder or pretrained is None else open_clip.get_pretrained_cfg(model, pretrained)
    if tag and quick_gelu is None and bool(tag.get("quick_gelu", False)) != says:
        wants = not says
        notes.append(
            f"The weights {pretrained} were trained with {'QuickGELU' if wants else 'GELU'}, the "
            f"model name {model} says {'QuickGELU' if says else 'GELU'}: exported with "
            f"{'QuickGELU' if wants else 'GELU'}."
        )

    if pretrained == NO_WEIGHTS:
        notes.append("Random weights (--pretrained none): good for trying things out, not for pictures.")
        torch.manual_seed(RANDOM_WEIGHTS_SEED)
    with _quiet_open_clip():
        loaded = _create(model, pretrained, wants)
        tokenizer = _tokenizer(model)
    loaded.eval().float().requires_grad_(False)
    return LoadedClip(
        model=loaded,
        name=_name_in_manifest(model, says, wants),
        pretrained=None if pretrained == NO_WEIGHTS else _label(model, pretrained),
        embed_dim=config["embed_dim"],
        preprocess=dict(open_clip.get_model_preprocess_cfg(loaded)),
        tokenizer=tokenizer,
        notes=tuple(notes),
    )


def _create(model: str, pretrained: str | None, quick_gelu: bool) -> nn.Module:
    try:
        return open_clip.create_model(
            model,
            pretrained=None if pretrained == NO_WEIGHTS else pretrained,
            load_weights=pretrained != NO_WEIGHTS,
            require_pretrained=pretrained != NO_WEIGHTS,
            # The config's value is replaced, in both directions; force_quick_gelu can only switch on.
            quick_gelu=quick_gelu,
        )
    except Exception as error:
        if model.startswith(LOCAL_DIR):
            raise UsageError(
                f"open_clip could not load --model {model}: {_first_line(error)}. "
                f"{_weights_in(model) or 'The weights'} must belong to the model that its "
                f"open_clip_config.json describes. Check that the two files come from one place"
            ) from error
        raise UsageError(
            f"open_clip could not load --model {model} --pretrained {pretrained}: {_first_line(error)}. "
            f"The weights must be one of its tags ({_tags(model)}; needs a network) or a checkpoint "
            f"file of this very architecture. Check the spelling, or download the file where there is a "
            f"network and pass its path: --pretrained FILE"
        ) from error


def _tokenizer(model: str) -> Any:
    """open_clip's tokenizer, or None where it needs packages or files that are not here.

    Those are never CLIP's own, so that the text tower will be refused, and with a better reason.
    """
    try:
        return open_clip.get_tokenizer(model)
    except Exception:
        return None


def _model_config(model: str) -> dict[str, Any]:
    if model.startswith(LOCAL_DIR):
        path = Path(model[len(LOCAL_DIR) :]) / "open_clip_config.json"
        try:
            return dict(json.loads(path.read_text())["model_cfg"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"--model {model} is not a folder in open_clip's form: {path} cannot be used ({error}). "
                f"It must hold open_clip_config.json with model_cfg, and the weights. "
                f"Check the path after local-dir:"
            ) from error
    if model not in open_clip.list_models():
        near = [n for n in open_clip.list_models() if model.lower()[:5] in n.lower()][:8]
        raise UsageError(
            f"--model {model} is unknown to open_clip {open_clip.__version__}. It takes one of its "
            f"{len(open_clip.list_models())} names, or local-dir:FOLDER. "
            f"Near: {', '.join(near) or 'RN50, ViT-B-32, ViT-B-16, ViT-L-14'}"
        )
    return dict(open_clip.get_model_config(model))


def _name_in_manifest(model: str, says_quick: bool, is_quick: bool) -> str:
    if model.startswith(LOCAL_DIR):
        return Path(model[len(LOCAL_DIR) :]).resolve().name
    if is_quick and not says_quick:
        return f"{model}-quickgelu"
    return model.removesuffix("-quickgelu") if says_quick and not is_quick else model


def _label(model: str, pretrained: str | None) -> str:
    """A tag, or a file's name: never a path of the workstation."""
    if pretrained is None:
        return _weights_in(model)
    return Path(pretrained).name if Path(pretrained).is_file() else pretrained


def _weights_in(model: str) -> str:
    folder = Path(model[len(LOCAL_DIR) :])
    return next((name for name in WEIGHT_FILES if (folder / name).is_file()), "")


def _tags(model: str) -> str:
    tags = open_clip.list_pretrained_tags_by_model(model)
    return ", ".join(tags[:SHOWN_TAGS]) + ", …" * (len(tags) > SHOWN_TAGS)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200].rstrip(". ") if lines else type(error).__name__


@contextmanager
def _quiet_open_clip() -> Iterator[None]:
    """Its warnings concern what this file has settled already, or come again as an exception."""
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
