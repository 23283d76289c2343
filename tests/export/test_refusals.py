"""What export must not write: the sentence names the thing, what is allowed and what to type; the disk
stays as it was."""

import json

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("open_clip")
pytest.importorskip("onnx")

from safetensors.torch import save_file

from sharpzo_edge.errors import SharpzoError, UsageError
from sharpzo_export.write_bundle import export
from support.tiny_clip import RECIPES, config, save_model


@pytest.fixture
def refusal(tmp_path):
    """Call export, expect UsageError, return its text; nothing may be left where it would have written."""

    def get(model, pretrained=None, **options):
        (tmp_path / "outputs").mkdir()
        with pytest.raises(UsageError) as error:
            export(model, pretrained, tmp_path / "outputs" / "bundle", **options)
        assert list((tmp_path / "outputs").iterdir()) == []
        return str(error.value)

    return get


def local_model(tmp_path, model_cfg, preprocess_cfg=None):
    save_model(tmp_path / "model", model_cfg, preprocess_cfg)
    return f"local-dir:{tmp_path / 'model'}"


def text(**options):
    return config(text=options, custom_text=True)


# Text towers whose graph would not be exact: config, the cause, what is allowed.
TEXT_TOWERS = {
    "not causal": (text(no_causal_mask=True), "not causal", "causal towers"),
    "not causal, plain CLIP": (config(text={"no_causal_mask": True}), "not causal", "causal towers"),
    "class token": (text(embed_cls=True), "embed_cls", "pooled at EOT"),
    "tokens too": (text(output_tokens=True), "output_tokens", "return features"),
    "pools last": (text(pool_type="last"), "pools 'last'", "argmax, eos"),
    "pools first": (config(text={"pool_type": "first"}), "pools 'first'", "argmax, eos"),
    "pools at another token": (text(pool_type="eos", eos_id=2), "pools at token 2", "EOT"),
    "norm of queries and keys": (
        text(qk_norm=True),
        "CustomResidualAttentionBlock",
        "ResidualAttentionBlock",
    ),
    "scaled heads": (config(text={"scale_heads": True}), "CustomResidualAttentionBlock", "text tower"),
    "scaled mlp": (text(scale_fc=True), "CustomResidualAttentionBlock", "text tower"),
    "custom blocks": (text(block_type="custom"), "CustomResidualAttentionBlock", "text tower"),
    "norms without bias": (text(norm_kwargs={"bias": False}), "layer norms", "text tower"),
    "other vocabulary": (config(text={"vocab_size": 1000}), "1000 tokens", "49,408"),
    "other cleaning": (text(tokenizer_kwargs={"clean": "canonicalize"}), "cleans", "CLIP's cleaning"),
    "more special tokens": (
        text(tokenizer_kwargs={"additional_special_tokens": ["<x>"]}),
        "tokenizer",
        "49,408 tokens",
    ),
    "other size of features": (text(width=32, proj_type="none"), "32 numbers, the model's 24", "one size"),
}


@pytest.mark.parametrize(("model_cfg", "cause", "allowed"), TEXT_TOWERS.values(), ids=TEXT_TOWERS.keys())
def test_text_tower(tmp_path, refusal, model_cfg, cause, allowed):
    message = refusal(local_model(tmp_path, model_cfg))
    assert "text tower cannot be exported exactly" in message
    assert cause in message and allowed in message
    assert "Choose another --model" in message and "open_clip.list_models()" in message


