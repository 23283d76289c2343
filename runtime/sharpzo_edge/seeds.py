"""Every use of randomness has a stream of its own, so that changing one leaves the others as they are."""

from __future__ import annotations

import numpy as np

STREAMS = ("split", "context", "projection", "stage1", "stage2", "views")


def stream(seed: int, name: str) -> np.random.SeedSequence:
    """The seed of one use of randomness (see STREAMS)."""
    return np.random.SeedSequence(seed, spawn_key=(STREAMS.index(name),))
