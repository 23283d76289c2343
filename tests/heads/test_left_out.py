"""Closed-form left-out answers are those of heads that are fitted again without the picture."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sharpzo_edge.heads.fit import best_head
from sharpzo_edge.heads.gaussian import Gaussian
from sharpzo_edge.heads.halves import accuracy_by_halves
from sharpzo_edge.heads.kernel import Kernel
from sharpzo_edge.heads.leave_one_out import Pictures, choose
from sharpzo_edge.heads.ridge import Ridge, standardised
from sharpzo_edge.search.losses import logits_of
from sharpzo_edge.types import Floats, LabelledFeatures

K, E, SCALE = 4, 12, 10.0
LABELS = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 3])
ALL = np.ones(len(LABELS), bool)


def unit(rows: np.ndarray) -> Floats:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


X = unit(np.random.default_rng(0).normal(size=(len(LABELS), E)))
T = unit(np.random.default_rng(1).normal(size=(K, E)))
WORDS = logits_of(X, T, SCALE)


def pictures(kept: np.ndarray = ALL) -> Pictures:
    return Pictures(LabelledFeatures(X[kept], LABELS[kept]), T, SCALE)


def without(n: int) -> np.ndarray:
    return np.arange(len(LABELS)) != n


@pytest.mark.parametrize("shrinkage", (0.1, 1.0, 3.0))
def test_gda_left_out_equals_a_fit_without_the_picture(shrinkage: float) -> None:
    fitted = Gaussian.of(pictures())
    assert fitted is not None
    for option, found in enumerate(fitted.at(shrinkage).left_out(slice(None), X, LABELS, WORDS)):
        for n in np.flatnonzero(LABELS < 3):  # class 3 has one picture: without it, it is unknown
            again = Gaussian.of(pictures(without(n)))
            assert again is not None
            head = dataclasses.replace(again, unit=fitted.unit).at(shrinkage).head(option)
            np.testing.assert_allclose(head.logits(X[n : n + 1], T, SCALE)[0], found[n], rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("penalty", (0.5, 8.0))
def test_ridge_left_out_equals_a_fit_without_the_picture(penalty: float) -> None:
    fitted = Ridge.of(pictures())
    assert fitted is not None
    for option, found in enumerate(fitted.at(penalty).left_out(slice(None), X, LABELS, WORDS)):
        for n in range(len(LABELS)):
            kept = without(n)
            phi = standardised(X[kept], fitted.centre, fitted.spread)
            values, vectors = np.linalg.eigh(phi.T @ phi)
            again = dataclasses.replace(
                fitted,
                values=values,
                vectors=vectors,
                targets=vectors.T @ phi.T @ np.eye(K)[LABELS[kept]],
                words=vectors.T @ phi.T @ WORDS[kept],
            )
            head = again.at(penalty).head(option)
            np.testing.assert_allclose(head.logits(X[n : n + 1], T, SCALE)[0], found[n], atol=2e-5)


@pytest.mark.parametrize("penalty", (0.5, 2.0))
def test_kernel_left_out_equals_a_fit_without_the_picture(penalty: float) -> None:
    fitted = Kernel.of(pictures())
    assert fitted is not None
    group = fitted.at(penalty)
    alike = np.exp(-fitted.scale * (1 - X.astype(np.float64) @ X.T.astype(np.float64)))
    for option, found in enumerate(group.left_out(slice(None), X, LABELS, WORDS)):
        base = group.bases[option]
        rest = np.eye(K)[LABELS] - base * WORDS
        for n in range(len(LABELS)):
            kept = without(n)
            inner = alike[np.ix_(kept, kept)] + penalty * K / len(LABELS) * np.eye(kept.sum())
            answer = base * WORDS[n] + alike[n, kept] @ np.linalg.solve(inner, rest[kept])
            np.testing.assert_allclose(found[n], answer, rtol=1e-6, atol=1e-9)
        inner = alike + penalty * K / len(LABELS) * np.eye(len(LABELS))
        answers = base * WORDS + alike @ np.linalg.solve(inner, rest)
        np.testing.assert_allclose(group.head(option).logits(X, T, SCALE), answers, atol=1e-4)


def test_left_out_answers_do_not_depend_on_the_blocks() -> None:
    for fitted in (Kernel.of(pictures()), Ridge.of(pictures()), Gaussian.of(pictures())):
        assert fitted is not None
        group = next(iter(fitted.groups()))
        (whole, *_) = group.left_out(slice(None), X, LABELS, WORDS)
        for start in (0, 3, 6):
            rows = slice(start, start + 3)
            (part, *_) = group.left_out(rows, X[rows], LABELS[rows], WORDS[rows])
            np.testing.assert_allclose(part, whole[rows], atol=1e-9)


def test_with_very_many_pictures_the_head_is_linear() -> None:
    n = 3_000
    labels = np.arange(n) % K
    many = LabelledFeatures(unit(np.random.default_rng(4).normal(size=(n, E))), labels)
    assert Kernel.of(Pictures(many, T, SCALE)) is None
    for kind in ("auto", "kernel"):
        found = best_head(Pictures(many, T, SCALE), kind)
        assert found is not None and found.head.kind in ("ridge", "gda")


def test_the_choice_is_by_accuracy_over_classes_alike() -> None:
    """The accuracy of the chosen head is that of heads fitted without each picture, class by class."""
    found = best_head(pictures(), "gda")
    assert found is not None
    fitted = Gaussian.of(pictures())
    assert fitted is not None
    best = 0.0
    for group in fitted.groups():
        for logits in group.left_out(slice(None), X, LABELS, WORDS):
            right = logits.argmax(axis=1) == LABELS
            best = max(best, float(np.mean([right[k == LABELS].mean() for k in range(3)])))
    assert found.accuracy == pytest.approx(best)


def test_margins_say_which_pictures_were_right() -> None:
    fitted = Ridge.of(pictures())
    assert fitted is not None
    group = fitted.at(1.0, (0.5,))
    found = choose(pictures(), [group])
    assert found is not None and found.left_out is not None
    (logits,) = group.left_out(slice(None), X, LABELS, WORDS)
    np.testing.assert_array_equal(found.left_out.answers, logits.argmax(axis=1))
    np.testing.assert_array_equal(found.left_out.margins > 0, found.left_out.answers == LABELS)


def test_with_one_picture_a_class_numbers_are_fixed() -> None:
    one = np.isin(np.arange(len(LABELS)), [0, 3, 5, 9])
    found = best_head(pictures(one))
    assert found is not None and found.accuracy is None
    assert found.head.kind == "kernel"


def test_equal_pictures_give_no_head() -> None:
    same = LabelledFeatures(np.repeat(X[:1], 4, axis=0), np.array([0, 0, 1, 1]))
    assert best_head(Pictures(same, T[:2], SCALE)) is None


def test_the_two_halves_label_each_other() -> None:
    """By hand: each half's own fit, of the same kind and numbers, on the pictures of the other."""
    found = best_head(pictures(), "ridge")
    assert found is not None
    place = np.array([0, 1, 2, 0, 1, 0, 1, 2, 3, 0])
    right = np.zeros(len(LABELS), bool)
    for half in (0, 1):
        is_in = (place % 2 == half) | (LABELS == 3)
        fitted = Ridge.of(pictures(is_in))
        assert fitted is not None
        numbers = found.head.made_by
        head = fitted.at(numbers["penalty"], (numbers["base"],)).head(0)
        right[~is_in] = head.logits(X[~is_in], T, SCALE).argmax(axis=1) == LABELS[~is_in]
    expected = np.mean([right[k == LABELS].mean() for k in range(3)])
    assert accuracy_by_halves(found.head, pictures()) == pytest.approx(expected)


@pytest.mark.parametrize("kind", ("auto", "kernel", "ridge", "gda"))
def test_more_dimensions_than_pictures(kind: str) -> None:
    rng = np.random.default_rng(2)
    labels = np.repeat(np.arange(40), 2)
    features = unit(rng.normal(size=(40, 200))[labels] + 0.3 * rng.normal(size=(80, 200)))
    words = unit(rng.normal(size=(40, 200)))
    found = best_head(Pictures(LabelledFeatures(features, labels), words, SCALE), kind)
    assert found is not None and found.accuracy is not None and found.accuracy > 0.9
    assert np.isfinite(found.head.weights).all() and np.isfinite(found.head.bias).all()


def test_the_choice_asks_before_each_group_of_candidates() -> None:
    """So that a long fit can be stopped."""

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        best_head(pictures(), before_each=stop)
