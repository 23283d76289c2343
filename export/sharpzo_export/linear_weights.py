"""A model's linear layers: the precision they are written in, and the same model with the written weights."""

from __future__ import annotations

import numpy as np
import torch

from .quantize import BITS, PackedArrays, dequantised, pack


class LinearWeights:
    """How the linear layers of a model are written, and what each of them became."""

    def __init__(self, precision: str):
        self._bits = BITS.get(precision)
        self._packed: list[tuple[torch.Tensor, PackedArrays]] = []

    def __call__(self, matrix: torch.Tensor) -> np.ndarray | PackedArrays:
        """The (in, out) view of a layer's weights, in the chosen precision."""
        array: np.ndarray = matrix.detach().to(torch.float32).numpy()
        if self._bits is None:
            return array
        packed = pack(array, self._bits)
        self._packed.append((matrix.detach(), packed))
        return packed

    @property
    def are_rounded(self) -> bool:
        return bool(self._packed)

    def round_the_model(self) -> None:
        """Give torch's model the very weights that were written. They are written over."""
        for matrix, packed in self._packed:
            matrix.copy_(torch.from_numpy(dequantised(packed)))
