"""Bundles of tiny models, exported once a test session. Torch is imported where it is used: without it
the modules beside skip themselves."""

import json
import shutil

import pytest


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """(recipe name, precision) -> tiny_clip.Exported, written by sharpzo_export and cached."""
    from sharpzo_export.write_bundle import export
    from support import tiny_clip

    folder = tmp_path_factory.mktemp("exported")
    cache = {}

    def get(recipe, weights="fp32"):
        if (recipe, weights) not in cache:
            place = folder / str(len(cache))
            model = tiny_clip.save_model(place / "model", tiny_clip.RECIPES[recipe])
            bundle, notes = export(f"local-dir:{place / 'model'}", None, place / "bundle", weights=weights)
            cache[recipe, weights] = tiny_clip.Exported(place / "model", model, bundle, notes)
        return cache[recipe, weights]

    yield get
    shutil.rmtree(folder)


@pytest.fixture
def tiny_vit_b_16(tmp_path, monkeypatch):
    """ViT-B-16 and ViT-B-16-quickgelu, made tiny; returns the file that every tag's download gives."""
    import open_clip

    from support.tiny_clip import config, save_model

    factory = open_clip.factory
    monkeypatch.setattr(factory, "_MODEL_CONFIG_PATHS", list(factory._MODEL_CONFIG_PATHS))
    monkeypatch.setattr(factory, "_MODEL_CONFIGS", dict(factory._MODEL_CONFIGS))
    (tmp_path / "configs").mkdir()
    for name, options in (("ViT-B-16", {}), ("ViT-B-16-quickgelu", {"quick_gelu": True})):
        (tmp_path / "configs" / f"{name}.json").write_text(json.dumps(config(**options)))
    open_clip.add_model_config(tmp_path / "configs")
    save_model(tmp_path / "weights", config())
    path = tmp_path / "weights" / "open_clip_model.safetensors"
    monkeypatch.setattr(factory, "download_pretrained", lambda tag, **options: str(path))
    return path
