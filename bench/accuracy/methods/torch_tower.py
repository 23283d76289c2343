"""The text tower in torch, from the weights of the bundle itself, so that it can be differentiated.

The same sequence as on the device (docs/bundle.md): [SOS] and the context once, then the names, kept apart
by a mask; so both towers answer alike to round-off, and no model in torch's own form is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import torch
from torch.nn import functional

from sharpzo_edge.clip.bundle import Bundle
from sharpzo_edge.clip.class_prompts import NameChunk, class_prompts
from sharpzo_edge.errors import UsageError

ACTIVATIONS = {
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
}


class TorchTower:
    """Weights as torch tensors, named as in the text graph. Raises UsageError for rounded weights."""

    def __init__(self, bundle: Bundle) -> None:
        text = bundle.manifest.text
        if bundle.manifest.weights != "fp32":
            raise UsageError(
                f"Back-propagation needs weights in fp32; this bundle's are {bundle.manifest.weights}. "
                f"Export it without --weights"
            )
        self._bundle = bundle
        self._heads, self._layers = text.heads, text.layers
        self._activation = ACTIVATIONS[text.activation]
        graph = onnx.load(bundle.folder / text.graph).graph
        arrays = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
        self._weights = {
            name: torch.from_numpy(array.copy())
            for name, array in arrays.items()
            if array.dtype == np.float32 and not name.startswith("const_")
        }
        self._epsilon = {
            norm.input[1]: attribute.f
            for norm in graph.node
            if norm.op_type == "LayerNormalization"
            for attribute in norm.attribute
            if attribute.name == "epsilon"
        }

    def classes(self, names: Sequence[str], n_context: int) -> Callable[[torch.Tensor], torch.Tensor]:
        """context (n_context, D) -> unit class features (K, E), with a gradient where the context has one."""
        chunks = class_prompts(self._bundle, names, n_context).chunks

        def features(context: torch.Tensor) -> torch.Tensor:
            return torch.cat([self._chunk(context, chunk) for chunk in chunks])

        return features

    def _chunk(self, context: torch.Tensor, chunk: NameChunk) -> torch.Tensor:
        positions = self._weights["positions"]
        shared = torch.cat([self._weights["sos"].view(1, -1), context]) + positions[: 1 + len(context)]
        own = torch.from_numpy(chunk.embeddings()) + positions[torch.from_numpy(chunk.positions)]
        rows, mask = torch.cat([shared, own]), torch.from_numpy(chunk.mask)
        for i in range(self._layers):
            rows = rows + self._attention(f"block.{i}", rows, mask)
            hidden = self._linear(f"block.{i}.fc", self._norm(f"block.{i}.ln_2", rows))
            rows = rows + self._linear(f"block.{i}.proj", self._activation(hidden))
        ends = self._norm("ln_final", rows[torch.from_numpy(chunk.eot_rows)])
        if "projection.weight" in self._weights:
            ends = self._linear("projection", ends)
        return functional.normalize(ends, dim=-1)

    def _attention(self, block: str, rows: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Queries are scaled in the bundle already."""
        qkv = self._linear(f"{block}.qkv", self._norm(f"{block}.ln_1", rows))
        q, k, v = qkv.view(len(rows), 3, self._heads, -1).permute(1, 2, 0, 3)
        mixed = torch.softmax(q @ k.transpose(1, 2) + mask, dim=-1) @ v
        return self._linear(f"{block}.out", mixed.transpose(0, 1).flatten(1))

    def _linear(self, name: str, rows: torch.Tensor) -> torch.Tensor:
        product, bias = rows @ self._weights[f"{name}.weight"], self._weights.get(f"{name}.bias")
        return product if bias is None else product + bias

    def _norm(self, name: str, rows: torch.Tensor) -> torch.Tensor:
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return functional.layer_norm(rows, weight.shape, weight, bias, self._epsilon[f"{name}.weight"])
