"""What the proofs of export share: pictures to ask both sides about, how far answers are apart, the error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from sharpzo_edge.errors import SharpzoError


class ParityError(SharpzoError):
    """What was written does not answer as what it was made from."""


def pictures_for(size: tuple[int, int]) -> Iterator[Image.Image]:
    """Smooth, sharp, small, odd-shaped and transparent pictures, the same ones every time."""
    rng = np.random.default_rng(0)
    height, width = size
    for h, w, mode in (
        (height, width, "RGB"),
        (height + 37, 2 * width + 11, "RGB"),
        (2 * height + 5, width + 3, "RGBA"),
        (height // 2 + 1, height // 2 + 4, "L"),
    ):
        y, x = np.mgrid[0:h, 0:w]
        channels = len(Image.new(mode, (1, 1)).getbands())
        phase = rng.uniform(0.01, 0.3, (channels, 2))
        waves = [127.5 + 127.5 * np.sin(a * y + b * x) for a, b in phase]
        noise = rng.uniform(-20, 20, (h, w, channels))
        levels = np.clip(np.stack(waves, -1) + noise, 0, 255).astype(np.uint8)
        yield Image.fromarray(levels[..., 0] if channels == 1 else levels, mode)


def largest_difference(a: Any, b: Any) -> float:
    return float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max())
