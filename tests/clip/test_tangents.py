"""The tangents of the embedded bundle's text tower: what they are, in every mode, and in every company."""

from dataclasses import replace

import numpy as np
import pytest

from sharpzo_edge.clip.class_prompts import class_prompts, context_from_words, random_context
from sharpzo_edge.clip.tower_plan import RESIDENT, STREAMED, TextPlan, TowerPlan
from sharpzo_edge.clip.towers import TextTower
from sharpzo_edge.errors import BundleError

NAMES = ["red apple and green leaf", "cat", "hot dog", "a small yellow car", "flag"]
N = 5  # directions
PRECISIONS = ("int8", "fp32")

pytestmark = pytest.mark.oldest_onnxruntime
each_precision = pytest.mark.parametrize("precision", PRECISIONS)


def tower_of(bundle, precision, tower=STREAMED, chunk_rows=32):
    return TextTower(bundle, TextPlan(tower, chunk_rows, threads=1, tangents=precision))


def inputs(bundle, m=4, far=0.0):
    """A context `far` times its length away from the initial words, and directions of that length."""
    rng = np.random.default_rng(m)
    words = context_from_words(bundle, "a photo of a") if m == 4 else random_context(bundle, m, rng)
    directions = rng.standard_normal((N, *words.shape)).astype(np.float32)
    directions *= np.linalg.norm(words) / np.linalg.norm(directions, axis=(1, 2), keepdims=True)
    away = rng.standard_normal(words.shape).astype(np.float32)
    return words + far * away * np.linalg.norm(words) / np.linalg.norm(away), directions


def off(found, true):
    return np.linalg.norm(found - true) / np.linalg.norm(true)


@each_precision
@pytest.mark.parametrize(("m", "chunk_rows"), [(1, 1), (4, 12), (7, 256)])
def test_a_directions_bits_do_not_depend_on_its_run(bundle, precision, m, chunk_rows):
    """Alone, with others in any batch, and in every mode: names one by one, in some chunks, in one."""
    prompts = class_prompts(bundle, NAMES, m, chunk_rows)
    context, directions = inputs(bundle, m)
    ways = (RESIDENT, STREAMED, TowerPlan("mapped", 2, 4), TowerPlan("frugal", 3, 3))
    found = []
    for way in ways:
        with tower_of(bundle, precision, way, chunk_rows) as text:
            for n_together in (1, 3, N):
                parts = [directions[i : i + n_together] for i in range(0, N, n_together)]
                answers = [text.class_feature_tangents(context, part, prompts) for part in parts]
                found.append(np.concatenate(answers))
    assert found[0].shape == (N, len(NAMES), bundle.manifest.embed_dim) and found[0].dtype == np.float32
    assert len({each.tobytes() for each in found}) == 1


def test_differences_converge_to_tangents(bundle):
    """The error of a forward difference shrinks as its step does."""
    prompts = class_prompts(bundle, NAMES, 4)
    context, directions = inputs(bundle)
    with tower_of(bundle, "fp32") as text:
        tangents = text.class_feature_tangents(context, directions, prompts)
        T = text.class_features(context[np.newaxis], prompts)
        errors = []
        for step in (0.08, 0.04, 0.02):
            beside = text.class_features(context + np.float32(step) * directions, prompts)
            errors.append(off((beside - T) / step, tangents))
    assert errors[2] < 0.05
    np.testing.assert_allclose(np.divide(errors[:2], errors[1:]), 2, rtol=0.1)


@pytest.mark.parametrize("far", [0, 5, 20])
def test_8_bits_are_within_3_percent(bundle, far):
    prompts = class_prompts(bundle, NAMES, 4)
    context, directions = inputs(bundle, far=far)
    exact, rounded = (
        tower_of(bundle, precision).class_feature_tangents(context, directions, prompts)
        for precision in ("fp32", "int8")
    )
    assert 0 < off(rounded, exact) < 0.03


@each_precision
def test_tangents_are_linear_in_their_direction(bundle, precision):
    """A power of two as a factor keeps the bits, and no direction is a tangent of 0."""
    prompts = class_prompts(bundle, NAMES, 4)
    context, directions = inputs(bundle)
    some = np.stack([directions[0], 4 * directions[0], directions[1], directions[0] + directions[1]])
    with tower_of(bundle, precision) as text:
        one, four_times, other, both = text.class_feature_tangents(context, some, prompts)
        nothing = text.class_feature_tangents(context, np.zeros_like(directions), prompts)
    assert (4 * one).tobytes() == four_times.tobytes()
    assert off(both, one + other) < {"fp32": 1e-5, "int8": 0.03}[precision]
    assert not nothing.any()


def test_tangents_lie_across_the_class_features(bundle):
    """These have length one, so a change along them would be none."""
    prompts = class_prompts(bundle, NAMES, 4)
    context, directions = inputs(bundle, far=1)
    with tower_of(bundle, "fp32") as text:
        T = text.class_features(context[np.newaxis], prompts)
        tangents = text.class_feature_tangents(context, directions, prompts)
    along = (T * tangents).sum(axis=-1) / np.linalg.norm(tangents, axis=-1)
    np.testing.assert_allclose(along, 0, atol=1e-5)


def test_a_tower_has_the_tangents_of_its_plan_alone(bundle):
    plan = TextPlan(RESIDENT, 256, threads=1, tangents="fp32")
    given = *inputs(bundle), class_prompts(bundle, NAMES, 4)
    with TextTower(bundle, plan) as closed:
        pass
    with TextTower(bundle, replace(plan, tangents=None)) as without:
        for text in (closed, without):
            with pytest.raises(ValueError, match="closed, or its plan has no tangents"):
                text.class_feature_tangents(*given)


@pytest.mark.parametrize("tower", [RESIDENT, STREAMED], ids=lambda p: p.mode)
@pytest.mark.parametrize("data", ["text.data", "text_int8.data"])
def test_short_weights_are_a_bundle_error(bundle_copy, tower, data):
    """They are read step by step in every mode."""
    opened = bundle_copy.open()
    path = bundle_copy.folder / data
    with tower_of(opened, "int8", tower) as text:
        path.write_bytes(path.read_bytes()[:-400_000])  # a copy that broke off after the check
        with pytest.raises(BundleError, match=rf"{data} ends in the middle of a block"):
            text.class_feature_tangents(*inputs(opened), class_prompts(opened, NAMES, 4))
