"""Exported bundles against open_clip itself: any context, any batch, any chunking, on both kinds of tower.

The reference never sees our layout: encode_text over all positions of whole prompts, one prompt a class,
with the context written over the token embeddings. It runs in float64, so that what is measured is our
rounding alone.
"""

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("open_clip")
pytest.importorskip("onnx")


from sharpzo_edge.clip.class_prompts import class_prompts, context_from_words
from sharpzo_edge.clip.tower_plan import RESIDENT, STREAMED
from support.open_clip_reference import (
    IMAGE_TOLERANCE,
    STREAMED_TOLERANCE,
    TEXT_TOLERANCE,
    TOKENIZER,
    float64,
    largest,
    torch_class_features,
)
from support.open_towers import image_tower, text_tower
from support.tiny_clip import RECIPES, name_of

NAME_LENGTHS = (3, 58, 1, 2, 20, 9, 1, 5)  # unsorted, and two of a length
CHUNKS = (1, 24, 60, 256)  # rows
BATCHES = (1, 3, 8)

OTHER_PICTURE_TOWERS = ("resnet", "traced vit", "traced timm")  # their text tower is that of "gelu"


@pytest.mark.parametrize("recipe", [r for r in RECIPES if r not in OTHER_PICTURE_TOWERS])
def test_text_towers_equal_open_clip(exported, recipe):
    """Every context length with every chunking, the batch sizes in turn."""
    it = exported(recipe)
    model, text = float64(it.model), it.bundle.manifest.text
    rng = np.random.default_rng(0)
    batches = itertools.cycle(BATCHES)
    with (
        text_tower(it.bundle, RESIDENT) as resident,
        text_tower(it.bundle, STREAMED) as streamed,
    ):
        for m, chunk in itertools.product((1, 4, 7, 16), CHUNKS):
            n_batch = next(batches)
            longest = text.context_length - m - 3  # beside SOS, the context, "." and EOT
            names = [name_of(min(n, longest), i) for i, n in enumerate(NAME_LENGTHS)]
            context = rng.normal(0, 0.05, (n_batch, m, text.width)).astype(np.float32)
            prompts = class_prompts(it.bundle, names, m, chunk_rows=chunk)
            expected = torch_class_features(model, context, names)
            answer = resident.class_features(context, prompts)
            case = f"m = {m}, chunks of {chunk}, batch {n_batch}"
            assert largest(answer, expected) <= TEXT_TOLERANCE, case
            assert largest(streamed.class_features(context, prompts), answer) <= STREAMED_TOLERANCE, case


@pytest.mark.parametrize("recipe", RECIPES)
def test_image_towers_equal_open_clip(exported, recipe):
    it = exported(recipe)
    model, rng = float64(it.model), np.random.default_rng(1)
    streams = bool(it.bundle.manifest.image.steps)
    assert streams == (it.bundle.manifest.image.kind in ("vit", "resnet"))
    for n_batch in (1, 2, 5):
        pixels = rng.normal(0, 1, (n_batch, 3, *it.bundle.manifest.preprocess.size)).astype(np.float32)
        expected = model.encode_image(torch.from_numpy(pixels).double(), normalize=True).numpy()
        with image_tower(it.bundle, RESIDENT) as resident:
            answer = resident.image_features([pixels])
        assert largest(answer, expected) <= IMAGE_TOLERANCE, n_batch
        if streams:
            with image_tower(it.bundle, STREAMED) as streamed:
                assert largest(streamed.image_features([pixels]), answer) <= STREAMED_TOLERANCE, n_batch


def test_context_of_words_is_open_clips_whole_sentence(exported):
    """From text to features, without any vectors of ours: tokenizer and token table included."""
    it = exported("gelu")
    names = ["cat", "red-winged blackbird", "hand: fingers partial", "Boeing 737-800"]
    context = context_from_words(it.bundle, "a photo of a")
    expected = it.model.encode_text(TOKENIZER([f"a photo of a {name}." for name in names]), normalize=True)
    with text_tower(it.bundle, RESIDENT) as tower:
        answer = tower.class_features(context[None], class_prompts(it.bundle, names, len(context)))
    assert largest(answer[0], expected.numpy()) <= TEXT_TOLERANCE


def test_recipes_cover_every_way_of_building_a_tower(exported):
    """Against the tests: a recipe that fell back to tracing would prove nothing of the built graphs."""
    images = {recipe: exported(recipe).bundle.manifest.image.kind for recipe in RECIPES}
    assert {r for r, kind in images.items() if kind == "traced"} == {"traced vit", "traced timm"}
    assert {r for r, kind in images.items() if kind == "resnet"} == {"resnet"}
    activations = {exported(recipe).bundle.manifest.text.activation for recipe in RECIPES}
    assert activations == {"gelu", "gelu_tanh", "quick_gelu"}


@pytest.mark.parametrize("recipe", ["gelu", "resnet", "traced timm"])
def test_logit_scale_and_parity_figures_are_the_models_own(exported, recipe):
    manifest = exported(recipe).bundle.manifest
    assert manifest.logit_scale == pytest.approx(np.exp(3.21), rel=1e-6)
    stages = {"pixels", "image_features", "token_ids", "class_features", "class_features_streamed"}
    stages |= {"image_features_streamed"} if recipe != "traced timm" else set()
    tangents = {"tangents_fp32", "tangents_int8"}
    assert set(manifest.parity) == stages | tangents
    assert manifest.largest_difference == max(manifest.parity[stage] for stage in stages) < 1e-5
