"""Tiny random open_clip models, one a recipe, in which nothing is the identity by chance.

open_clip starts many weights at 0 or 1 (biases, layer norms, batch norms' statistics): a graph that
forgot one of them would still agree. Here every one of them is moved.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file
from torch import nn

from sharpzo_edge.clip.bundle import Bundle

VISION = {"image_size": 32, "patch_size": 8, "width": 48, "head_width": 16, "layers": 2}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 3}


def config(vision=None, text=None, **top):
    """A model_cfg in open_clip's form; `top` goes beside the towers (custom_text, quick_gelu)."""
    return {
        "embed_dim": 24,
        "vision_cfg": {**VISION, **(vision or {})},
        "text_cfg": {**TEXT, **(text or {})},
        **top,
    }


TANH = {"act_kwargs": {"approximate": "tanh"}}
RESNET = {"layers": [1, 1, 2, 1], "width": 8, "head_width": 64, "image_size": 64}
RECIPES = {
    "gelu": config(),
    "quick_gelu": config(quick_gelu=True),
    "gelu_tanh": config(TANH, TANH),
    "layer_scale, no ln_pre": config({"ls_init_value": 0.1, "no_ln_pre": True}, {"ls_init_value": 0.1}),
    "custom text with bias, avg pool then norm": config(
        {"pool_type": "avg", "final_ln_after_pool": True}, {"proj_bias": True}, custom_text=True
    ),
    "custom text without projection, eos, wide pictures": config(
        {"image_size": [24, 40]},
        {"width": 24, "proj_type": "none", "pool_type": "eos", "eos_id": 49407},
        custom_text=True,
    ),
    "odd widths, 20 positions, norm then avg pool": config(
        {"width": 96, "head_width": 32, "mlp_ratio": 2.5, "pool_type": "avg", "image_size": 35},
        {"width": 36, "heads": 3, "mlp_ratio": 3.0, "context_length": 20},
    ),
    "one text layer, other epsilon, tall pictures": config(
        {"image_size": [40, 24], "norm_kwargs": {"eps": 1e-2}}, {"layers": 1, "norm_kwargs": {"eps": 1e-2}}
    ),
    "resnet": config(RESNET),
    "traced vit": config({"qk_norm": True, "scale_heads": True}),
    "traced timm": config({"timm_model_name": "test_resnet", "image_size": 64}),
}


@dataclass(frozen=True)
class Exported:
    """A bundle, the torch model that it came from, and what export said."""

    source: Path
    model: nn.Module
    bundle: Bundle
    notes: tuple[str, ...]


def save_model(folder: Path, model_cfg: dict, preprocess_cfg: dict | None = None, seed: int = 1) -> nn.Module:
    """Write a local-dir model with random weights; returns it, in eval mode."""
    folder.mkdir(parents=True)
    about = {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg or {}}
    (folder / "open_clip_config.json").write_text(json.dumps(about))
    torch.manual_seed(seed)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False).eval().requires_grad_(False)
    move_off_identity(model)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return model


def move_off_identity(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if name == "logit_scale":
            parameter.fill_(3.21)
        elif parameter.ndim <= 1:
            parameter.add_(0.2 * torch.randn_like(parameter))
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2.0)
            if name.endswith("bn3"):  # zero at the start
                module.weight.uniform_(0.5, 1.5)


torch.set_num_threads(1)  # quicker for models of this size

WORDS = (
    "cat",
    "dog",
    "river",
    "house",
    "tree",
    "lake",
    "road",
    "sea",
    "park",
    "field",
    "ship",
    "bird",
    "car",
)


def name_of(n_tokens: int, first: int) -> str:
    """A class name of so many tokens, from the word `first` on: every word here is one token."""
    return " ".join(WORDS[(first + i) % len(WORDS)] for i in range(n_tokens))
