"""The closed-form head: its formula, its weight, its place in the prompt file, what it cannot do."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import safetensors.numpy

from sharpzo_edge.errors import PromptFileError, UsageError
from sharpzo_edge.search import losses
from sharpzo_edge.search.losses import cross_entropies, logits_of
from sharpzo_edge.tuning.heads import WEIGHTS, Head, blended_logits, gda, with_best_weight
from sharpzo_edge.tuning.tuned_prompt import (
    FORMAT_VERSION,
    HEAD_FORMAT_VERSION,
    TunedPrompt,
    load_prompt,
    save_prompt,
)
from sharpzo_edge.types import LabelledFeatures

K, E = 4, 12


def pictures(n: int, seed: int) -> LabelledFeatures:
    """Of classes that lie apart, more pictures of the later ones."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((K, E))
    labels = np.concatenate((np.arange(K), rng.choice(K, n - K, p=[0.1, 0.2, 0.3, 0.4])))
    features = centres[labels] + 0.7 * rng.standard_normal((n, E))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return LabelledFeatures(features.astype(np.float32), labels)


def class_features(seed: int) -> np.ndarray:
    T = np.random.default_rng(seed).standard_normal((K, E)).astype(np.float32)
    return T / np.linalg.norm(T, axis=1, keepdims=True)


def test_gda_is_the_formula_written_out() -> None:
    shots = pictures(600, 1)  # more than a block
    X, y = np.asarray(shots.features, np.float64), shots.labels
    means = np.array([X[y == k].mean(axis=0) for k in range(K)])
    centred = X - means[y]
    covariance = np.cov(centred.T)
    precision = E * np.linalg.inv((len(X) - 1) * covariance + np.trace(covariance) * np.eye(E))
    head = gda(shots, K)
    assert np.allclose(head.weights, means @ precision, rtol=1e-5)
    assert np.allclose(head.bias, [-m @ precision @ m / 2 for m in means], rtol=1e-5)


def test_gda_works_with_fewer_pictures_than_dimensions() -> None:
    """Its numbers are finite, and it tells classes apart."""
    head, test = gda(pictures(8, 1), K), pictures(300, 2)
    scores = test.features[:] @ head.weights.T + head.bias
    assert (scores.argmax(axis=1) == test.labels).mean() > 0.6


def test_one_picture_a_class_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--head gda has 4 pictures, and no two .*--shots"):
        gda(pictures(K, 1), K)


def test_copies_of_one_picture_are_refused() -> None:
    """Though a tower rounds their features differently."""
    one = pictures(K, 1)
    rng = np.random.default_rng(2)
    features = np.tile(one.features[:], (30, 1)) + 1e-7 * rng.standard_normal((30 * K, E))
    copies = LabelledFeatures(features.astype(np.float32), np.tile(one.labels, 30))
    with pytest.raises(UsageError, match="no two of one class differ"):
        gda(copies, K)


def test_a_weight_of_0_is_the_prompt_alone_bit_for_bit() -> None:
    head, T = gda(pictures(40, 1), K), class_features(3)
    X = pictures(30, 2).features[:]
    alone = logits_of(X, T, 20.0)
    for none in (None, dataclasses.replace(head, weight=0.0)):
        assert np.array_equal(blended_logits(X, T, 20.0, none), alone)
    blend = blended_logits(X, T, 20.0, dataclasses.replace(head, weight=0.5))
    assert np.allclose(blend, alone + 0.5 * (X @ head.weights.T + head.bias), atol=1e-4)


def test_the_weight_never_makes_validation_worse(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of weights that are equally good the smallest is taken."""
    monkeypatch.setattr(losses, "SCORING_BYTES", 1000)  # more than a block
    head, validation = gda(pictures(40, 1), K), pictures(25, 5)

    def right(T: np.ndarray, weight: float) -> int:
        logits = blended_logits(validation.features[:], T, 20.0, dataclasses.replace(head, weight=weight))
        return int((logits.argmax(axis=1) == validation.labels).sum())

    for seed in range(8):
        T = class_features(seed)
        chosen, score = with_best_weight(head, T, validation, 20.0)
        logits = blended_logits(validation.features[:], T, 20.0, chosen)
        assert score.loss == pytest.approx(cross_entropies(logits, validation.labels).mean())
        assert score.accuracy == right(T, chosen.weight) / len(validation)
        assert right(T, chosen.weight) == max(right(T, weight) for weight in WEIGHTS)
    useless = Head(np.zeros((K, E), np.float32), np.zeros(K, np.float32), 1.0)
    assert with_best_weight(useless, class_features(0), validation, 20.0)[0].weight == 0.0


@pytest.fixture
def prompt() -> TunedPrompt:
    head = dataclasses.replace(gda(pictures(40, 1), K), weight=0.3)
    about = {
        "format_version": HEAD_FORMAT_VERSION,
        "class_names": list("abcd"),
        "class_folders": list("abcd"),
        "model": "m",
        "bundle": "b",
        "seed": 0,
        "settings": {},
        "queries": 1,
        "train_loss": 0.5,
        "head": {"kind": "gda", "weight": 0.3},
    }
    return TunedPrompt(np.ones((2, 3), np.float32), class_features(0), about, head)


def test_a_head_survives_its_file(prompt: TunedPrompt, tmp_path) -> None:
    save_prompt(tmp_path / "p", prompt)
    again = load_prompt(tmp_path / "p")
    assert again.head and prompt.head and again.head.weight == prompt.head.weight
    assert again.head.weights.tobytes() == prompt.head.weights.tobytes()
    assert again.head.bias.tobytes() == prompt.head.bias.tobytes()


@pytest.mark.parametrize(
    ("damage", "about"),
    [
        ({"head_weights": None}, {}),
        ({"head_bias": None}, {}),
        ({"head_weights": None, "head_bias": None}, {}),
        ({}, {"format_version": FORMAT_VERSION}),
        ({"head_weights": lambda a: a[:, :-1]}, {}),
        ({"head_weights": lambda a: a.astype(np.float64)}, {}),
        ({"head_weights": lambda a: np.where(a == a[1, 1], np.nan, a).astype(np.float32)}, {}),
        ({"head_bias": lambda a: a[:-1]}, {}),
        ({"head_bias": lambda a: a[:, None]}, {}),
        ({"head_bias": lambda a: a + np.float32(np.inf)}, {}),
        ({}, {"head": None}),
        ({}, {"head": {"kind": "linear", "weight": 0.3}}),
        ({}, {"head": {"kind": "gda"}}),
        ({}, {"head": {"kind": "gda", "weight": -0.1}}),
        ({}, {"head": {"kind": "gda", "weight": 1e9}}),
        ({}, {"head": {"kind": "gda", "weight": True}}),
    ],
    ids=str,
)
def test_damaged_heads_are_refused(damage: dict, about: dict, prompt: TunedPrompt, tmp_path) -> None:
    save_prompt(tmp_path / "p", dataclasses.replace(prompt, about=prompt.about | about))
    tensors = safetensors.numpy.load_file(tmp_path / "p")
    with safetensors.safe_open(tmp_path / "p", "numpy") as file:
        metadata = file.metadata()
    changed = {
        name: damage[name](array) if damage.get(name) else array
        for name, array in tensors.items()
        if damage.get(name, "kept") is not None
    }
    safetensors.numpy.save_file(changed, tmp_path / "p", metadata)
    with pytest.raises(PromptFileError, match="sharpzo-edge tune"):
        load_prompt(tmp_path / "p")