def test_coca_is_refused_by_its_class(tmp_path, refusal):
    decoder = {"context_length": 76, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    pooled = {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True}
    coca = config(
        pooled, {"embed_cls": True, "output_tokens": True}, multimodal_cfg=decoder, custom_text=True
    )
    assert "the model is CoCa" in refusal(local_model(tmp_path, coca), "none")


def test_picture_tower_that_returns_its_tokens(tmp_path, refusal):
    message = refusal(local_model(tmp_path, config({"output_tokens": True})))
    assert "image tower cannot be exported exactly" in message and "output_tokens" in message


def test_picture_tower_that_torch_cannot_trace(tmp_path, refusal, monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("no such operator")

    monkeypatch.setattr(torch.onnx, "export", fail)
    message = refusal(local_model(tmp_path, RECIPES["traced vit"]))
    assert "image tower cannot be exported exactly" in message
    assert "torch.onnx.export fails on VisionTransformer" in message and "Choose another --model" in message


@pytest.mark.parametrize(
    ("preprocess_cfg", "cause"),
    [
        ({"interpolation": "nearest"}, "interpolation 'nearest'"),
        ({"resize_mode": "tile"}, "resize_mode 'tile'"),
        ({"mode": "L"}, "mode 'L'"),
        ({"std": [0.5, 0.0, 0.5]}, "std (0.5, 0.0, 0.5)"),
        ({"mean": [0.5]}, "mean (0.5,)"),
        ({"fill_color": [1, 2, 3]}, "not 'list'"),
    ],
    ids=["interpolation", "resize mode", "colour mode", "std of zero", "one mean", "fill in colour"],
)
def test_preprocessing(tmp_path, refusal, preprocess_cfg, cause):
    message = refusal(local_model(tmp_path, RECIPES["gelu"], preprocess_cfg))
    assert "image tower cannot be exported exactly" in message and cause in message
    assert "RGB, bicubic, bilinear, shortest, longest, squash" in message
    assert "Choose another --model" in message


# Names, folders, options --------------------------------------------------------------------------


def test_unknown_model(refusal):
    message = refusal("ViT-B-17", "openai")
    assert "--model ViT-B-17 is unknown" in message
    assert "local-dir:FOLDER" in message and "ViT-B-16" in message


def test_hub_model_is_refused_without_a_network(refusal, monkeypatch):
    monkeypatch.setattr(
        "open_clip.factory.download_pretrained_from_hf", lambda *a, **k: pytest.fail("network")
    )
    message = refusal("hf-hub:laion/CLIP-ViT-B-16", "openai")
    assert "--model hf-hub:laion/CLIP-ViT-B-16 is unknown" in message and "local-dir:FOLDER" in message


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (None, "No such file"),
        ("{", "Expecting"),
        ("{}", "model_cfg"),
        ("[]", "list"),
        ('{"model_cfg": null}', "open_clip_config.json"),
    ],
    ids=["missing", "not JSON", "no model_cfg", "a list", "null"],
)
def test_folder_without_a_good_config(tmp_path, refusal, content, cause):
    (tmp_path / "model").mkdir()
    if content is not None:
        (tmp_path / "model" / "open_clip_config.json").write_text(content)
    message = refusal(f"local-dir:{tmp_path / 'model'}")
    assert "open_clip_config.json cannot be used" in message and cause in message
    assert "It must hold" in message and "local-dir:" in message


def test_missing_folder(tmp_path, refusal):
    message = refusal(f"local-dir:{tmp_path / 'nowhere'}")
    assert "nowhere" in message and "Check the path after local-dir:" in message


@pytest.mark.parametrize("other_file", [None, "open_clip_notes.txt", "open_clip_model.pt"])
def test_folder_without_weights_is_never_random_in_silence(tmp_path, refusal, other_file):
    model = local_model(tmp_path, RECIPES["gelu"])
    weights = tmp_path / "model" / "open_clip_model.safetensors"
    if other_file:
        weights.rename(weights.with_name(other_file))  # open_clip does not look for these names
    else:
        weights.unlink()
    message = refusal(model)
    assert str(tmp_path / "model") in message and "no weights" in message
    assert "open_clip_model.safetensors" in message and "--pretrained none" in message
    assert ".pt," not in message and ".pt)" not in message


def test_folder_with_weights_of_another_shape(tmp_path, refusal):
    model = local_model(tmp_path, RECIPES["gelu"])
    about = {"model_cfg": config(text={"layers": 2})}
    (tmp_path / "model" / "open_clip_config.json").write_text(json.dumps(about))
    message = refusal(model)
    assert str(tmp_path / "model") in message and "open_clip_model.safetensors" in message
    assert "--pretrained FILE" not in message  # which does not go with a folder


