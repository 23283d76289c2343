"""Which evaluation is the result."""

from __future__ import annotations

import numpy as np

from sharpzo_edge.search.losses import Score
from sharpzo_edge.tuning.objective import Evaluation
from sharpzo_edge.tuning.stopping import is_better


def evaluation(loss: float, accuracy: float) -> Evaluation:
    return Evaluation(
        np.zeros(1), np.zeros((1, 1), np.float32), Score(0, 0), Score(0, 0), Score(loss, accuracy)
    )


def test_of_equal_losses_the_more_accurate_wins() -> None:
    assert is_better(evaluation(1, 0.5), evaluation(2, 0.9))
    assert is_better(evaluation(1, 0.6), evaluation(1, 0.5))
    assert not is_better(evaluation(1, 0.5), evaluation(1, 0.5))
