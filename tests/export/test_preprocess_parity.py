"""The device's preprocessing against open_clip's transform: every bit of every pixel."""

import itertools

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("open_clip")

from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from sharpzo_edge.clip import preprocess
from sharpzo_edge.clip.manifest import RESIZE_MODES, Preprocess

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
# (width, height): exact, odd, tall, wide, smaller than the target, one pixel high.
SHAPES = ((32, 32), (33, 47), (20, 91), (133, 40), (9, 14), (31, 1))
TARGETS = ((32, 32), (24, 40), (40, 24))
MODES = ("RGB", "L", "P", "P, transparent", "1", "LA", "RGBA", "CMYK", "I;16", "I")


def picture(mode, size):
    """Waves and noise. The same picture for one mode and size."""
    rng = np.random.default_rng(hash(size) % 2**32)
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    waves = [127 + 90 * np.sin(0.1 * (i + 1) * y + 0.07 * x) for i in range(4)]
    levels = np.clip(np.stack(waves, -1) + rng.integers(-30, 30, (height, width, 4)), 0, 255).astype(np.uint8)
    match mode:
        case "I;16":
            return Image.fromarray(levels[..., 0].astype(np.uint16) * 256 + levels[..., 1])
        case "I":
            return Image.fromarray(levels[..., 0].astype(np.int32) * 256 + levels[..., 1])
        case "P, transparent":
            indexed = Image.fromarray(levels[..., :3]).quantize(17)
            indexed.info["transparency"] = 3
            return indexed
        case "P":
            return Image.fromarray(levels[..., :3]).quantize(17)
        case "1":
            return Image.fromarray(levels[..., 0]).convert("1")
        case "LA":
            return Image.merge("LA", [Image.fromarray(levels[..., i]) for i in (0, 1)])
        case "RGBA" | "CMYK":
            return Image.merge(mode, [Image.fromarray(levels[..., i]) for i in range(4)])
    return Image.fromarray(levels[..., :3]).convert(mode)


def in_eight_bits(image):
    """What open_clip is shown for 16 bits: Pillow would cut every level above 255 there."""
    if image.mode.startswith("I"):
        return Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
    return image


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("resize_mode", RESIZE_MODES)
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pixels_are_open_clips(mode, resize_mode, interpolation):
    for size, target, fill in itertools.product(SHAPES, TARGETS, (0, 119)):
        fields = {
            "size": target,
            "mode": "RGB",
            "mean": MEAN,
            "std": STD,
            "interpolation": interpolation,
            "resize_mode": resize_mode,
            "fill_color": fill,
        }
        image = picture(mode, size)
        expected = image_transform_v2(PreprocessCfg(**fields), is_train=False)(in_eight_bits(image)).numpy()
        how = Preprocess(**fields)
        answer = preprocess.to_pixels(np.asarray(preprocess.crop(image, how))[None], how)[0]
        np.testing.assert_array_equal(answer, expected, f"{size} -> {target}, fill {fill}")


def test_pictures_here_have_the_modes_that_they_say():
    for mode in MODES:
        assert picture(mode, (33, 47)).mode == mode.split(",")[0]