def test_pretrained_with_a_folder(tmp_path, refusal):
    message = refusal(local_model(tmp_path, RECIPES["gelu"]), "openai")
    assert "--pretrained openai does not go with" in message
    assert "Leave --pretrained out" in message and "--pretrained none" in message


@pytest.mark.parametrize("pretrained", [None, "", "no_such_tag"])
def test_named_model_without_usable_weights(tiny_vit_b_16, refusal, pretrained):
    message = refusal("ViT-B-16", pretrained)
    assert "--pretrained" in message and "--model ViT-B-16" in message
    assert "openai" in message and "checkpoint file" in message


def test_checkpoint_of_another_architecture(tmp_path, tiny_vit_b_16, refusal):
    save_file({"visual.proj": torch.zeros(1)}, tmp_path / "other.safetensors")
    message = refusal("ViT-B-16", str(tmp_path / "other.safetensors"))
    assert "other.safetensors" in message and "checkpoint file of this very architecture" in message


def test_download_that_fails(tiny_vit_b_16, refusal, monkeypatch):
    def fail(*arguments, **options):
        raise OSError("no route to host")

    monkeypatch.setattr("open_clip.factory.download_pretrained", fail)
    message = refusal("ViT-B-16", "openai")
    assert "no route to host" in message and "needs a network" in message and "--pretrained FILE" in message


def test_unknown_weights_format_comes_before_any_loading(refusal, monkeypatch):
    monkeypatch.setattr("sharpzo_export.write_bundle.load_clip", lambda *a: pytest.fail("loaded"))
    message = refusal("RN50", "none", weights="int3")
    assert "--weights int3 is not known" in message and "fp32, int8, int4" in message


def test_output_that_exists_is_not_touched(tmp_path, monkeypatch):
    monkeypatch.setattr("sharpzo_export.write_bundle.load_clip", lambda *a: pytest.fail("loaded"))
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "mine.txt").write_text("keep")
    with pytest.raises(UsageError, match=r"exists already.*choose another --output"):
        export("RN50", "none", tmp_path / "bundle")
    assert (tmp_path / "bundle" / "mine.txt").read_text() == "keep"
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("kind", ["a file", "dead link", "long name", "long path"])
def test_an_output_that_cannot_be_is_refused_at_once(kind, tmp_path, monkeypatch):
    monkeypatch.setattr("sharpzo_export.write_bundle.load_clip", lambda *a: pytest.fail("loaded"))
    (tmp_path / "file").write_text("keep")
    (tmp_path / "link").symlink_to("nowhere")
    output = {
        "a file": tmp_path / "file" / "bundle",
        "dead link": tmp_path / "link",
        "long name": tmp_path / "new" / ("n" * 256),
        "long path": tmp_path / ("a/" * 3000),
    }[kind]
    with pytest.raises(SharpzoError, match=r"(Cannot write|exists already).*--output"):
        export("RN50", "none", output)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "link"]


def test_a_model_that_is_refused_leaves_no_folders(tmp_path, monkeypatch):
    def refused(*_):
        raise UsageError("no such model")

    monkeypatch.setattr("sharpzo_export.write_bundle.load_clip", refused)
    with pytest.raises(UsageError, match="no such model"):
        export("RN50", "none", tmp_path / "new" / "folders" / "bundle")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [None, "words", '{"cat": 1}', "[1.5]", "[true]", "[-1]", "[49408]", "[[1]]", "\xff"],
)
def test_vocabulary_file(tmp_path, refusal, content):
    path = tmp_path / "vocabulary.json"
    if content is not None:
        path.write_bytes(content.encode("latin-1"))
    message = refusal(local_model(tmp_path, RECIPES["gelu"]), vocabulary=path)
    assert f"The vocabulary file {path} cannot be used" in message
    assert "from 0 to 49407" in message and "leave out --vocabulary" in message
