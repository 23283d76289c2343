"""The four ways to label: what each is judged on, which is used, and their place in the prompt file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from sharpzo_edge.errors import PromptFileError, UsageError
from sharpzo_edge.heads.head import Head
from sharpzo_edge.search.losses import logits_of
from sharpzo_edge.tuning.answers import USES, Answers, compare
from sharpzo_edge.tuning.tuned_prompt import (
    FORMAT_VERSION,
    HEADS_FORMAT_VERSION,
    METADATA_KEY,
    OLD_HEAD_FORMAT_VERSION,
    TunedPrompt,
    checked_use,
    load_prompt,
    save_prompt,
)
from sharpzo_edge.types import Floats, LabelledFeatures, joined

K, E, SCALE = 4, 12, 20.0
CENTRES = np.random.default_rng(0).standard_normal((K, E))


def unit(rows: np.ndarray) -> Floats:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def pictures(counts: tuple[int, ...], seed: int, spread: float = 0.7) -> LabelledFeatures:
    labels = np.repeat(np.arange(len(counts)), counts)
    noise = np.random.default_rng(seed).standard_normal((len(labels), E))
    return LabelledFeatures(unit(CENTRES[labels] + spread * noise), labels)


GOOD, BAD = unit(CENTRES), unit(-CENTRES)
SHOTS, VALIDATION = pictures((6, 6, 6, 6), 1), pictures((3, 3, 0, 2), 2)


def compared(words: Floats = BAD, prompt: Floats | None = GOOD, kind: str = "auto", **given: Any) -> Answers:
    shots, validation = given.get("shots", SHOTS), given.get("validation", VALIDATION)
    return compare(kind, joined(shots, validation), len(shots), words, prompt, SCALE)


def test_the_prompt_is_judged_on_validation_pictures_alone() -> None:
    found = compared()
    logits = logits_of(VALIDATION.features[:], GOOD, SCALE)
    right = logits.argmax(axis=1) == VALIDATION.labels
    alike = np.mean([right[k == VALIDATION.labels].mean() for k in (0, 1, 3)])
    assert found.left_out.prompt == found.validated.prompt == pytest.approx(alike)
    assert found.covered.prompt == found.covered.both == 0.75 and found.covered.head == 1.0


def test_without_validation_pictures_the_prompt_is_not_measured() -> None:
    found = compared(validation=pictures((0, 0, 0, 0), 2))
    assert found.left_out.prompt is found.left_out.both is found.validated.head is None
    assert found.left_out.head is not None and found.use == "head"


@pytest.mark.parametrize("kind", ("auto", "kernel", "ridge", "gda"))
def test_the_words_are_used_where_the_head_is_worse(kind: str) -> None:
    """Pictures that have nothing in common but their words, which are unsure of themselves, and right."""
    features = unit(np.random.default_rng(8).standard_normal((2 * K, E)))
    few = LabelledFeatures(features, np.repeat(np.arange(K), 2))
    words = unit(features[::2] + features[1::2])  # of each class, in the middle of its two pictures
    found = compare(kind, few, len(few), words, None, 1.0)
    assert found.left_out.words == 1.0 and found.left_out.head is not None
    assert found.left_out.head < 1.0 and found.use == "words"


def test_one_picture_a_class_has_a_head_that_is_not_measured() -> None:
    found = compared(shots=pictures((1, 1, 1, 1), 1), validation=pictures((0,) * K, 2))
    assert found.head is not None and found.head.head.kind == "kernel"
    assert found.left_out.head is found.covered.head is found.by_halves is None and not found.doubtful


def test_no_head_leaves_the_prompt() -> None:
    found = compared(kind="none")
    assert found.use == "prompt" and found.head is found.both is None


def test_equal_pictures_leave_the_prompt() -> None:
    same = LabelledFeatures(np.repeat(GOOD[:1], 8, axis=0), np.repeat(np.arange(K), 2))
    found = compared(shots=same, validation=pictures((0,) * K, 2))
    assert found.head is None and found.use == "prompt"


def test_a_wrong_label_is_found() -> None:
    clear = pictures((6, 6, 6, 6), 1, spread=0.3)
    labels = clear.labels.copy()
    labels[2] = 3
    shots, nothing = LabelledFeatures(clear.features, labels), pictures((0,) * K, 2)
    found = compared(words=GOOD, shots=shots, validation=nothing)
    assert (found.doubtful[0].number, found.doubtful[0].label, found.doubtful[0].answer) == (2, 3, 0)


@pytest.fixture
def prompt() -> TunedPrompt:
    found = compared(kind="kernel")
    assert found.head and found.both
    about = {
        "format_version": HEADS_FORMAT_VERSION,
        "class_names": list("abcd"),
        "class_folders": list("abcd"),
        "model": "m",
        "bundle": "b",
        "seed": 0,
        "settings": {},
        "queries": 1,
        "train_loss": 0.5,
        "use": "head",
        "left_out": {},
        "heads": {
            use: {"kind": each.head.kind, **each.head.made_by}
            for use, each in (("head", found.head), ("both", found.both))
        },
    }
    context = np.ones((2, 3), np.float32)
    return TunedPrompt(context, GOOD, about, BAD, found.head.head, found.both.head)


def test_every_way_survives_its_file(prompt: TunedPrompt, tmp_path: Path) -> None:
    save_prompt(tmp_path / "p", prompt)
    again = load_prompt(tmp_path / "p")
    assert again.uses == USES and again.use == "head"
    X = VALIDATION.features[:]
    for use in USES:
        np.testing.assert_array_equal(again.logits(X, SCALE, use), prompt.logits(X, SCALE, use))


def test_a_file_of_version_1_answers_by_its_prompt(prompt: TunedPrompt, tmp_path: Path) -> None:
    about = {k: v for k, v in prompt.about.items() if k not in ("use", "left_out", "heads")}
    old = TunedPrompt(prompt.context, GOOD, about | {"format_version": FORMAT_VERSION})
    save_prompt(tmp_path / "p", old)
    again = load_prompt(tmp_path / "p")
    assert again.uses == ("prompt",) and again.use == "prompt"
    X = VALIDATION.features[:]
    np.testing.assert_allclose(again.logits(X, SCALE, "prompt"), logits_of(X, GOOD, SCALE), atol=1e-5)
    with pytest.raises(UsageError, match=r"--use head is not in .* made without a head.*has: prompt"):
        checked_use("head", again, tmp_path / "p")


def test_a_file_of_version_2_answers_by_prompt_and_head(prompt: TunedPrompt, tmp_path: Path) -> None:
    """As sharpzo-edge 0.1 wrote it: the head's logits, times a weight, are added to the prompt's."""
    W, b = np.random.default_rng(3).standard_normal((K, E)).astype(np.float32), np.ones(K, np.float32)
    about = {k: v for k, v in prompt.about.items() if k not in ("use", "left_out", "heads")}
    about |= {"format_version": OLD_HEAD_FORMAT_VERSION, "head": {"kind": "gda", "weight": 0.3}}
    tensors = {"context": prompt.context, "class_features": GOOD, "head_weights": W, "head_bias": b}
    safetensors.numpy.save_file(tensors, tmp_path / "p", {METADATA_KEY: json.dumps(about)})
    again = load_prompt(tmp_path / "p")
    assert again.uses == ("prompt", "both") and again.use == "both"
    X = VALIDATION.features[:]
    expected = logits_of(X, GOOD, SCALE) + np.float32(0.3) * (X @ W.T + b)
    np.testing.assert_allclose(again.logits(X, SCALE, "both"), expected, rtol=1e-5, atol=1e-5)


def test_a_head_alone_has_no_prompt(prompt: TunedPrompt, tmp_path: Path) -> None:
    about = prompt.about | {"heads": {"head": prompt.about["heads"]["head"]}}
    save_prompt(tmp_path / "p", TunedPrompt(prompt.context, BAD, about, BAD, prompt.head))
    again = load_prompt(tmp_path / "p")
    assert again.uses == ("words", "head")
    for use in ("prompt", "both"):
        with pytest.raises(UsageError, match="nothing was tuned"):
            checked_use(use, again, tmp_path / "p")


def changed(prompt: TunedPrompt, use: str, **numbers: Any) -> dict[str, Any]:
    heads = prompt.about["heads"]
    return {"heads": heads | {use: heads[use] | numbers}}


@pytest.mark.parametrize(
    ("damage", "about"),
    [
        ({"head_weights": None}, {}),
        ({"head_bias": None}, {}),
        ({"words_features": None}, {}),
        ({"both_weights": None, "both_bias": None}, {}),
        ({}, {"format_version": FORMAT_VERSION}),
        ({}, {"format_version": OLD_HEAD_FORMAT_VERSION}),
        ({"head_weights": lambda a: a[:, :-1]}, {}),
        ({"both_weights": lambda a: a.astype(np.float64)}, {}),
        ({"head_weights": lambda a: np.where(a == a[1, 1], np.nan, a).astype(np.float32)}, {}),
        ({"head_bias": lambda a: a[:-1]}, {}),
        ({"both_bias": lambda a: a[:, None]}, {}),
        ({"head_bias": lambda a: a + np.float32(np.inf)}, {}),
        ({"words_features": lambda a: 2 * a}, {}),
        ({"head_pictures": None}, {}),
        ({"head_pictures": lambda a: a[:-1]}, {}),
        ({"head_pictures": lambda a: a[:, :-1]}, {}),
        ({}, {"heads": None}),
        ({}, {"heads": {}}),
        ({}, {"use": None}),
        ({}, {"use": "all"}),
        ({}, {"heads": {"head": {"kind": "linear"}}}),
        ({}, "head kind"),
        ({}, "head negative"),
        ({}, "both true"),
    ],
    ids=str,
)
def test_damaged_heads_are_refused(damage: dict, about: Any, prompt: TunedPrompt, tmp_path: Path) -> None:
    named = {
        "head kind": changed(prompt, "head", kind="svm"),
        "head negative": changed(prompt, "head", temperature=-0.1),
        "both true": changed(prompt, "both", temperature=True),
    }
    about = named[about] if isinstance(about, str) else about
    save_prompt(tmp_path / "p", dataclasses.replace(prompt, about=prompt.about | about))
    tensors = safetensors.numpy.load_file(tmp_path / "p")
    with safetensors.safe_open(tmp_path / "p", "numpy") as file:
        metadata = file.metadata()
    kept = {
        name: damage[name](array) if damage.get(name) else array
        for name, array in tensors.items()
        if damage.get(name, "kept") is not None
    }
    safetensors.numpy.save_file(kept, tmp_path / "p", metadata)
    with pytest.raises(PromptFileError, match="sharpzo-edge tune"):
        load_prompt(tmp_path / "p")


def test_a_head_adds_what_it_says() -> None:
    head = Head("ridge", 0.5, np.ones((K, E), np.float32), np.arange(K, dtype=np.float32), {"base": 0.5})
    X = VALIDATION.features[:]
    expected = 0.5 * SCALE * X @ GOOD.T + X.sum(axis=1, keepdims=True) + np.arange(K)
    np.testing.assert_allclose(head.logits(X, GOOD, SCALE), expected, atol=1e-4)
    np.testing.assert_allclose(head.at(2.0).logits(X, GOOD, SCALE), 2 * expected, atol=1e-4)
    assert head.weight == head.at(2.0).weight == 2.0
