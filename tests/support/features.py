"""Random class features, pictures and columns of a linear model, for the tests of losses."""

import numpy as np

from sharpzo_edge.types import LabelledFeatures

N, K, E, R = 23, 4, 6, 3
SCALE = 7.0


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


class InSlices:
    """Features that can only be read as a file's would be: slice by slice."""

    def __init__(self, features):
        self._features = features

    def __getitem__(self, rows):
        assert isinstance(rows, slice)
        return self._features[rows]


def pictures(seed=0, n=N):
    rng = np.random.default_rng(seed)
    features = unit(rng.standard_normal((n, E))).astype(np.float32)
    return LabelledFeatures(InSlices(features), rng.integers(0, K, n))


def features_and_columns(seed=0):
    rng = np.random.default_rng(seed)
    T = unit(rng.standard_normal((K, E))).astype(np.float32)
    return T, rng.standard_normal((R, K, E)).astype(np.float32)
