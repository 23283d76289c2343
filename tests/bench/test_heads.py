"""The closed-form heads of the accuracy bench: their formulas by hand, and what they are fitted to."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from accuracy.methods import gda, heads, proker
from accuracy.methods.all_methods import METHODS
from accuracy.methods.method import Logits, Problem
from sharpzo_edge.clip.bundle import Bundle
from sharpzo_edge.errors import UsageError
from sharpzo_edge.types import Doubles, Floats, LabelledFeatures
from support.noisy_problem import NAMES, noisy_problem

CLOSED_FORM = ("gda", "tip_adapter", "proker", "ss_text")


@pytest.fixture(scope="module")
def problem(bundle: Bundle) -> Iterator[Problem]:
    """Five shots of each class, two to validate on."""
    with noisy_problem(bundle, 0.1, 5, 2) as made:
        yield made


def some(pictures: LabelledFeatures, kept: NDArray[np.int64]) -> LabelledFeatures:
    return LabelledFeatures(pictures.features[:][kept], pictures.labels[kept])


def one_a_class(pictures: LabelledFeatures) -> LabelledFeatures:
    return some(pictures, np.unique(pictures.labels, return_index=True)[1])


def none(pictures: LabelledFeatures) -> LabelledFeatures:
    return some(pictures, np.arange(0))


def answers(problem: Problem, name: str) -> Logits:
    (moment,) = METHODS[name].run(problem, 1, METHODS[name].grid[0])
    return moment.logits


def words(problem: Problem, features: Floats) -> Floats:
    (moment,) = METHODS["zero_shot"].run(problem, 1, {})
    return np.asarray(moment.logits(features), np.float32)


@pytest.mark.parametrize("name", CLOSED_FORM)
def test_the_last_fit_is_to_shots_and_validation_pictures(
    problem: Problem, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """With nothing left to choose, other validation pictures still give other answers."""
    for module, grid in ((gda, "WEIGHTS"), (heads, "TIP_SHARPNESS"), (heads, "TIP_WEIGHTS")):
        monkeypatch.setattr(module, grid, (1.0,))
    for grid in ("SHARPNESSES", "PENALTIES", "BASES"):
        monkeypatch.setattr(proker, grid, (1.0,))
    other = LabelledFeatures(np.roll(problem.val.features[:], 1, axis=1), problem.val.labels)
    seen = problem.train.features[:]
    before, after = (
        answers(dataclasses.replace(problem, val=val), name)(seen) for val in (problem.val, other)
    )
    assert np.abs(before - after).max() > 1e-3


@pytest.mark.parametrize("name", CLOSED_FORM)
def test_without_validation_pictures_the_shots_suffice(problem: Problem, name: str) -> None:
    logits = answers(dataclasses.replace(problem, val=none(problem.val)), name)
    assert (logits(problem.train.features[:]).argmax(axis=1) == problem.train.labels).mean() > 0.9


# GDA ----------------------------------------------------------------------------------------------------


def test_gda_is_bayes_rule_for_gaussians_of_its_covariance() -> None:
    X = np.array([[0.0, 0.0], [2.0, 0.0], [1.0, 3.0], [5.0, 4.0], [7.0, 4.0], [6.0, 7.0]])
    found = gda.fitted(X, np.array([0, 0, 0, 1, 1, 1]), 2)
    # Means (1, 1), (6, 5); scatter diag(4, 12), its trace 16 over N - 1: shrunk by 16 / 5.
    covariance = (np.diag([4.0, 12.0]) + 16 / 5 * np.eye(2)) / 2
    point = np.array([2.0, 6.0])

    def log_density(mean: NDArray[np.float64]) -> float:
        return float(-(point - mean) @ np.linalg.solve(covariance, point - mean) / 2)

    assert found is not None
    (scores,) = found.z(point[np.newaxis])
    expected = log_density(np.array([6.0, 5.0])) - log_density(np.array([1.0, 1.0]))
    assert scores[1] - scores[0] == pytest.approx(expected)


def test_gda_left_out_equals_a_fit_without_the_picture() -> None:
    rng = np.random.default_rng(0)
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2])
    X = rng.standard_normal((len(labels), 6))
    found = gda.fitted(X, labels, 3)
    assert found is not None
    rest = X - found.means[labels]
    shrinkage = np.trace(rest.T @ rest) / (len(X) - 1)
    for n, z in enumerate(found.z_left_out(X, labels)):
        kept = np.arange(len(X)) != n
        without = gda.fitted(X[kept], labels[kept], 3)
        assert without is not None
        rest = X[kept] - without.means[labels[kept]]
        inverse = np.linalg.inv(rest.T @ rest + shrinkage * np.eye(6))
        np.testing.assert_allclose(
            z, gda.Gaussians(without.means, without.counts, inverse).z(X[n : n + 1])[0]
        )


def weight_of(problem: Problem) -> float:
    """What z counts beside the words."""
    X, labels = heads.all_pictures(problem)
    fitted = gda.fitted(X, labels, len(NAMES))
    assert fitted is not None
    seen = problem.train.features[:]
    rest = answers(problem, "gda")(seen) - words(problem, seen)
    return float((rest * fitted.z(seen)).sum() / np.square(fitted.z(seen)).sum())


def test_gda_has_a_weight_at_any_number_of_pictures(problem: Problem) -> None:
    one_shot = dataclasses.replace(problem, train=one_a_class(problem.train))
    for few in (problem, one_shot, dataclasses.replace(problem, val=none(problem.val))):
        assert np.abs(weight_of(few) / np.asarray(gda.WEIGHTS) - 1).min() < 1e-3
    # One class alone has two pictures: there is too little to choose by.
    of_one_class = some(problem.val, np.arange(2))
    assert weight_of(dataclasses.replace(one_shot, val=of_one_class)) == pytest.approx(gda.UNMEASURED)
    with pytest.raises(UsageError, match="no two of one class differ"):
        answers(dataclasses.replace(one_shot, val=none(problem.val)), "gda")


# ProKeR -------------------------------------------------------------------------------------------------


def test_proker_takes_what_labels_left_out_pictures_best(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each candidate is fitted once for every picture, without it."""
    monkeypatch.setattr(proker, "SHARPNESSES", (0.5, 2.0))
    monkeypatch.setattr(proker, "PENALTIES", (0.1, 1.0))
    monkeypatch.setattr(proker, "BASES", (0.05, 0.5))
    X, labels = heads.all_pictures(problem)
    Y, L = np.eye(len(NAMES))[labels], words(problem, X.astype(np.float32)).astype(np.float64)
    distances = (1 - X @ X.T) / ((1 - X @ X.T).sum() / (len(X) * (len(X) - 1)))
    everything = np.arange(len(X))

    def fit(kept: NDArray[np.int64], asked: NDArray[np.int64], numbers: tuple[float, ...]) -> Doubles:
        """Answers for the asked pictures, of a fit to the kept ones."""
        sharpness, penalty, base = numbers
        k = np.exp(-sharpness * distances)
        inner = k[np.ix_(kept, kept)] + penalty * np.eye(len(kept))
        C = np.linalg.solve(inner, Y[kept] - base * L[kept])
        return np.asarray(base * L[asked] + k[np.ix_(asked, kept)] @ C)

    def left_out_worth(numbers: tuple[float, ...]) -> tuple[float, float]:
        left = np.concatenate([fit(np.delete(everything, n), np.array([n]), numbers) for n in everything])
        return float((left.argmax(axis=1) == labels).mean()), -float(np.square(left - Y).mean())

    best = max(itertools.product(proker.SHARPNESSES, proker.PENALTIES, proker.BASES), key=left_out_worth)
    found = answers(problem, "proker")(X.astype(np.float32))
    np.testing.assert_allclose(found, fit(everything, everything, best), atol=1e-4)


