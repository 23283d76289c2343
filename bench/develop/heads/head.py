"""A head: a linear classifier on image features that works together with the logits of class features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sharpzo_edge.search.losses import logits_of
from sharpzo_edge.types import Floats


@dataclass(frozen=True, eq=False)
class Head:
    """logits = base s F T^T + F weights^T + bias.

    kind:    "ridge" or "gda"
    base:    0 or more, what the words' or the prompt's own logits count
    weights: (K, E) float32;  bias: (K,) float32
    made_by: the numbers that decided it, for people
    """

    kind: str
    base: float
    weights: Floats
    bias: Floats
    made_by: Mapping[str, float]

    def logits(self, features: Floats, class_features: Floats, logit_scale: float) -> Floats:
        """F: features (N, E), T: class_features (K, E), s: logit_scale -> (N, K) float32."""
        logits = np.float32(self.base) * logits_of(features, class_features, logit_scale)
        logits += features @ self.weights.T
        logits += self.bias
        return logits

    def at(self, temperature: float) -> Head:
        """The same answers, more or less sure of them: all logits times `temperature`."""
        factor = np.float32(temperature)
        return Head(
            self.kind,
            self.base * temperature,
            self.weights * factor,
            self.bias * factor,
            {**self.made_by, "temperature": temperature},
        )


def answers(features: Floats, class_features: Floats, logit_scale: float, head: Head | None) -> Floats:
    """Logits (N, K) of class features alone, or with a head."""
    if head is None:
        return logits_of(features, class_features, logit_scale)
    return head.logits(features, class_features, logit_scale)
