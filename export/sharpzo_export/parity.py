"""The proof that a bundle is its model: torch and the device's own code agree, stage by stage.

Each stage is compared on inputs of its own, so that a failure names the guilty one. Export fails when a
stage differs by more than its tolerance; the figures go into the manifest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from sharpzo_edge import class_prompts, images, towers
from sharpzo_edge.bundle import Bundle
from sharpzo_edge.errors import SharpzoError

from .load_clip import LoadedClip

# Largest absolute differences. Pixels are a mean and a std away from [0, 1]; features have length one.
TOLERANCES = {
    "pixels": 1e-5,
    "image_features": 1e-4,
    "image_features_streamed": 1e-4,
    "token_ids": 0.0,
    "class_features": 1e-4,
    "class_features_streamed": 1e-4,
}
NAMES = (
    "cat",
    "annual crop land",
    "a snow leopard",
    "Boeing 737-800",
    "pay phone",
    "lamp",
    "stop sign",
    "hand: fingers partial",
    "X",
    "red-winged blackbird near a riverbank in early spring",
)


class ParityError(SharpzoError):
    """The exported graphs do not answer as the model does."""


def check_parity(bundle: Bundle, clip: LoadedClip) -> dict[str, float]:
    """Largest absolute difference by stage. Raises ParityError, naming the first stage beyond tolerance."""
    found: dict[str, float] = {}
    for stage, difference in _differences(bundle, clip):
        found[stage] = difference
        if not difference <= TOLERANCES[stage]:
            raise ParityError(
                f"The exported model differs from torch in {stage.replace('_', ' ')}, by {difference:.3g}. "
                f"At most {TOLERANCES[stage]:.3g} is allowed. Nothing was written. "
                f"Please report the model's name and this line; another --model may work"
            )
    return found


@torch.no_grad()
def _differences(bundle: Bundle, clip: LoadedClip) -> Iterator[tuple[str, float]]:
    preprocess = bundle.manifest.preprocess
    pictures = list(_pictures(preprocess.size))
    transform = image_transform_v2(PreprocessCfg(**clip.preprocess), is_train=False)
    theirs = torch.stack([transform(p) for p in pictures])
    crops = np.stack([np.asarray(images.crop(p, preprocess)) for p in pictures])
    yield "pixels", _largest(theirs.numpy(), images.to_pixels(crops, preprocess))

    pixels = theirs.numpy()
    expected = clip.model.encode_image(theirs, normalize=True).numpy()
    with towers.ResidentImageTower(bundle) as tower:
        yield "image_features", _largest(expected, tower.image_features(pixels))
    if bundle.manifest.image.steps:
        with towers.StreamedImageTower(bundle) as streamed:
            yield "image_features_streamed", _largest(expected, streamed.image_features(pixels))

    words = bundle.manifest.initial_context
    (*context_ids, stop, eot), *name_ids = class_prompts.name_token_ids(bundle, [words, *NAMES])
    room = bundle.manifest.text.context_length - 1 - len(context_ids)
    named = dict(zip(NAMES, name_ids, strict=True))
    ids_of = {name: ids for name, ids in named.items() if len(ids) <= room and bundle.knows(ids)}
    ids_of = ids_of or {words: [*context_ids, stop, eot]}
    names = list(ids_of)
    full = clip.tokenizer([f"{words} {name}." for name in names])
    padded = np.zeros(full.shape, np.int64)
    for row, ids in zip(padded, ids_of.values(), strict=True):
        ours = [clip.tokenizer.sot_token_id, *context_ids, *ids]
        row[: len(ours)] = ours
    yield "token_ids", _largest(full.numpy(), padded)

    # The ordinary way: every position of every prompt, one row of the batch a class.
    expected = clip.model.encode_text(full, normalize=True).numpy()
    context = class_prompts.context_from_words(bundle, words)
    prompts = class_prompts.class_prompts(bundle, names, len(context), class_chunk=4)
    other = context + np.float32(0.1)  # a candidate between two equal ones, which it must not touch
    for stage, kind in (
        ("class_features", towers.ResidentTextTower),
        ("class_features_streamed", towers.StreamedTextTower),
    ):
        with kind(bundle) as text_tower:
            answer = text_tower.class_features(np.stack([context, other, context]), prompts)
        yield stage, max(_largest(expected, answer[0]), _largest(expected, answer[2]))


def _pictures(size: tuple[int, int]) -> Iterator[Image.Image]:
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


def _largest(a: Any, b: Any) -> float:
    return float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max())
