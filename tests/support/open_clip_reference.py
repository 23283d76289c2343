"""Class features by open_clip itself, in float64, and how far ours may lie from them."""

import copy

import numpy as np
import torch
from open_clip.tokenizer import SimpleTokenizer

# Largest absolute differences of unit features.
TEXT_TOLERANCE = 2e-6
IMAGE_TOLERANCE = 2e-6
STREAMED_TOLERANCE = 1e-6

TOKENIZER = SimpleTokenizer()
FILLER_ID = 320  # stands where the context goes; its embedding is written over


def float64(model):
    return copy.deepcopy(model).double()


def torch_class_features(model, context, names):
    """(B, m, D), K names -> (B, K, E), by open_clip's encode_text over all positions."""
    carrier = getattr(model, "text", model)
    m = context.shape[1]
    tokens = torch.zeros(len(names), len(carrier.positional_embedding), dtype=torch.int64)
    for row, name in zip(tokens, names, strict=True):
        ids = [
            TOKENIZER.sot_token_id,
            *[FILLER_ID] * m,
            *TOKENIZER.encode(f"{name}."),
            TOKENIZER.eot_token_id,
        ]
        row[: len(ids)] = torch.tensor(ids)
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
