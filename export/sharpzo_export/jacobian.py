"""torch's own derivatives of the class features along directions of the context, in float64."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel


def directional_derivatives(
    model: Any, ids: torch.Tensor, context: np.ndarray, directions: np.ndarray
) -> np.ndarray:
    """(n, K, E) float64, by torch.func.jvp.

    model:      open_clip's. It is float64 meanwhile, and float32 again afterwards, without a change
    ids:        (K, positions) token ids of all prompts. Their context's embeddings are written over
    context:    (m, D);  directions: (n, m, D)
    """
    carrier = getattr(model, "text", model)
    m = len(context)

    def class_features(vectors: torch.Tensor) -> torch.Tensor:
        def with_context(module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
            return torch.cat([output[:, :1], vectors.expand(len(ids), -1, -1), output[:, 1 + m :]], 1)

        hook = carrier.token_embedding.register_forward_hook(with_context)
        try:
            features: torch.Tensor = model.encode_text(ids, normalize=True)
            return features
        finally:
            hook.remove()

    with _differentiable(model), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own, of what its jvp still uses
        at, along = torch.from_numpy(context).double(), torch.from_numpy(directions).double()
        found = [torch.func.jvp(class_features, (at,), (direction,))[1] for direction in along]
    derivatives: np.ndarray = torch.stack(found).numpy()
    return derivatives


@contextmanager
def _differentiable(model: nn.Module) -> Iterator[None]:
    """The model in float64, with attention that has forward-mode derivatives."""
    is_fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    model.double()
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        model.float()
        torch.backends.mha.set_fastpath_enabled(is_fast)
