"""What lies in a bundle: the same bytes every time, nothing of this machine, and only what was asked for."""

import gzip
import itertools
import json
import os
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("open_clip")
onnx = pytest.importorskip("onnx")

from open_clip.tokenizer import SimpleTokenizer

from sharpzo_edge.clip.bundle import Bundle
from sharpzo_edge.clip.class_prompts import class_prompts, context_from_words
from sharpzo_edge.errors import ClassNameError
from sharpzo_export import image_graph, text_graph, transformer, write_bundle
from sharpzo_export.agreement import ParityError
from sharpzo_export.quantize import times_columns
from sharpzo_export.write_bundle import export
from support.tiny_clip import config, save_model

BUILT_IN_EVERY_WAY = ("gelu", "resnet", "traced vit", "traced timm")
each_way = pytest.mark.parametrize("recipe", BUILT_IN_EVERY_WAY)
each_way_and_packed = pytest.mark.parametrize(
    ("recipe", "weights"),
    [*((recipe, "fp32") for recipe in BUILT_IN_EVERY_WAY), ("gelu", "int4"), ("resnet", "int8")],
)


def graphs(bundle):
    return {p.name: onnx.load(p, load_external_data=False) for p in sorted(bundle.folder.glob("*.onnx"))}


def token_table(model):
    return getattr(model, "text", model).token_embedding.weight.numpy()


# Bytes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["gelu", "resnet", "traced timm"])
def test_exporting_again_gives_the_same_bytes(exported, tmp_path, recipe):
    it = exported(recipe)
    export(f"local-dir:{it.source}", None, tmp_path / "again")
    folders = (it.bundle.folder, tmp_path / "again")
    first, second = ({p.name: p.read_bytes() for p in folder.iterdir()} for folder in folders)
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []
    assert set(first) - {"manifest.json"} == set(it.bundle.manifest.files)
    Bundle.open(tmp_path / "again").verify()


@each_way
def test_nothing_of_this_machine(exported, recipe):
    it = exported(recipe)
    ours = [str(it.source.parent), "site-packages", sys.prefix, os.path.dirname(write_bundle.__file__)]
    for path in it.bundle.folder.iterdir():
        if path.suffix in (".onnx", ".json"):
            data = path.read_bytes()
            assert [place for place in ours if place.encode() in data] == [], path.name


@each_way_and_packed
def test_opset_ir_and_inputs_are_what_old_runtimes_read(exported, recipe, weights):
    """ONNX's own operators, and two of onnxruntime's: for packed weights, which leaves activations alone, and
    for tangents in 8 bits.
    """
    it = exported(recipe, weights)
    for name, model in graphs(it.bundle).items():
        assert model.ir_version == 9, name
        assert [(o.domain, o.version) for o in model.opset_import if o.domain == ""] == [("", 20)], name
        foreign = [node for node in model.graph.node if node.domain]
        assert {node.domain for node in foreign} <= {"com.microsoft"}, name
        kinds = {node.op_type for node in foreign} - {"MatMulNBits"}
        assert kinds == ({"MatMulIntegerToFloat"} if name.endswith("_int8.onnx") else set()), name
        for node in (node for node in foreign if node.op_type == "MatMulNBits"):
            attributes = {a.name: a.i for a in node.attribute}
            assert attributes["accuracy_level"] == 1 and weights == f"int{attributes['bits']}"
        onnx.checker.check_model(it.bundle.path(name))


@each_way_and_packed
def test_weights_lie_inside_the_data_file_without_overlap(exported, recipe, weights):
    it = exported(recipe, weights)
    for name, model in graphs(it.bundle).items():
        ranges = set()
        for tensor in model.graph.initializer:
            if tensor.data_location != onnx.TensorProto.EXTERNAL:
                continue
            place = {entry.key: entry.value for entry in tensor.external_data}
            offset, length = int(place["offset"]), int(place["length"])
            assert place["location"] in (it.bundle.manifest.text.data, it.bundle.manifest.image.data)
            assert place["location"].startswith(name[:4])
            size = {onnx.TensorProto.FLOAT: 4, onnx.TensorProto.UINT8: 1}[tensor.data_type]
            assert length == size * np.prod(tuple(tensor.dims)), tensor.name
            assert offset + length <= it.bundle.path(place["location"]).stat().st_size
            ranges.add((offset, offset + length))
        ordered = sorted(ranges)
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(ordered)), name


def streamed(tower):
    return [step for step in tower.steps if step.weights]


@pytest.mark.parametrize(
    ("recipe", "weights"), [("gelu", "fp32"), ("gelu", "int4"), ("resnet", "fp32"), ("resnet", "int8")]
)
def test_weights_of_a_step_are_contiguous_and_page_aligned(exported, recipe, weights):
    """So that a step's weights are one read."""
    manifest = exported(recipe, weights).bundle.manifest
    for step in itertools.chain(*map(streamed, (manifest.text, manifest.text.tangents, manifest.image))):
        assert step.weights[0].offset % 4096 == 0
        for tensor, following in itertools.pairwise(step.weights):
            assert tensor.offset % 64 == 0
            assert 0 <= following.offset - tensor.end < 64


