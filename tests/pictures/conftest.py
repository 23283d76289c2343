"""How much work an encoding does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from sharpzo_edge.clip.towers import ImageTower
from sharpzo_edge.pictures import few_shot


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many pictures were read, and how many encoded, one by one or in a pass."""
    counts: Counter[str] = Counter()
    decoded, image_features = few_shot.decoded, ImageTower.image_features

    def reading(*arguments: Any) -> Any:
        counts["read"] += 1
        return decoded(*arguments)

    def encoding(tower: ImageTower, batches: Iterable[np.ndarray]) -> np.ndarray:
        answer = image_features(tower, batches)
        counts["encoded"] += len(answer)
        return answer

    monkeypatch.setattr(few_shot, "decoded", reading)
    monkeypatch.setattr(ImageTower, "image_features", encoding)
    return counts
