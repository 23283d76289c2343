"""`classifier`: one ONNX file that answers as predict does, with onnxruntime alone; made without torch."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from sharpzo_edge import BundleError, UsageError, predict, tune
from sharpzo_edge.clip.bundle import Bundle
from sharpzo_edge.clip.preprocess import read_crop
from sharpzo_edge.clip.quiet_onnxruntime import ort
from sharpzo_edge.demo import BUNDLE, TASKS
from sharpzo_export import classifier_graph, write_classifier
from sharpzo_export.agreement import ParityError
from sharpzo_export.classifier_graph import image_tower
from sharpzo_export.graph import Graph
from support.bundle_copy import BundleCopy
from support.processes import ROOT, finish, run

PICTURES = sorted((TASKS / "subgroups" / "test").glob("*/*.png"))[::9]
KINDS = ("kernel", "ridge", "gda")
WAYS = [
    ("kernel", "words"),
    ("kernel", "prompt"),
    *((kind, use) for kind in KINDS for use in ("head", "both")),
]
PAGE = (ROOT / "docs" / "one-file.md").read_text(encoding="utf-8")
(EXAMPLE,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tuned prompt with each kind of head."""
    folder = tmp_path_factory.mktemp("prompts")
    paths = {kind: folder / f"{kind}.safetensors" for kind in KINDS}
    for kind, path in paths.items():
        options: dict[str, Any] = {"shots": 6, "val": 1, "preset": "demo", "max_queries": 60}
        tune(BUNDLE, TASKS / "subgroups" / "train", path, head=kind, **options)
    return paths


def write(output: Path, prompt: Path, bundle: Path = BUNDLE, **options: Any) -> Any:
    return write_classifier.write_classifier(bundle, prompt, output, **options)