def test_proker_with_one_picture_a_class_has_fixed_numbers(problem: Problem) -> None:
    few = dataclasses.replace(problem, train=one_a_class(problem.train), val=none(problem.val))
    X = few.train.features[:].astype(np.float64)
    sharpness, penalty, base = proker.UNMEASURED
    k = np.exp(-sharpness * (1 - X @ X.T) * 12 / (1 - X @ X.T).sum())  # 4 x 3 distances
    L = words(few, few.train.features[:])
    expected = base * L + k @ np.linalg.solve(k + penalty * np.eye(4), np.eye(4) - base * L)
    np.testing.assert_allclose(answers(few, "proker")(few.train.features[:]), expected, atol=1e-5)


# SS-Text ------------------------------------------------------------------------------------------------


def test_ss_text_blends_words_and_pictures_by_how_many(problem: Problem) -> None:
    X, labels = heads.all_pictures(problem)
    _, T = heads.class_features(problem)
    seen = problem.train.features[:]
    found = answers(problem, "ss_text")(seen)
    for k in range(len(NAMES)):
        of_class = X[labels == k]
        w = T[k] + problem.logit_scale * len(of_class) / len(X) * of_class.sum(axis=0)
        np.testing.assert_allclose(found[:, k], problem.logit_scale * seen @ w / np.linalg.norm(w), rtol=1e-5)
