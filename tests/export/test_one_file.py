"""`classifier` of bundles of every kind: built and traced towers, rounded weights, crops of any shape."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("open_clip")

from sharpzo_edge import predict, tune
from sharpzo_edge.clip.preprocess import read_crop
from sharpzo_edge.clip.quiet_onnxruntime import ort
from sharpzo_edge.errors import UsageError
from sharpzo_export.write_classifier import write_classifier

KINDS = [
    ("gelu", "fp32"),
    ("gelu", "int4"),
    ("resnet", "int8"),
    ("traced vit", "fp32"),
    ("traced timm", "fp32"),
    ("custom text without projection, eos, wide pictures", "fp32"),
]


@pytest.fixture
def prompt(pictures, tmp_path):
    """bundle -> a prompt with a head of it."""

    def made(bundle):
        path = tmp_path / "prompt.safetensors"
        tune(bundle.folder, pictures, path, preset="head", head="ridge", val=0)
        return path

    return made


@pytest.mark.parametrize(("recipe", "weights"), KINDS)
def test_a_file_of_every_kind_of_bundle(exported, prompt, pictures, tmp_path, recipe, weights):
    bundle, file = exported(recipe, weights).bundle, tmp_path / "classifier.onnx"
    written = write_classifier(bundle.folder, tuned := prompt(bundle), file)
    assert written.weights == weights and max(written.parity.values()) < 1e-4
    files = sorted(pictures.glob("*/*.png"))
    crops = np.stack([read_crop(path, bundle.manifest.preprocess, float("inf")) for path in files])
    found, _ = ort.InferenceSession(file).run(None, {"pixels": crops})
    for row, answer in zip(found, predict(files, bundle.folder, tuned).predictions, strict=True):
        scores = dict(zip(answer.labels, answer.scores, strict=True))
        np.testing.assert_allclose(row, [scores[label] for label in written.labels], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("recipe", "weights"), [("gelu", "int8"), ("traced timm", "fp32")])
def test_what_cannot_be_rounded_is_told(exported, prompt, tmp_path, recipe, weights):
    bundle, file = exported(recipe, weights).bundle, tmp_path / "classifier.onnx"
    tuned = prompt(bundle)
    if weights == "fp32":
        written = write_classifier(bundle.folder, tuned, file, weights="int8")
        assert written.weights == "fp32" and "torch traced this image tower" in written.notes[0]
    else:
        with pytest.raises(UsageError, match=r"its weights are int8\. Only those of an fp32 bundle"):
            write_classifier(bundle.folder, tuned, file, weights="int4")
        assert not file.exists()
