"""Answers to whatever an optimiser asks for, from a function of points alone."""

from collections.abc import Callable

import numpy as np

from sharpzo_edge.search.ask_tell import Ask
from sharpzo_edge.search.estimators import difference_step, forward_differences
from sharpzo_edge.types import Doubles, Floats


def answered(asked: Ask, features: Callable[[Doubles], Floats], loss: Callable | None = None) -> np.ndarray:
    """features: points (n, d) -> class features (n, K, E), in an array of its own;  loss: point -> loss"""
    if asked.wants == "tangents":
        step = difference_step(asked.centre.w)
        beside = features(asked.centre.w + step * asked.points)
        return forward_differences(asked.centre.class_features, beside, step)
    if asked.wants == "features":
        return features(asked.points)
    return np.array([loss(point) for point in asked.points])
