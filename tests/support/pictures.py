"""What the tests of pictures share."""

import numpy as np
from PIL import Image

from sharpzo_edge.clip.manifest import Preprocess


def preprocess(size=(32, 32), resize_mode="shortest", interpolation="bicubic", fill_color=0):
    mean, std = (0.481, 0.458, 0.408), (0.269, 0.261, 0.276)
    return Preprocess(size, "RGB", mean, std, interpolation, resize_mode, fill_color)


def picture(mode, width, height):
    """Noise, always the same for one size."""
    rng = np.random.default_rng(width * 1000 + height)
    if mode in ("I;16", "I;16B", "I"):
        levels = rng.integers(0, 60_000, (height, width)).astype(np.uint16)
        return Image.fromarray(levels) if mode == "I;16" else Image.fromarray(levels).convert(mode)
    rgb = Image.fromarray(rng.integers(0, 256, (height, width, 3)).astype(np.uint8))
    if mode == "PA":
        return rgb.convert("P").convert("PA")
    if mode == "LAB":
        return Image.merge("LAB", rgb.split())
    return rgb.convert("RGB" if mode == "RGBX" else mode).convert(mode)
