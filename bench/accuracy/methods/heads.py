"""Heads on cached image features: no prompt is tuned, so none of them knows a class without pictures.

A head uses the shots and the validation pictures in two steps. First its hyper-parameters are chosen, if it
has any. Then it is fitted, with those, to the shots and the validation pictures together. So all heads see
the same pictures in their last fit, and none of them has more data than another.

Here are Tip-Adapter, SS-Text and the linear probe. The first two use the zero-shot logits s F T^T. gda.py and
proker.py have the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpzo_edge.clip.bundle import Bundle
from sharpzo_edge.types import Doubles, Floats, LabelledFeatures

from .method import Logits, Moment, Problem, loss_of
from .prompts import DIM
from .search_loop import look

# Of every head, so that a run tells it.
FITTED_TO = {"fitted_to": "shots and validation pictures"}
TIP_SHARPNESS, TIP_WEIGHTS = np.linspace(0.1, 12, 120), np.linspace(0.1, 10, 50)
PROBE_STRENGTHS = np.logspace(-4, 3, 15)  # C, the inverse of the penalty
PROBE_ITERATIONS = 1_000


def tip_adapter(problem: Problem, max_queries: int, settings: Mapping[str, Any]) -> Iterator[Moment]:
    """Tip-Adapter without training: s F T^T + alpha exp(-beta (1 - F X^T)) Y, Y one-hot (N, K).

    alpha and beta are the best on the validation pictures while the cache X holds the shots. In the end it
    holds the validation pictures too. Costs the one query of T.
    """
    zero_shot = words_of(problem)
    features, judges = to_choose_by(problem)
    words = zero_shot.logits(features)
    shots, of_shots = rows(problem.train)
    affinity, Y = features @ shots.T, one_hot(problem, of_shots)
    best = (-1.0, -np.inf)
    sharpness, weight = float(TIP_SHARPNESS[0]), float(TIP_WEIGHTS[0])
    for beta in map(float, TIP_SHARPNESS):
        cached = np.exp(-beta * (1 - affinity)) @ Y
        for alpha in map(float, TIP_WEIGHTS):
            if (found := worth(words + alpha * cached, judges)) > best:
                best, sharpness, weight = found, beta, alpha
    X, labels = all_pictures(problem)
    of_all = one_hot(problem, labels)

    def logits(F: Floats) -> Doubles:
        return zero_shot.logits(F) + weight * np.exp(-sharpness * (1 - F @ X.T)) @ of_all

    yield moment_of_head(problem, logits, zero_shot.queries)


def ss_text(problem: Problem, max_queries: int, settings: Mapping[str, Any]) -> Iterator[Moment]:
    """SS-Text (arXiv 2506.17500): s F W^T / |W|, where w_k = T_k + s n_k / N sum of the class's features.

    n_k: pictures of the class, N: of all. Nothing is chosen. Costs the one query of T.
    """
    queries, T = class_features(problem)
    X, labels = all_pictures(problem)
    Y = one_hot(problem, labels)
    W = T + problem.logit_scale * Y.mean(axis=0)[:, np.newaxis] * (Y.T @ X)
    W /= np.linalg.norm(W, axis=1, keepdims=True)
    yield moment_of_head(problem, lambda F: problem.logit_scale * F.astype(np.float64) @ W.T, queries)


def linear_probe(problem: Problem, max_queries: int, settings: Mapping[str, Any]) -> Iterator[Moment]:
    """Multinomial logistic regression on standardised features.

    The penalty is that of the lowest validation loss, of fits to the shots. The last fit, with that penalty,
    is to the validation pictures too. Costs no query.
    """
    from sklearn.linear_model import LogisticRegression  # the bench group has it, a device does not

    def fitted(X: Doubles, labels: NDArray[np.int64], strength: float) -> Logits:
        centre, spread = X.mean(axis=0), X.std(axis=0)
        spread[spread == 0] = 1
        model = LogisticRegression(C=strength, max_iter=PROBE_ITERATIONS).fit((X - centre) / spread, labels)
        W = model.coef_ / spread
        b = model.intercept_ - W @ centre
        if len(W) == 1:  # of two classes it fits the second's log odds alone
            W, b = np.vstack((np.zeros_like(W), W)), np.append(0, b)
        return lambda F: F.astype(np.float64) @ W.T + b

    features, judges = to_choose_by(problem)
    shots = rows(problem.train)
    best = min(PROBE_STRENGTHS, key=lambda strength: loss_of(fitted(*shots, strength)(features), judges))
    yield moment_of_head(problem, fitted(*all_pictures(problem), best), 0)


def load_sklearn(bundle: Bundle) -> None:
    """So that no run's seconds hold its import."""
    import sklearn.linear_model  # noqa: F401


# What heads share -----------------------------------------------------------------------------------------


def words_of(problem: Problem) -> Moment:
    """Zero-shot."""
    return look(problem.objective(DIM), np.zeros(DIM))


def class_features(problem: Problem) -> tuple[int, Floats]:
    """The queries that it takes, and T (K, E) of the initial words."""
    objective = problem.objective(DIM)
    T = objective.class_features(np.zeros((1, DIM)))[0]
    return objective.queries, T


def worth(logits: Floats | Doubles, labels: NDArray[np.int64]) -> tuple[float, float]:
    """The larger the better: accuracy, and between equal ones the loss."""
    return float((logits.argmax(axis=1) == labels).mean()), -loss_of(logits, labels)


def to_choose_by(problem: Problem) -> tuple[Floats, NDArray[np.int64]]:
    """Features (N, E) and labels (N,) of the validation pictures; without any the shots stand in."""
    X, labels = rows(problem.val if len(problem.val) else problem.train)
    return X.astype(np.float32), labels


def all_pictures(problem: Problem) -> tuple[Doubles, NDArray[np.int64]]:
    """The shots and the validation pictures: features (N, E) float64, and labels (N,)."""
    (X, labels), (X_val, labels_val) = rows(problem.train), rows(problem.val)
    return np.concatenate((X, X_val)), np.concatenate((labels, labels_val))


def judged(labels: NDArray[np.int64], n_classes: int) -> NDArray[np.bool_] | None:
    """Which pictures (N,) leave-one-out can judge: those of classes with two or more.

    None where fewer than half of the classes have two: then there is too little to choose by.
    """
    counts = np.bincount(labels, minlength=n_classes)
    found: NDArray[np.bool_] = counts[labels] > 1
    return found if (counts > 1).mean() >= 0.5 else None


def moment_of_head(problem: Problem, logits: Logits, queries: int) -> Moment:
    X, labels = rows(problem.train)
    return Moment(queries, loss_of(logits(X.astype(np.float32)), labels), logits)


def one_hot(problem: Problem, labels: NDArray[np.int64]) -> Doubles:
    return np.eye(len(problem.class_names))[labels]


def rows(pictures: LabelledFeatures) -> tuple[Doubles, NDArray[np.int64]]:
    """All of the features (N, E) float64, and the labels (N,)."""
    return pictures.features[: len(pictures)].astype(np.float64), pictures.labels
