"""When a picture is none of the classes: the share that was asked for, strangers, and what a file keeps."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from sharpzo_edge import Classifier, predict, tune
from sharpzo_edge.demo import BUNDLE, TASKS
from sharpzo_edge.errors import InterruptedRunError, PromptFileError, UsageError
from sharpzo_edge.heads.fit import best_head, fitted_as
from sharpzo_edge.heads.leave_one_out import Pictures
from sharpzo_edge.run.files import canonical_json
from sharpzo_edge.tuning.answers import compare
from sharpzo_edge.tuning.known import MOST_SHARE, Known, are_none
from sharpzo_edge.tuning.strangers import caught_by_class_features, caught_by_head
from sharpzo_edge.tuning.tuned_prompt import METADATA_KEY, load_prompt
from sharpzo_edge.types import LabelledFeatures

TRAIN, TEST = TASKS / "subgroups" / "train", TASKS / "subgroups" / "test"
SOME = sorted(TEST.glob("*/*.png"))[::7]
K, E, SCALE = 4, 12, 20.0


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def pictures(each: int = 8, spread: float = 0.4) -> Pictures:
    rng = np.random.default_rng(1)
    centres, labels = rng.standard_normal((K, E)), np.repeat(np.arange(K), each)
    features = unit(centres[labels] + spread * rng.standard_normal((len(labels), E)))
    return Pictures(LabelledFeatures(features, labels), unit(centres), SCALE)


@given(
    tops=st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=2_500).map(np.array),
    share=st.floats(1e-4, MOST_SHARE),
)
def test_no_more_known_pictures_are_none_than_asked(tops: np.ndarray, share: float) -> None:
    known = Known.of(tops)
    threshold = known.threshold(share)
    assert are_none(tops[:, None], threshold).mean() <= share
    if threshold is None:
        assert share < 1 / len(tops) or share < 2e-3
    assert len(known.lowest) == Known.size(len(tops)) <= 500
    assert known.threshold(known.least_share) is not None


def test_a_new_picture_is_below_as_seldom_as_asked() -> None:
    """The chance over known pictures and a new one that are drawn alike: 19 of 20 are not below."""
    rng = np.random.default_rng(0)
    draws = [(rng.standard_normal(30), rng.standard_normal()) for _ in range(20_000)]
    below = np.mean([new < (Known.of(known).threshold(0.05) or -np.inf) for known, new in draws])
    assert 0.025 < below < 0.04  # 1 of 31


@pytest.mark.parametrize(("n", "share", "is_told"), [(18, 0.05, False), (19, 0.05, True), (9, 0.1, True)])
def test_too_few_known_pictures_tell_nothing(n: int, share: float, is_told: bool) -> None:
    found = Known.of(np.arange(n) / n).threshold(share)
    assert found == (0.0 if is_told else None)


def test_a_class_that_is_left_out_is_a_stranger() -> None:
    """By hand: a head of the other classes' pictures alone."""
    all_pictures = pictures()
    head = best_head(all_pictures)
    assert head and head.left_out
    threshold = float(np.sort(head.left_out.tops)[3])
    labels, caught = all_pictures.pictures.labels, []
    for k in range(K):
        X = all_pictures.pictures.features[:]
        others = LabelledFeatures(X[labels != k], labels[labels != k] - (labels[labels != k] > k))
        words = np.delete(all_pictures.class_features, k, axis=0)
        again = fitted_as(head.head, Pictures(others, words, SCALE))
        assert again
        logits = again.at(head.head.made_by["temperature"]).logits(X[labels == k], words, SCALE)
        caught.append((logits.max(axis=1) < threshold).mean())
    found = caught_by_head(head.head, all_pictures, threshold, lambda: None)
    assert found and found.classes == K and found.share > 0.5
    assert found.share == pytest.approx(np.mean(caught))


def test_words_without_a_class_have_its_pictures_as_strangers() -> None:
    found, X = pictures(), pictures().pictures.features[:]
    logits = SCALE * X @ found.class_features.T
    logits[np.arange(len(X)), found.pictures.labels] = -np.inf
    caught = caught_by_class_features(found, 0.5, 6.0)
    assert caught and caught.classes == K and caught.share == (0.5 * logits.max(axis=1) < 6.0).mean()


def test_without_pictures_left_out_nothing_is_none() -> None:
    shots = pictures().pictures
    found = compare("none", shots, len(shots), pictures().class_features, unit(np.ones((K, E))), SCALE)
    assert found.use == "prompt" and found.threshold is found.called_none is found.caught is None


@pytest.fixture(scope="module")
def prompt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("known") / "prompt.safetensors"
    result = tune(BUNDLE, TRAIN, path, preset="head", shots=8, val=0, threads=1)
    assert result.none and result.none.called_none is not None and result.none.called_none <= 0.05
    assert result.none.pictures == 80 and result.none.classes == 10 and result.none.strangers is not None
    return path


