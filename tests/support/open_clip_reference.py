"""Class features by open_clip itself, in float64, and how far ours may lie from them."""

import copy

import numpy as np
import torch
from open_clip.tokenizer import SimpleTokenizer

from sharpzo_export.quantize import dequantised, pack

# Largest absolute differences of unit features.
TEXT_TOLERANCE = 2e-6
IMAGE_TOLERANCE = 2e-6
STREAMED_TOLERANCE = 1e-6

TOKENIZER = SimpleTokenizer()
FILLER_ID = 320  # stands where the context goes; its embedding is written over


def float64(model):
    return copy.deepcopy(model).double()


def with_rounded_linears(model, bits):
    """A float64 copy of the model whose linear layers' weights are rounded, found by their names."""
    model = copy.deepcopy(model)
    for name, weight in model.named_parameters():
        is_matrix = name in ("text_projection", "text.text_projection", "visual.proj")
        layers = ("in_proj_weight", "out_proj.weight", "c_fc.weight", "c_proj.weight", "projection.weight")
        if is_matrix or name.endswith((*layers, "q_proj.weight", "k_proj.weight", "v_proj.weight")):
            view = weight if is_matrix else weight.T  # (in, out)
            view.copy_(torch.from_numpy(dequantised(pack(view.numpy(), bits))))
    return float64(model)


def prompt_ids(model, m, names):
    """(K, positions): the token ids of whole prompts, each with fillers where its m context vectors go."""
    carrier = getattr(model, "text", model)
    tokens = torch.zeros(len(names), len(carrier.positional_embedding), dtype=torch.int64)
    for row, name in zip(tokens, names, strict=True):
        ids = [
            TOKENIZER.sot_token_id,
            *[FILLER_ID] * m,
            *TOKENIZER.encode(f"{name}."),
            TOKENIZER.eot_token_id,
        ]
        row[: len(ids)] = torch.tensor(ids)
    return tokens


def torch_class_features(model, context, names):
    """(B, m, D), K names -> (B, K, E), by open_clip's encode_text over all positions."""
    carrier = getattr(model, "text", model)
    m = context.shape[1]
    tokens = prompt_ids(model, m, names)
    features = []
    for vectors in torch.from_numpy(context).double():

        def write_context(module, inputs, output, vectors=vectors):
            return torch.cat([output[:, :1], vectors.expand(len(names), -1, -1), output[:, 1 + m :]], 1)

        hook = carrier.token_embedding.register_forward_hook(write_context)
        try:
            features.append(model.encode_text(tokens, normalize=True))
        finally:
            hook.remove()
    return torch.stack(features).numpy()


def largest(a, b):
    assert a.shape == b.shape and a.dtype == np.float32
    return np.abs(a - b).max()
