"""The randomness of a run: one seed stream for each use, all from the one number after --seed.

The streams are independent. So a change in one use, such as more
stage-1 candidates, leaves the others as they are.
"""

from __future__ import annotations

import numpy as np

SEED_STREAMS = ("split", "context", "projection", "stage1", "stage2", "views")


def seed_stream(seed: int, name: str) -> np.random.SeedSequence:
    """The seed of one use of randomness. `name` is one of SEED_STREAMS.

    seed: 0 or more. Raises ValueError for another name or a negative seed.
    """
    return np.random.SeedSequence(seed, spawn_key=(SEED_STREAMS.index(name),))