@pytest.mark.parametrize(("weights", "per_half"), [("fp32", 6), ("int8", 10)])
def test_halves_of_a_transformers_blocks_have_two_layouts(exported, weights, per_half):
    """Attention, MLP, attention, MLP: so one graph serves all that are alike."""
    manifest = exported("gelu", weights).bundle.manifest
    for tower, layers in ((manifest.text, 3), (manifest.image, 2)):
        halves = [step.weights for step in streamed(tower)]
        assert len(halves) == 2 * layers and all(len(half) == per_half for half in halves)
        layouts = [tuple((t.name, t.dtype, t.shape) for t in half) for half in halves]
        assert layouts == [layouts[0], layouts[1]] * layers and layouts[0] != layouts[1]


def test_resnet_is_cut_at_its_blocks_and_its_pools_matrices(exported):
    """Layers of 1, 1, 2, 1 blocks: one graph serves all that are alike but for their channels."""
    steps = exported("resnet").bundle.manifest.image.steps
    assert [step.graph.removeprefix("image_").removesuffix(".onnx") for step in steps] == [
        "stem",
        "bottleneck_down_1",
        "bottleneck_down_2",
        "bottleneck_down_2",
        "bottleneck_1",
        "bottleneck_down_2",
        *("pool_q", "pool_k", "pool_v", "pool_c"),
    ]


@pytest.mark.parametrize("recipe", ["gelu", "resnet", "custom text with bias, avg pool then norm"])
@pytest.mark.parametrize("weights", ["fp32", "int4"])
def test_a_step_takes_the_last_ones_output_then_its_weights(exported, recipe, weights):
    """The rule by which the device streams any tower, without knowing what its steps are."""
    it = exported(recipe, weights)
    models = graphs(it.bundle)
    for tower, first in ((it.bundle.manifest.text, 3), (it.bundle.manifest.image, 1)):
        taken = first
        for step in tower.steps:
            inputs = [value.name for value in models[step.graph].graph.input]
            by_name = [name for name in inputs if name in ("mask", "eot_rows")]
            assert inputs[taken:] == by_name + [tensor.name for tensor in step.weights]
            taken = len(models[step.graph].graph.output)


@pytest.mark.parametrize(("recipe", "weights"), [("gelu", "fp32"), ("gelu", "int4"), ("resnet", "fp32")])
def test_resident_graph_reads_the_streamed_weights(exported, recipe, weights):
    """One data file: the tensors of the whole graph are those that the manifest streams."""
    it = exported(recipe, weights)
    for tower in (it.bundle.manifest.text, it.bundle.manifest.image):
        model = onnx.load(it.bundle.path(tower.graph), load_external_data=False)
        places = {
            (t.name.split(".", 2)[2], int({e.key: e.value for e in t.external_data}["offset"]))
            for t in model.graph.initializer
            if t.external_data and t.name.startswith(("block.", "layer"))
        }
        blocks = [step for step in streamed(tower) if "pool" not in step.graph]
        assert places == {(t.name, t.offset) for step in blocks for t in step.weights}


# Random weights, vocabulary, merges --------------------------------------------------------------


def test_random_weights_are_said_to_be_random(tiny_vit_b_16, tmp_path):
    bundle, notes = export("ViT-B-16", "none", tmp_path / "bundle")
    assert json.loads((tmp_path / "bundle" / "manifest.json").read_text())["pretrained"] is None
    assert bundle.manifest.model == "ViT-B-16"
    assert any("Random weights" in note for note in notes)


def test_random_weights_pass_over_a_folders_own(exported, tmp_path):
    it = exported("gelu")
    bundle, notes = export(f"local-dir:{it.source}", "none", tmp_path / "bundle")
    assert bundle.manifest.pretrained is None and any("Random weights" in note for note in notes)
    assert it.bundle.manifest.pretrained == "open_clip_model.safetensors"
    ids = [320, 2368]
    assert not np.allclose(bundle.token_embeddings(ids), it.bundle.token_embeddings(ids))


def test_full_table_is_the_models(exported):
    it = exported("custom text with bias, avg pool then norm")
    table = np.load(it.bundle.path("token_embedding.npy"))
    np.testing.assert_array_equal(table, token_table(it.model))
    assert not it.bundle.path("token_ids.npy").exists()


