"""Where features are cut into parts: every length of a name, every batch, every chunk, against the whole.

test_parity.py compares kinds of towers; here one kind meets every size.
"""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("open_clip")
pytest.importorskip("onnx")

from sharpzo_edge.clip.class_prompts import class_prompts
from sharpzo_edge.clip.tower_plan import RESIDENT, STREAMED
from support.open_clip_reference import (
    IMAGE_TOLERANCE,
    STREAMED_TOLERANCE,
    TEXT_TOLERANCE,
    float64,
    largest,
    torch_class_features,
)
from support.open_towers import image_tower, text_tower
from support.tiny_clip import name_of

LONGEST = 60  # tokens of a name
BATCHES = range(1, 10)
GROUPS = (1, 2, 3, 5, 16)
each_plan = pytest.mark.parametrize("plan", [RESIDENT, STREAMED], ids=["resident", "streamed"])


@pytest.fixture(scope="module")
def tiny(exported):
    return exported("layer_scale, no ln_pre")


def contexts(bundle, n_batch, m):
    return np.random.default_rng(m).normal(0, 0.05, (n_batch, m, bundle.manifest.text.width)).astype("f4")


@pytest.mark.parametrize("m", [1, 4, 7, 16])
@each_plan
def test_names_of_every_length_together(tiny, plan, m):
    """One to sixty tokens, or as many as a context of 16 leaves of 77 positions."""
    longest = min(LONGEST, tiny.bundle.manifest.text.context_length - m - 3)
    names = [name_of(n, 0) for n in range(1, longest + 1)]
    context = contexts(tiny.bundle, 1, m)
    expected = torch_class_features(float64(tiny.model), context, names)
    with text_tower(tiny.bundle, plan) as tower:
        answer = tower.class_features(context, class_prompts(tiny.bundle, names, m))
    assert largest(answer, expected) <= TEXT_TOLERANCE


@each_plan
def test_every_chunk_and_every_batch_of_candidates(tiny, plan):
    """However they are cut, the features are those of the whole. The size of a group changes in turn."""
    names = [name_of(n, i) for i, n in enumerate((4, 1, 12, 2, 2, 7, 1, 30, 3))]
    context = contexts(tiny.bundle, max(BATCHES), 4)
    with text_tower(tiny.bundle, plan) as tower:
        whole = tower.class_features(context, class_prompts(tiny.bundle, names, 4, chunk_rows=256))
    for i, chunk in enumerate((1, 10, 16, 22, 30, 40, 60, 90)):
        prompts = class_prompts(tiny.bundle, names, 4, chunk_rows=chunk)
        group = GROUPS[i % len(GROUPS)]
        with text_tower(tiny.bundle, replace(plan, micro_batch=group)) as tower:
            for n in BATCHES:
                answer = tower.class_features(context[:n], prompts)
                assert largest(answer, whole[:n]) <= STREAMED_TOLERANCE, f"{chunk}, {n}, {group}"


@pytest.mark.parametrize("recipe", ["gelu", "resnet", "traced vit", "traced timm"])
@each_plan
def test_every_batch_of_pictures(exported, recipe, plan):
    it = exported(recipe)
    if plan is STREAMED and not it.bundle.manifest.image.steps:
        pytest.skip("a traced tower is resident")
    size = it.bundle.manifest.preprocess.size
    pixels = np.random.default_rng(2).normal(0, 1, (max(BATCHES), 3, *size)).astype("f4")
    expected = float64(it.model).encode_image(torch.from_numpy(pixels).double(), normalize=True).numpy()
    with image_tower(it.bundle, plan) as tower:
        for n in BATCHES:
            parts = [pixels[i : i + n] for i in range(0, len(pixels), n)]
            assert largest(tower.image_features(parts), expected) <= IMAGE_TOLERANCE, n
