"""The proof that a bundle is its model: torch and the device's own code agree, stage by stage.

Each stage is compared on inputs of its own, so that a failure names the guilty one. Export fails when a
stage differs by more than its tolerance; the figures go into the manifest.

Rounded weights are no excuse: the bundle is compared with torch on the same rounded weights, just as
tightly. What the rounding itself does is a figure beside it: the smallest cosine between the bundle's
features and those of torch before rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2

from sharpzo_edge.clip import class_prompts
from sharpzo_edge.clip import preprocess as preprocessing
from sharpzo_edge.clip.bundle import Bundle
from sharpzo_edge.clip.class_prompts import ClassPrompts
from sharpzo_edge.clip.manifest import COSINE, OF_TANGENTS
from sharpzo_edge.clip.tower_plan import RESIDENT, STREAMED, ImagePlan, TextPlan
from sharpzo_edge.clip.towers import ImageTower, TextTower
from sharpzo_edge.processor import this_processor

from .agreement import ParityError, largest_difference, pictures_for
from .jacobian import directional_derivatives
from .linear_weights import LinearWeights
from .load_clip import LoadedClip

# Largest absolute differences. Pixels are a mean and a std away from [0, 1]; features have length one. Those
# of tangents are relative, in norm: to float64 derivatives, for all names and along a few directions.
TOLERANCES = {
    "pixels": 1e-5,
    "image_features": 1e-4,
    "image_features_streamed": 1e-4,
    "token_ids": 0.0,
    "class_features": 1e-4,
    "class_features_streamed": 1e-4,
    "tangents_fp32": 1e-5,
    "tangents_int8": 0.1,  # it adds up: 0.03 over 12 random blocks. A wrong graph is off by 1
}
N_DIRECTIONS = 3
CHUNK_ROWS = 32  # so few that the names take several runs
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


def check_parity(bundle: Bundle, clip: LoadedClip, linear: LinearWeights) -> dict[str, float]:
    """Largest absolute difference by stage, and what rounding cost. Raises ParityError, naming the first
    stage beyond tolerance. The model is left with the weights that `linear` rounded.
    """
    found: dict[str, float] = {}
    with torch.no_grad():
        for stage, figure in _figures(bundle, clip, linear):
            found[stage] = figure
            if stage in TOLERANCES and not figure <= TOLERANCES[stage]:
                raise ParityError(
                    f"The exported model differs from torch in {stage.replace('_', ' ')}, by {figure:.3g}. "
                    f"At most {TOLERANCES[stage]:.3g} is allowed. Nothing was written. "
                    f"Please report the model's name and this line; another --model may work"
                )
    return found


def _figures(bundle: Bundle, clip: LoadedClip, linear: LinearWeights) -> Iterator[tuple[str, float]]:
    preprocess = bundle.manifest.preprocess
    pictures = list(pictures_for(preprocess.size))
    transform = image_transform_v2(PreprocessCfg(**clip.preprocess), is_train=False)
    theirs = torch.stack([transform(p) for p in pictures])
    crops = np.stack([np.asarray(preprocessing.crop(p, preprocess)) for p in pictures])
    yield "pixels", largest_difference(theirs.numpy(), preprocessing.to_pixels(crops, preprocess))

    words = bundle.manifest.initial_context
    names, ids_of = _names(bundle, words)
    full = clip.tokenizer([f"{words} {name}." for name in names])
    padded = np.zeros(full.shape, np.int64)
    for row, ids in zip(padded, ids_of, strict=True):
        ours = [clip.tokenizer.sot_token_id, *ids]
        row[: len(ours)] = ours
    yield "token_ids", largest_difference(full.numpy(), padded)

    def torch_features() -> tuple[np.ndarray, np.ndarray]:
        """Of the pictures, and of the prompts the ordinary way: every position, one row a class."""
        return (
            clip.model.encode_image(theirs, normalize=True).numpy(),
            clip.model.encode_text(full, normalize=True).numpy(),
        )

    of_pictures, of_classes = before = torch_features()
    if linear.are_rounded:
        linear.round_the_model()
        of_pictures, of_classes = torch_features()

    plans = {"image_features": RESIDENT, "image_features_streamed": STREAMED}
    if not bundle.manifest.image.steps:
        del plans["image_features_streamed"]
    for stage, tower in plans.items():
        with ImageTower(bundle, ImagePlan(tower, decoding_bytes=math.inf, threads=0)) as image_tower:
            answer = image_tower.image_features([theirs.numpy()])
        yield stage, largest_difference(of_pictures, answer)
    if linear.are_rounded:
        yield "image_features" + COSINE, _smallest_cosine(before[0], answer)

    context = class_prompts.context_from_words(bundle, words)
    prompts = class_prompts.class_prompts(bundle, names, len(context), CHUNK_ROWS)
    other = context + np.float32(0.1)  # a candidate between two equal ones, which it must not touch
    for stage, tower in (("class_features", RESIDENT), ("class_features_streamed", STREAMED)):
        with TextTower(bundle, TextPlan(tower, CHUNK_ROWS, threads=0)) as text_tower:
            answer = text_tower.class_features(np.stack([context, other, context]), prompts)
        yield stage, max(largest_difference(of_classes, answer[0]), largest_difference(of_classes, answer[2]))
    if linear.are_rounded:
        yield "class_features" + COSINE, _smallest_cosine(before[1], answer[0])
    yield from _tangent_figures(bundle, clip, prompts, context, full)


def _tangent_figures(
    bundle: Bundle, clip: LoadedClip, prompts: ClassPrompts, context: np.ndarray, ids: torch.Tensor
) -> Iterator[tuple[str, float]]:
    """How far tangents are from the derivatives of torch's model in float64. ids: of all prompts."""
    spec = bundle.manifest.text.tangents
    if spec is None:
        return
    directions = np.random.default_rng(0).standard_normal((N_DIRECTIONS, *context.shape), dtype=np.float32)
    directions *= np.linalg.norm(context) / np.sqrt(context.size)
    true = directional_derivatives(clip.model, ids, context, directions)
    # Without its instructions a processor may be wrong in 8 bits. Then it would not be the bundle's fault.
    in_8_bits = spec.data and this_processor().has_int8_dot is not False
    for precision in ("fp32", "int8") if in_8_bits else ("fp32",):
        with TextTower(bundle, TextPlan(STREAMED, CHUNK_ROWS, threads=0, tangents=precision)) as text_tower:
            found = text_tower.class_feature_tangents(context, directions, prompts)
        yield f"{OF_TANGENTS}{precision}", float(np.linalg.norm(found - true) / np.linalg.norm(true))


def _names(bundle: Bundle, words: str) -> tuple[list[str], list[list[int]]]:
    """Names that the bundle's vocabulary and positions hold, and their prompts' ids but for [SOS]."""
    (*context_ids, stop, eot), *name_ids = class_prompts.name_token_ids(bundle, [words, *NAMES])
    room = bundle.manifest.text.context_length - 1 - len(context_ids)
    named = dict(zip(NAMES, name_ids, strict=True))
    ids_of = {name: ids for name, ids in named.items() if len(ids) <= room and bundle.knows(ids)}
    ids_of = ids_of or {words: [*context_ids, stop, eot]}
    return list(ids_of), [[*context_ids, *ids] for ids in ids_of.values()]


def _smallest_cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Of two arrays of unit rows."""
    return float((np.asarray(a, np.float64) * b).sum(axis=-1).min())
