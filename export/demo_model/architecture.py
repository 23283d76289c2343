"""The model: open_clip's own classes at a small size, kept in open_clip's local-dir form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

MEAN = (0.481, 0.458, 0.408)
STD = (0.269, 0.261, 0.276)
PREPROCESS = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}
CONFIG_FILE, WEIGHTS_FILE = "open_clip_config.json", "open_clip_model.safetensors"
TOKENS_FILE = "trained_token_ids.json"


def new_model(config: dict[str, Any], n_rows: int) -> open_clip.CLIP:
    """Random weights; a token table of n_rows, since rows of words never met would only cost time."""
    model = open_clip.CLIP(**config)
    model.token_embedding = nn.Embedding(n_rows, config["text_cfg"]["width"])
    nn.init.normal_(model.token_embedding.weight, std=0.02)
    return model


def encode_text(model: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """open_clip's encode_text for (T, L <= 77) tokens without padding behind L; EOT is the largest id."""
    length = tokens.shape[1]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
    return functional.normalize(x[torch.arange(len(x)), tokens.argmax(1)] @ model.text_projection, dim=-1)


def average(mean: nn.Module, model: nn.Module, keep: float) -> None:
    """mean <- keep mean + (1 - keep) model, of weights and of BatchNorm's statistics."""
    with torch.no_grad():
        for old, new in zip(mean.state_dict().values(), model.state_dict().values(), strict=True):
            if old.is_floating_point():
                old.lerp_(new, 1 - keep)
            else:
                old.copy_(new)


def halved(module: nn.Module) -> dict[str, torch.Tensor]:
    """The module's state in half precision."""
    return {
        k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in module.state_dict().items()
    }


def save_model(config: dict[str, Any], model: nn.Module, token_ids: np.ndarray, folder: Path) -> None:
    """Half precision, the token table at its full size again: rows that were never trained are zero."""
    folder.mkdir(parents=True, exist_ok=True)
    state = halved(model)
    table = torch.zeros(config["text_cfg"]["vocab_size"], config["text_cfg"]["width"], dtype=torch.half)
    table[torch.from_numpy(token_ids)] = state["token_embedding.weight"]
    state["token_embedding.weight"] = table
    save_file(state, folder / WEIGHTS_FILE)
    described = {"model_cfg": config, "preprocess_cfg": PREPROCESS}
    (folder / CONFIG_FILE).write_text(json.dumps(described, indent=1), encoding="utf-8")
    (folder / TOKENS_FILE).write_text(json.dumps(token_ids.tolist()), encoding="utf-8")


def save_picture_tower(tower: nn.Module, path: Path) -> None:
    """The picture tower alone, under open_clip's names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({f"visual.{k}": v for k, v in halved(tower).items()}, path)


def load_picture_tower(tower: nn.Module, path: Path) -> None:
    """From its own file, or from a whole model's."""
    prefix = "visual."
    state = {k[len(prefix) :]: v for k, v in load_file(path).items() if k.startswith(prefix)}
    tower.load_state_dict(state)
