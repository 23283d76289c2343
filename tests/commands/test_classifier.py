"""`Classifier`: what predict says, for whatever a program has as a picture, with all opened once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sharpzo_edge import Classifier, ImagesError, UsageError, predict, tune
from sharpzo_edge.demo import BUNDLE, TASKS

PICTURES = sorted((TASKS / "subgroups" / "test").glob("*/*.png"))[::9]


@pytest.fixture(scope="module")
def prompt(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("classifier") / "prompt.safetensors"
    tune(BUNDLE, TASKS / "subgroups" / "train", path, preset="head", shots=4, val=0)
    return path


@pytest.mark.parametrize("use", ["words", "head"])
def test_every_batch_has_predicts_bits(prompt, use):
    """With one thread: on aarch64, onnxruntime shares out the convolutions of a picture that is alone."""
    expected = predict(PICTURES, BUNDLE, prompt, use=use, top=10, threads=1).predictions
    assert predict(str(PICTURES[0]), BUNDLE, prompt).predictions[0].image == expected[0].image  # one path
    with Classifier(BUNDLE, prompt, use=use, threads=1) as classify:
        assert tuple(classify(PICTURES, top=10)) == expected
        for size in (1, 3, 8):
            batches = [PICTURES[i : i + size] for i in range(0, len(PICTURES), size)]
            assert tuple(answer for batch in batches for answer in classify(batch, top=10)) == expected
        assert classify([]) == [] and len(classify.labels) == 10


def test_a_path_an_image_and_an_array_are_one_picture(prompt):
    with Classifier(BUNDLE, prompt, threads=1) as classify:
        together = classify(PICTURES, top=10)
        for path, whole in zip(PICTURES[:4], together, strict=False):
            with Image.open(path) as image:
                rgb = np.asarray(image.convert("RGB"))
                answers = [classify(str(path), top=10), classify(image, top=10), classify(rgb, top=10)]
            answers.append(classify(path.read_bytes(), top=10))
            assert [answer.image for answer in answers] == [str(path), "", "", ""]
            for answer in answers:
                assert (answer.labels, answer.scores) == (whole.labels, whole.scores)


def test_threads_get_the_answers_of_one(prompt):
    with Classifier(BUNDLE, prompt) as classify, ThreadPoolExecutor(4) as pool:
        assert list(pool.map(classify, PICTURES)) == [classify(path) for path in PICTURES]


@pytest.mark.parametrize(
    "picture", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3)), np.zeros((0, 8, 3), np.uint8)]
)
def test_an_array_of_another_kind_is_refused(prompt, picture):
    with (
        Classifier(BUNDLE, prompt) as classify,
        pytest.raises(ImagesError, match=r"not \(H, W, 3\) of uint8"),
    ):
        classify(picture)


def test_what_is_no_picture_is_refused_with_what_is(prompt, tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    with Classifier(BUNDLE, prompt) as classify:
        with pytest.raises(ImagesError, match=r"notes.txt cannot be used: not a picture"):
            classify([PICTURES[0], tmp_path / "notes.txt"])
        with pytest.raises(UsageError, match="A int is no picture"):
            classify(3)
        with pytest.raises(UsageError, match="--top -1 is too small"):
            classify(PICTURES[0], top=-1)
        assert classify(PICTURES[0]).labels  # it is none the worse
    with pytest.raises(ValueError, match="closed"):
        classify(PICTURES[0])
