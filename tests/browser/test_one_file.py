"""The page of docs/one-file: in a browser, with onnxruntime-web, the file answers as predict does."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("playwright.sync_api", reason="the group [browser] is not installed")

from sharpzo_edge import predict, tune
from sharpzo_edge.clip.bundle import Bundle
from sharpzo_edge.clip.preprocess import read_crop
from sharpzo_edge.clip.quiet_onnxruntime import ort
from sharpzo_edge.demo import BUNDLE, TASKS
from support.processes import ROOT, run

from .conftest import WAIT

SITE = ROOT / "docs" / "one-file"
WEB = ROOT / "build" / "npm" / "node_modules" / "onnxruntime-web" / "dist"
SHAPES = ((64, 64), (203, 131), (131, 257), (40, 51), (1280, 960))
ASK = """async () => {
    const ort = await import("./ort.wasm.min.mjs");
    const { openClassifier } = await import("./classifier.js");
    const about = await (await fetch("classifier.json")).json();
    const classify = await openClassifier(ort, "classifier.onnx", about);
    return await Promise.all([...document.querySelector("input").files].map(classify));
}"""


@pytest.fixture(scope="module")
def prompt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prompt") / "prompt.safetensors"
    tune(BUNDLE, TASKS / "subgroups" / "train", path, preset="head", head="kernel", shots=8, val=0)
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Some of the demo, in several shapes, and a picture of noise."""
    folder = tmp_path_factory.mktemp("pictures")
    noise = np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    found = sorted((TASKS / "subgroups" / "test").glob("*/*.png"))[:: 156 // len(SHAPES)]
    for source, shape in zip(found, SHAPES, strict=False):
        with Image.open(source) as picture:
            picture.resize(shape, Image.Resampling.BICUBIC).save(folder / f"{source.stem}.png")
    return sorted(folder.iterdir())


def opened(browser: Any, site: Path) -> tuple[Any, list[str]]:
    """The page, with files of `site`, docs/one-file and onnxruntime-web; and what its console says."""

    def serve(route: Any) -> None:
        name = route.request.url.rpartition("/")[2]
        there = [folder / name for folder in (site, SITE, WEB) if (folder / name).is_file()]
        route.fulfill(path=there[0]) if there else route.fulfill(status=404)

    page, said = browser.new_page(), []
    page.set_default_timeout(WAIT)
    page.on("console", lambda each: said.append(each.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.route("**/*", serve)
    page.goto("http://one.file/index.html")
    page.wait_for_selector("body[data-ready]")
    return page, said


@pytest.mark.parametrize("weights", ["fp32", "int8"])
def test_a_browser_answers_as_predict(
    browser: Any, prompt: Path, pictures: list[Path], tmp_path: Path, weights: str
) -> None:
    """With rounded weights, as onnxruntime does in Python."""
    if not WEB.exists():
        pytest.skip("onnxruntime-web is not installed: make test-page installs it")
    site = tmp_path / "site"
    site.mkdir()
    file = site / "classifier.onnx"
    words = ("--bundle", BUNDLE, "--prompt", prompt, "--output", file, "--weights", weights)
    (site / "classifier.json").write_text(run("classifier", *words, "--json").stdout)
    if weights == "fp32":
        answers = predict(pictures, BUNDLE, prompt, top=10).predictions
        expected = [dict(zip(answer.labels, answer.scores, strict=True)) for answer in answers]
        none = [answer.none for answer in answers]
    else:
        how = Bundle.open(BUNDLE).manifest.preprocess
        crops = np.stack([read_crop(picture, how, math.inf) for picture in pictures])
        scores, largest = ort.InferenceSession(file).run(None, {"pixels": crops})
        about = json.loads((site / "classifier.json").read_text())
        expected = [dict(zip(about["labels"], map(float, row), strict=True)) for row in scores]
        none = [each < about["none_below"] for each in largest]

    page, said = opened(browser, site)
    page.locator("input").evaluate("input => { input.multiple = true; }")
    page.locator("input").set_input_files(pictures)
    page.wait_for_selector("li")
    found = page.evaluate(ASK)
    for given, right, is_none in zip(found, expected, none, strict=True):
        assert given["answers"][0]["label"] == max(right, key=lambda label: right[label])
        scores = {each["label"]: each["probability"] for each in given["answers"]}
        assert scores == pytest.approx(right, rel=0, abs=1e-4) and given["none"] == is_none
    best = found[0]["answers"][0]
    assert page.locator("li").first.inner_text() == f"{best['label']}: {100 * best['probability']:.1f} %"
    assert said == []
    page.close()
