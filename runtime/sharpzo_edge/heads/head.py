"""A head: a classifier on image features that works together with the logits of class features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..search.losses import logits_of
from ..types import Floats


@dataclass(frozen=True, eq=False)
class Head:
    """logits = base s F T^T + phi(F) weights^T + bias.

    phi(F) is F itself, (N, E). Of a kernel head it is how alike F is to each of M pictures, (N, M).

    kind:    "kernel", "ridge" or "gda"
    base:    0 or more, what the logits of the class features count
    weights: (K, E) float32, or (K, M);  bias: (K,) float32
    made_by: the numbers that decided it, by name
    pictures: (M, E) float32, the features of a kernel head's pictures
    """

    kind: str
    base: float
    weights: Floats
    bias: Floats
    made_by: Mapping[str, float]
    pictures: Floats | None = None

    @property
    def weight(self) -> float:
        """What its own logits count beside those of the class features."""
        return self.made_by.get("weight", 1.0) / self.made_by.get("base", 1.0)

    def logits(self, features: Floats, class_features: Floats, logit_scale: float) -> Floats:
        """F: features (N, E), T: class_features (K, E), s: logit_scale -> (N, K) float32."""
        logits = np.float32(self.base) * logits_of(features, class_features, logit_scale)
        logits += self._phi(features) @ self.weights.T
        logits += self.bias
        return logits

    def at(self, temperature: float) -> Head:
        """The same answers, more or less sure of them: all logits times `temperature`."""
        factor = np.float32(temperature)
        made_by = {**self.made_by, "temperature": temperature}
        weights, bias = self.weights * factor, self.bias * factor
        return Head(self.kind, self.base * temperature, weights, bias, made_by, self.pictures)

    def _phi(self, features: Floats) -> Floats:
        if self.pictures is None:
            return features
        alike: Floats = features @ self.pictures.T
        alike -= np.float32(1)
        alike *= np.float32(self.made_by["scale"])
        np.exp(alike, out=alike)
        return alike


def base_by(made_by: Mapping[str, float]) -> float:
    """The base of a head that was made by these numbers."""
    return made_by.get("base", 1.0) * made_by.get("temperature", 1.0)
