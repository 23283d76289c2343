"""The trap: OpenAI's weights want QuickGELU, and open_clip's name ViT-B-16 says GELU.

The names, the tags and what they say are open_clip's own; `tiny_vit_b_16` (conftest.py) only makes the
architecture behind the names tiny, and the download a local file.
"""

import numpy as np
import pytest

pytest.importorskip("torch")
open_clip = pytest.importorskip("open_clip")
pytest.importorskip("onnx")

from open_clip.tokenizer import SimpleTokenizer

from sharpzo_edge.clip.class_prompts import class_prompts, context_from_words
from sharpzo_edge.clip.tower_plan import RESIDENT
from sharpzo_export.write_bundle import export
from support.open_towers import text_tower
from support.tiny_clip import config, save_model

TOKENIZER = SimpleTokenizer()
NAME = "cat"
PLAIN, QUICK = "ViT-B-16", "ViT-B-16-quickgelu"


def torch_features(model, checkpoint):
    """A prompt through open_clip's own model of that name, loaded by path: no tag is asked."""
    model = open_clip.create_model(model, pretrained=str(checkpoint)).eval()
    tokens = TOKENIZER([f"a photo of a {NAME}."])
    return model.encode_text(tokens, normalize=True).detach().numpy()


def device_features(bundle):
    context = context_from_words(bundle, "a photo of a")
    with text_tower(bundle, RESIDENT) as tower:
        return tower.class_features(context[None], class_prompts(bundle, [NAME], len(context)))[0]


def check(bundle, activation, checkpoint):
    assert bundle.manifest.text.activation == activation
    names = {"gelu": PLAIN, "quick_gelu": QUICK}
    wrong = names["gelu" if activation == "quick_gelu" else "quick_gelu"]
    assert bundle.manifest.model == names[activation]
    answer = device_features(bundle)
    assert np.abs(answer - torch_features(names[activation], checkpoint)).max() < 2e-6
    assert np.abs(answer - torch_features(wrong, checkpoint)).max() > 1e-3  # the trap would show
    assert bundle.manifest.parity["image_features"] < 1e-5


def test_openai_weights_under_the_gelu_name(tmp_path, tiny_vit_b_16):
    bundle, notes = export(PLAIN, "openai", tmp_path / "bundle")
    check(bundle, "quick_gelu", tiny_vit_b_16)
    assert bundle.manifest.pretrained == "openai"
    (note,) = notes
    assert "openai were trained with QuickGELU" in note and "ViT-B-16 says GELU" in note
    assert "exported with QuickGELU" in note


def test_openai_weights_under_the_right_name_need_no_note(tmp_path, tiny_vit_b_16):
    bundle, notes = export(QUICK, "openai", tmp_path / "bundle")
    check(bundle, "quick_gelu", tiny_vit_b_16)
    assert notes == ()


def test_gelu_weights_under_the_quickgelu_name(tmp_path, tiny_vit_b_16, monkeypatch):
    tags = {**open_clip.pretrained._PRETRAINED[QUICK], "wants_gelu": {"url": "nowhere", "quick_gelu": False}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, QUICK, tags)
    bundle, notes = export(QUICK, "wants_gelu", tmp_path / "bundle")
    check(bundle, "gelu", tiny_vit_b_16)
    assert bundle.manifest.pretrained == "wants_gelu"
    assert "trained with GELU" in notes[0] and "exported with GELU" in notes[0]


def test_gelu_weights_under_the_gelu_name(tmp_path, tiny_vit_b_16):
    bundle, notes = export(PLAIN, "laion2b_s34b_b88k", tmp_path / "bundle")
    check(bundle, "gelu", tiny_vit_b_16)
    assert notes == ()


def test_preprocessing_is_the_tags(tmp_path, tiny_vit_b_16, monkeypatch):
    """OpenAI's mean and std go with OpenAI's weights, not open_clip's defaults."""
    tag = {**open_clip.get_pretrained_cfg(PLAIN, "openai"), "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED[PLAIN], "openai", tag)
    bundle, _ = export(PLAIN, "openai", tmp_path / "bundle")
    assert bundle.manifest.preprocess.mean == (0.1, 0.2, 0.3)
    assert bundle.manifest.preprocess.std == (0.4, 0.5, 0.6)


@pytest.mark.parametrize(
    ("model", "quick_gelu", "activation"),
    [
        (PLAIN, None, "gelu"),
        (PLAIN, True, "quick_gelu"),
        (QUICK, None, "quick_gelu"),
        (QUICK, False, "gelu"),
    ],
)
def test_checkpoint_file_follows_name_or_option(tmp_path, tiny_vit_b_16, model, quick_gelu, activation):
    bundle, notes = export(model, str(tiny_vit_b_16), tmp_path / "bundle", quick_gelu=quick_gelu)
    check(bundle, activation, tiny_vit_b_16)
    assert notes == ()
    assert bundle.manifest.pretrained == tiny_vit_b_16.name
    assert str(tmp_path) not in (tmp_path / "bundle" / "manifest.json").read_text()


def test_option_beats_the_tag(tmp_path, tiny_vit_b_16):
    bundle, notes = export(PLAIN, "openai", tmp_path / "bundle", quick_gelu=False)
    check(bundle, "gelu", tiny_vit_b_16)
    assert notes == ()


def test_option_beats_a_folders_config(tmp_path):
    save_model(tmp_path / "model", config(quick_gelu=True))
    bundle, _ = export(f"local-dir:{tmp_path / 'model'}", None, tmp_path / "bundle", quick_gelu=False)
    assert bundle.manifest.text.activation == "gelu"
    assert bundle.manifest.model == "model" and bundle.manifest.pretrained == "open_clip_model.safetensors"