def answers_of(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of the pictures, and their largest logits, from onnxruntime."""
    session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
    how = Bundle.open(BUNDLE).manifest.preprocess
    crops = np.stack([read_crop(picture, how, float("inf")) for picture in PICTURES])
    probabilities, largest = session.run(["probabilities", "largest_logit"], {"pixels": crops})
    return probabilities, largest


def predicted(prompt: Path, labels: tuple[str, ...], use: str | None = None) -> tuple[np.ndarray, list[bool]]:
    """What predict says, in the labels' order, and which pictures it calls none of the classes."""
    answers = predict(PICTURES, BUNDLE, prompt, use=use, top=len(labels)).predictions
    scores = [dict(zip(answer.labels, answer.scores, strict=True)) for answer in answers]
    return np.array([[each[name] for name in labels] for each in scores]), [each.none for each in answers]


@pytest.mark.oldest_onnxruntime
@pytest.mark.parametrize(("kind", "use"), WAYS)
def test_every_way_answers_as_predict(prompts: dict[str, Path], tmp_path: Path, kind: str, use: str) -> None:
    written = write(tmp_path / "classifier.onnx", prompts[kind], use=use)
    found, largest = answers_of(tmp_path / "classifier.onnx")
    expected, none = predicted(prompts[kind], written.labels, use)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert (found.argmax(1) == expected.argmax(1)).all()
    below = -np.inf if written.none_below is None else written.none_below
    assert (largest < below).tolist() == none and (written.none_below is None) == (use in ("prompt", "both"))
    assert written.use == use and max(written.parity.values()) < 1e-4


def test_the_pages_lines_need_onnxruntime_alone(prompts: dict[str, Path], tmp_path: Path) -> None:
    """On a picture that must be turned, resized and cut."""
    write(tmp_path / "classifier.onnx", prompts["kernel"])
    with Image.open(PICTURES[0]) as picture:
        tilted = picture.resize((203, 130), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    tilted.save(tmp_path / "new.jpg", quality=95, exif=exif)
    loaded = "import sys; print('LOADED', *(m for m in sys.modules if m.startswith('sharpzo')))"
    code = f"import os; os.chdir({str(tmp_path)!r})\n{EXAMPLE}\n{loaded}"
    answer, ours = finish([sys.executable, "-c", code], ORT_DISABLE_TELEMETRY="1").stdout.splitlines()
    label, _, probability = answer.rpartition(" ")
    (expected,) = predict([tmp_path / "new.jpg"], BUNDLE, prompts["kernel"]).predictions
    assert label == expected.labels[0] and abs(float(probability) - expected.scores[0]) < 1e-5
    assert ours == "LOADED"


def test_the_file_says_what_it_is(prompts: dict[str, Path], tmp_path: Path) -> None:
    files = [tmp_path / "classifier.onnx", tmp_path / "again.onnx"]
    written = [write(file, prompts["ridge"]) for file in files]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert str(tmp_path).encode() not in files[0].read_bytes()
    model = onnx.load(files[0])
    onnx.checker.check_model(model)
    assert {each.domain for each in model.opset_import} == {""}
    about = {each.key: each.value for each in model.metadata_props}
    assert tuple(json.loads(about["labels"])) == written[0].labels
    how = json.loads(about["preprocessing"])
    assert how == written[0].preprocessing | {"size": [64, 64]} and how["resize_mode"] == "shortest"
    assert float(about["none_below"]) == written[0].none_below
    assert "licence of whoever trained them" in about["licence"]


@pytest.mark.parametrize(("weights", "smaller", "moved"), [("int8", 0.7, 0.02), ("int4", 0.6, 0.2)])
def test_rounded_weights(
    prompts: dict[str, Path], tmp_path: Path, weights: str, smaller: float, moved: float
) -> None:
    full = write(tmp_path / "full.onnx", prompts["kernel"])
    rounded = write(tmp_path / "rounded.onnx", prompts["kernel"], weights=weights)
    assert rounded.n_bytes < smaller * full.n_bytes
    assert rounded.parity["rounded_weights"] < 1e-4 < rounded.parity["rounding"] < moved
    expected, _ = predicted(prompts["kernel"], rounded.labels)
    found, _ = answers_of(tmp_path / "rounded.onnx")
    assert 0 < np.abs(found - expected).max() < 2 * moved


def test_a_bundle_of_links_gives_the_same_file(prompts: dict[str, Path], tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    for path in BUNDLE.iterdir():
        (linked / path.name).symlink_to(path)
    for bundle in (BUNDLE, linked):
        write(tmp_path / f"{bundle.name}.onnx", prompts["gda"], bundle)
    assert (tmp_path / "linked.onnx").read_bytes() == (tmp_path / f"{BUNDLE.name}.onnx").read_bytes()


# What goes wrong --------------------------------------------------------------------------------------


def test_a_file_that_answers_otherwise_is_not_written(
    prompts: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    normalised, answer = classifier_graph._normalised, classifier_graph._answer

    def darker(g: Graph, crops: str, how: Any) -> str:
        return g.op("Mul", normalised(g, crops, how), g.number(0.9))

    def headless(g: Graph, features: str, class_features: Any, logit_scale: float, head: Any) -> None:
        answer(g, features, class_features, logit_scale, None)

    for name, wrong, stage in (("_normalised", darker, "pictures"), ("_answer", headless, "answers")):
        for earlier in (None, write_classifier.MARK):
            output = tmp_path / f"{stage} {earlier}.onnx"
            if earlier:
                output.write_text(earlier)
            with monkeypatch.context() as patch:
                patch.setattr(classifier_graph, name, wrong)
                with pytest.raises(ParityError, match=rf"in {stage}, by .* Nothing was written"):
                    write(output, prompts["kernel"])
            assert (output.read_text() if output.exists() else None) == earlier
    assert len(list(tmp_path.iterdir())) == 2


def test_torch_need_not_be_importable(prompts: dict[str, Path], tmp_path: Path) -> None:
    output = tmp_path / "classifier.onnx"
    words = ["classifier", "--bundle", BUNDLE, "--prompt", prompts["gda"], "--output", output, "--json"]
    code = (
        "import sys\n"
        "sys.modules |= {'torch': None, 'open_clip': None}\n"
        f"sys.argv = ['sharpzo-edge', *{[str(word) for word in words]!r}]\n"
        "from sharpzo_edge.__main__ import main\n"
        "main()"
    )
    assert json.loads(finish([sys.executable, "-c", code]).stdout)["classifier"] == str(output)
    without_onnx = finish([sys.executable, "-c", code.replace("'torch'", "'onnx'")], code=2)
    assert "pip install '.[classifier]'" in without_onnx.stderr


def test_what_is_no_classifier_is_not_replaced(prompts: dict[str, Path], tmp_path: Path) -> None:
    prompt = prompts["gda"]
    for output, says in (
        (prompt, "exists, and is no classifier"),
        (tmp_path, "cannot be written (Is a directory)"),
        (tmp_path / "nowhere" / "classifier.onnx", "Cannot write"),
    ):
        before = prompt.read_bytes()
        done = run(
            *("classifier", "--bundle", BUNDLE, "--prompt", prompt, "--output", output),
            code=1 if "nowhere" in str(output) else 2,
        )
        assert says in done.stderr and prompt.read_bytes() == before
    assert list(tmp_path.iterdir()) == []


def test_a_tower_too_large_for_one_file(
    prompts: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_classifier, "LARGEST_BYTES", 1 << 20)
    with pytest.raises(UsageError, match=r"5 MiB of weights. One ONNX file holds 1 MiB at most"):
        write(tmp_path / "classifier.onnx", prompts["gda"])


@pytest.mark.parametrize("data", [b"\xff", b"", b"\x3a\x02\x12\x00"])
def test_a_graph_that_is_none(bundle_copy: BundleCopy, data: bytes) -> None:
    bundle_copy.replace("image.onnx", data)
    with pytest.raises(BundleError, match="cannot be read as a graph"):
        image_tower(bundle_copy.open())
