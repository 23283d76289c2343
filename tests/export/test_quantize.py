"""Packed weights: what onnxruntime multiplies by is exactly what we say the numbers stand for, whole or
streamed, and nothing but the linear layers' weights is rounded."""

import numpy as np
import pytest

from sharpzo_edge.clip.quiet_onnxruntime import ort

torch = pytest.importorskip("torch")
pytest.importorskip("open_clip")
pytest.importorskip("onnx")

from sharpzo_edge.clip.class_prompts import class_prompts
from sharpzo_edge.clip.tower_plan import RESIDENT, STREAMED
from sharpzo_export.graph import DataFile, Graph
from sharpzo_export.quantize import BITS, dequantised, pack, times_columns
from support.open_clip_reference import torch_class_features, with_rounded_linears
from support.open_towers import image_tower, text_tower

BUILT = ("gelu", "layer_scale, no ln_pre", "custom text with bias, avg pool then norm", "resnet")
each_width = pytest.mark.parametrize("bits", BITS.values())


def matrix(n_in, n_out):
    """Columns of many sizes; some all zero, of one sign, or of one value."""
    rng = np.random.default_rng(n_in)
    values = rng.normal(0, 1, (n_in, n_out)) * rng.uniform(0.001, 3, n_out)
    values[:, 0], values[:, 1], values[:, 2] = 0, np.abs(values[:, 1]) + 1, -0.5
    return values.astype(np.float32)


@each_width
def test_every_number_is_rounded_to_the_nearest_of_its_block(bits):
    values = matrix(70, 9)
    packed = pack(values, bits)
    assert packed.blocks.shape == (9, 3, 4 * bits) and packed.blocks.dtype == np.uint8
    assert packed.scales.shape == (9, 3) and packed.scales.dtype == np.float32
    assert packed.zero_points.shape == (9, 3 if bits == 8 else 2)
    step = np.repeat(packed.scales, 32, axis=1)[:, :70].T
    found = dequantised(packed)
    assert (np.abs(found - values) <= step * 0.51).all()
    assert found[:, 0].max() == found[:, 0].min() == 0
    np.testing.assert_allclose(found[:, 2], -0.5, rtol=1e-6)


@each_width
@pytest.mark.parametrize(("n_in", "n_out"), [(7, 3), (32, 64), (100, 70), (257, 33)])
@pytest.mark.parametrize("streamed", [False, True])
def test_onnxruntime_multiplies_by_the_dequantised_matrix(tmp_path, bits, n_in, n_out, streamed):
    packed = times_columns(pack(matrix(n_in, n_out), bits), np.linspace(-2, 2, n_out, dtype=np.float32))
    data = DataFile(tmp_path / "linear.data")
    places = data.append_block({"w": packed, "b": np.arange(n_out, dtype=np.float32)})
    data.close()
    g = Graph("linear", data)
    x = g.input("x", ("B", "R", n_in))
    w = g.weight_inputs(places) if streamed else g.weights(places)
    g.output("y", g.linear(x, w["w"], w["b"]), ("B", "R", n_out))
    g.save(tmp_path / "linear.onnx")
    session = ort.InferenceSession(str(tmp_path / "linear.onnx"), providers=["CPUExecutionProvider"])
    feeds = {"w.blocks": packed.blocks, "w.scales": packed.scales, "w.zero_points": packed.zero_points}
    feeds["b"] = np.arange(n_out, dtype=np.float32)

    rounded = dequantised(packed).astype(np.float64)
    for n_rows in (1, 50):
        x = np.random.default_rng(0).normal(0, 1, (2, n_rows, n_in)).astype(np.float32)
        (found,) = session.run(None, {"x": x} | (feeds if streamed else {}))
        size = np.abs(x) @ np.abs(rounded) + np.arange(n_out)
        assert (np.abs(found - (x @ rounded + np.arange(n_out))) <= 3e-6 * size + 1e-30).all()


@pytest.mark.parametrize("weights", BITS)
@pytest.mark.parametrize("recipe", BUILT)
def test_towers_equal_open_clip_with_rounded_weights(exported, recipe, weights):
    """To float32 round-off, as for fp32 bundles; whole and streamed."""
    it = exported(recipe, weights)
    model, rng = with_rounded_linears(it.model, BITS[weights]), np.random.default_rng(0)
    context = rng.normal(0, 0.05, (3, 4, it.bundle.manifest.text.width)).astype(np.float32)
    pixels = rng.normal(0, 1, (2, 3, *it.bundle.manifest.preprocess.size)).astype(np.float32)
    names = ["cat", "house tree lake", "dog"]
    prompts = class_prompts(it.bundle, names, 4, chunk_rows=12)
    of_classes = torch_class_features(model, context, names)
    of_pictures = model.encode_image(torch.from_numpy(pixels).double(), normalize=True).numpy()
    answers = []
    for plan in (RESIDENT, STREAMED):
        with text_tower(it.bundle, plan) as tower:
            text = tower.class_features(context, prompts)
        with image_tower(it.bundle, plan) as tower:
            image = tower.image_features([pixels])
        assert np.abs(text - of_classes).max() <= 2e-6 and np.abs(image - of_pictures).max() <= 2e-6
        answers.append((text, image))
    for whole, streamed in zip(*answers, strict=True):
        assert np.abs(whole - streamed).max() <= 1e-6


def test_manifest_says_the_precision_and_what_rounding_did(exported):
    cosines = {}
    for weights in ("fp32", "int8", "int4"):
        manifest = exported("gelu", weights).bundle.manifest
        assert manifest.weights == weights
        assert manifest.largest_difference < 1e-5
        found = [manifest.parity.get(f"{stage}_features_cosine_to_fp32") for stage in ("class", "image")]
        cosines[weights] = found
        unpacked = {step.unpacking_bytes for step in manifest.text.steps if step.weights}
        assert unpacked == ({0} if weights == "fp32" else {4 * 32 * 96, 4 * 32 * 128})  # qkv; MLP, in or out
    assert cosines["fp32"] == [None, None]
    assert all(0.9 < four < eight < 1 for four, eight in zip(cosines["int4"], cosines["int8"], strict=True))


def test_packed_files_are_as_small_as_promised(exported):
    """9.25 and 5.125 bits for a weight of a linear layer, 32 for what is left."""
    whole = exported("gelu").bundle.manifest.text.steps[2].weights
    for weights, bits in (("int8", 9.25), ("int4", 5.125)):
        packed = exported("gelu", weights).bundle.manifest.text.steps[2].weights
        linear = sum(t.n_bytes for t in whole if len(t.shape) == 2)
        rest = sum(t.n_bytes for t in whole) - linear
        assert sum(t.n_bytes for t in packed) <= linear * bits / 32 * 1.02 + rest


def test_traced_tower_stays_as_it_was_and_is_mentioned(exported):
    it = exported("traced timm", "int8")
    assert any("image tower stay fp32" in note for note in it.notes)
    assert not any("image tower" in note for note in exported("gelu", "int8").notes)
    assert it.bundle.manifest.parity["image_features_cosine_to_fp32"] > 1 - 1e-6