def test_a_vocabulary_keeps_what_every_prompt_needs(exported, tmp_path):
    """Beside the tokens that were asked for."""
    it = exported("gelu")
    tokenizer = SimpleTokenizer()
    wanted = [*tokenizer.encode("cat snow leopard"), 7, 7, 49000]
    (tmp_path / "vocabulary.json").write_text(json.dumps(wanted))
    bundle, _ = export(
        f"local-dir:{it.source}", None, tmp_path / "bundle", vocabulary=tmp_path / "vocabulary.json"
    )
    always = [tokenizer.sot_token_id, tokenizer.eot_token_id, *tokenizer.encode("a photo of a.")]
    kept = np.load(bundle.path("token_ids.npy"))
    assert kept.dtype == np.int32 and kept.tolist() == sorted({*wanted, *always})
    table = np.load(bundle.path("token_embedding.npy"))
    np.testing.assert_array_equal(table, token_table(it.model)[kept])
    shuffled = kept[::-1].tolist()
    np.testing.assert_array_equal(bundle.token_embeddings(shuffled), token_table(it.model)[shuffled])

    assert class_prompts(bundle, ["Snow Leopard", "cat"], 4).names == ("Snow Leopard", "cat")
    np.testing.assert_array_equal(
        context_from_words(bundle, "a photo of a"), context_from_words(it.bundle, "a photo of a")
    )
    with pytest.raises(ClassNameError, match="'dog'"):
        class_prompts(bundle, ["cat", "dog"], 4)


def test_merges_are_clips_and_the_same_bytes_every_time(exported):
    """That they are in the right order, test_tokenizer_parity.py says."""
    packed = exported("gelu").bundle.path("bpe.txt.gz").read_bytes()
    lines = gzip.decompress(packed).decode().splitlines()
    assert len(lines) == 48_894
    assert lines[0] == "i n" and lines[-1] == "jeky ll</w>"
    assert packed == exported("resnet").bundle.path("bpe.txt.gz").read_bytes()
    assert packed[4:8] == bytes(4)  # no time of writing


def test_preprocessing_in_open_clips_short_forms_is_written_out(tmp_path):
    """One number for all channels, and "random", which open_clip reads as bicubic when it evaluates."""
    short = {"mean": 0.25, "std": 0.5, "interpolation": "random", "resize_mode": "squash", "fill_color": 7}
    save_model(tmp_path / "model", config({"image_size": [24, 40]}), short)
    bundle, _ = export(f"local-dir:{tmp_path / 'model'}", None, tmp_path / "bundle")
    how = bundle.manifest.preprocess
    assert (how.size, how.mean, how.std) == ((24, 40), (0.25,) * 3, (0.5,) * 3)
    assert (how.interpolation, how.resize_mode, how.fill_color) == ("bicubic", "squash", 7)


def test_context_too_short_for_the_longest_parity_name(tmp_path):
    save_model(tmp_path / "model", config(text={"context_length": 12}))
    bundle, _ = export(f"local-dir:{tmp_path / 'model'}", None, tmp_path / "bundle")
    assert bundle.manifest.text.context_length == 12


# A wrong graph -----------------------------------------------------------------------------------


def off_by_a_percent(name, half_weights):
    def changed(block, linear):
        arrays = half_weights(block, linear)
        return {**arrays, name: times_columns(arrays[name], np.array([1.01], np.float32))}

    return changed


@pytest.mark.parametrize(
    ("module", "tower"),
    [(text_graph, "class features"), (image_graph, "image features")],
    ids=["text", "image"],
)
@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("ln_1.weight", "fp32"),
        ("qkv.weight", "int8"),
        ("out.weight", "fp32"),
        ("fc.weight", "int4"),
        ("proj.bias", "fp32"),
    ],
)
def test_parity_finds_weights_that_are_one_percent_off(
    exported, tmp_path, monkeypatch, module, tower, name, weights
):
    """Rounded or not: what rounding does is no part of the tolerance."""
    half = "attention_weights" if name.startswith(("ln_1", "qkv", "out")) else "mlp_weights"
    monkeypatch.setattr(module, half, off_by_a_percent(name, getattr(transformer, half)))
    with pytest.raises(ParityError) as error:
        export(f"local-dir:{exported('gelu').source}", None, tmp_path / "bundle", weights=weights)
    assert f"differs from torch in {tower}," in str(error.value)
    assert "Nothing was written" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_parity_finds_another_cleaning_of_names(exported, tmp_path, monkeypatch):
    monkeypatch.setattr("sharpzo_edge.clip.tokenizer.clean_text", lambda text: text)
    with pytest.raises(ParityError, match="differs from torch in token ids"):
        export(f"local-dir:{exported('gelu').source}", None, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_disk_error_leaves_nothing(exported, tmp_path, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(write_bundle, "_write_merges", full)
    with pytest.raises(Exception, match="No space left") as error:
        export(f"local-dir:{exported('gelu').source}", None, tmp_path / "bundle")
    assert type(error.value).__module__ == "sharpzo_edge.errors"
    assert list(tmp_path.iterdir()) == []
