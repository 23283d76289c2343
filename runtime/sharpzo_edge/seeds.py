"""Every use of randomness has a seed stream of its own: changing one leaves the others as they are."""

from __future__ import annotations

import numpy as np

SEED_STREAMS = ("split", "context", "projection", "stage1", "stage2", "views")


def seed_stream(seed: int, name: str) -> np.random.SeedSequence:
    """The seed of one use of randomness (see SEED_STREAMS)."""
    return np.random.SeedSequence(seed, spawn_key=(SEED_STREAMS.index(name),))
