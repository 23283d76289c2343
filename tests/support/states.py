"""What the tests of all optimisers ask of a state: that it survives a file, and that two are the same."""

import json

import numpy as np


def through_a_file(state):
    """The state as safetensors and JSON would give it back: C-ordered bytes, and plain values."""
    arrays, rest = {}, {}
    for name, value in vars(state).items():
        (arrays if isinstance(value, np.ndarray) else rest)[name] = value
    packed = {n: (a.dtype.str, a.shape, a.tobytes(order="C")) for n, a in arrays.items()}
    unpacked = {n: np.frombuffer(b, t).reshape(s) for n, (t, s, b) in packed.items()}
    return type(state)(**unpacked, **json.loads(json.dumps(rest)))


def assert_same_bits(a, b):
    for name, value in vars(a).items():
        other = getattr(b, name)
        if isinstance(value, np.ndarray):
            assert value.dtype == other.dtype and value.tobytes() == other.tobytes(), name
        else:
            assert value == other, name