def test_predict_and_a_classifier_agree_on_none(prompt: Path) -> None:
    counts = []
    for share in (None, 0.05, 0.4):
        expected = predict(SOME, BUNDLE, prompt, none=share)
        with Classifier(BUNDLE, prompt, none=share) as classify:
            assert tuple(classify(SOME)) == expected.predictions
            assert classify.threshold == expected.threshold is not None
        counts.append(sum(each.none for each in expected.predictions))
    assert counts[0] == counts[1] < counts[2] < len(SOME)


@pytest.mark.parametrize("share", [0.0, -0.1, 0.6, float("nan")])
def test_a_share_out_of_range_is_refused(share: float, prompt: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--none .* out of range.*Try --none 0.05"):
        predict(SOME, BUNDLE, prompt, none=share)
    with pytest.raises(UsageError, match="out of range"):
        tune(BUNDLE, TRAIN, tmp_path / "p", preset="head", none=share)


def with_about(prompt: Path, target: Path, change: Any) -> Path:
    with safetensors.safe_open(prompt, "numpy") as file:
        about = json.loads(file.metadata()[METADATA_KEY])
    change(about)
    tensors = safetensors.numpy.load_file(prompt)
    safetensors.numpy.save_file(tensors, target, {METADATA_KEY: canonical_json(about).decode()})
    return target


def test_an_older_file_answers_as_it_did(prompt: Path, tmp_path: Path) -> None:
    def older(about: dict[str, Any]) -> None:
        for name in ("none", "known", "words_temperature"):
            del about[name]

    old, told = with_about(prompt, tmp_path / "old", older), []
    found = predict(SOME, BUNDLE, old, on_progress=told.append)
    assert found.threshold is None and not any(each.none for each in found.predictions)
    assert any("calls nothing none of the classes" in news.text for news in told)
    now = predict(SOME, BUNDLE, prompt)
    assert found.predictions == tuple(dataclasses.replace(each, none=False) for each in now.predictions)
    with pytest.raises(UsageError, match=r"--none 0.1 .*tune again"):
        predict(SOME, BUNDLE, old, none=0.1)


@pytest.mark.parametrize(
    "damage",
    [
        {"none": 0.0},
        {"none": True},
        {"known": []},
        {"known": {"all": {"pictures": 1, "lowest": [1.0]}}},
        {"known": {"head": {"pictures": 0, "lowest": []}}},
        {"known": {"head": {"pictures": 4, "lowest": [1.0]}}},
        {"known": {"head": {"pictures": 4, "lowest": [2.0, 1.0]}}},
        {"known": {"head": {"pictures": 4, "lowest": [1.0, True]}}},
        {"words_temperature": 0.0},
        {"words_temperature": 1e300},
    ],
    ids=str,
)
def test_damaged_thresholds_are_refused(damage: dict[str, Any], prompt: Path, tmp_path: Path) -> None:
    damaged = with_about(prompt, tmp_path / "p", lambda about: about.update(damage))
    with pytest.raises(PromptFileError, match="sharpzo-edge tune"):
        load_prompt(damaged)


def test_another_share_goes_on_with_the_same_run(prompt: Path, tmp_path: Path) -> None:
    told: list[Any] = []
    again = tune(
        BUNDLE, TRAIN, prompt, preset="head", shots=8, val=0, threads=1, none=0.2, on_progress=told.append
    )
    assert again.none and again.none.share == 0.05
    assert any("it keeps --none 0.05" in news.text for news in told)


def test_an_interrupted_run_goes_on_with_another_share(tmp_path: Path) -> None:
    """The share decides nothing else: all tensors are those of a run that was not interrupted."""
    given: dict[str, Any] = {"max_queries": 120, "preset": "demo", "threads": 1}
    tune(BUNDLE, TRAIN, tmp_path / "whole", none=0.05, **given)
    news: list[Any] = []
    with pytest.raises(InterruptedRunError):
        tune(
            *(BUNDLE, TRAIN, tmp_path / "stopped"),
            none=0.05,
            on_progress=news.append,
            stop=lambda: any(each.kind == "evaluation" and each.figures["queries"] > 20 for each in news),
            **given,
        )
    result = tune(BUNDLE, TRAIN, tmp_path / "stopped", none=0.2, **given)
    assert result.none and result.none.share == 0.2
    whole, stopped = (load_prompt(tmp_path / name) for name in ("whole", "stopped"))
    assert stopped.about == whole.about | {"none": 0.2}
    np.testing.assert_array_equal(stopped.context, whole.context)
    np.testing.assert_array_equal(stopped.class_features, whole.class_features)
