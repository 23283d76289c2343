"""Heads on cached image features: no prompt is tuned, so none of them knows a class without pictures.

Each blends with, or stands in for, the zero-shot logits s F T^T; what their authors choose on validation
pictures is chosen there, inside the method: by accuracy and then by loss, or by loss alone (the linear probe,
which that serves better). GDA is the product's own, the others are written here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpzo_edge.clip.bundle import Bundle
from sharpzo_edge.types import Doubles, Floats, LabelledFeatures

from . import gda as product
from .method import Logits, Moment, Problem, loss_of
from .prompts import DIM
from .search_loop import look

GDA_SETTINGS = {"weights": list(product.WEIGHTS)}  # so that a run tells what it was chosen from
TIP_SHARPNESS, TIP_WEIGHTS = np.linspace(0.1, 12, 120), np.linspace(0.1, 10, 50)
PROBE_STRENGTHS = np.logspace(-4, 3, 15)  # C, the inverse of the penalty
PROBE_ITERATIONS = 1_000


def gda(problem: Problem, max_queries: int, settings: Mapping[str, Any]) -> Iterator[Moment]:
    """What `tune --head gda --max-queries 1` does: the product's head beside the initial words.

    Costs the one query of T. Raises UsageError where the product refuses: nothing to validate on, or no class
    with two pictures that differ.
    """
    head = product.gda(problem.train, len(problem.class_names))
    objective = problem.objective(DIM)
    T = objective.class_features(np.zeros((1, DIM)))[0]
    head, _ = product.with_best_weight(head, T, problem.val, problem.logit_scale)

    def logits(F: Floats) -> Floats:
        return product.blended_logits(F, T, problem.logit_scale, head)

    yield moment_of_head(problem, logits, objective.queries)


def tip_adapter(problem: Problem, max_queries: int, settings: Mapping[str, Any]) -> Iterator[Moment]:
    """Tip-Adapter without training: s F T^T + alpha exp(-beta (1 - F X^T)) Y, Y one-hot (N, K).

    Costs the one query of T.
    """
    zero_shot = look(problem.objective(DIM), np.zeros(DIM))
    X, labels = rows(problem.train)
    Y = np.eye(len(problem.class_names))[labels]

    def cache(F: Floats, beta: float) -> Doubles:
        return np.exp(-beta * (1 - F.astype(np.float64) @ X.T)) @ Y

    blends = (
        (lambda F, a=alpha, b=beta: zero_shot.logits(F) + a * cache(F, b))
        for beta in TIP_SHARPNESS
        for alpha in TIP_WEIGHTS
    )
    yield moment_of_head(problem, best_of(blends, problem), zero_shot.queries)


def linear_probe(problem: Problem, max_queries: int, settings: Mapping[str, Any]) -> Iterator[Moment]:
    """Multinomial logistic regression on standardised features, its penalty by validation loss. Costs no
    query.
    """
    from sklearn.linear_model import LogisticRegression  # the bench group has it, a device does not

    X, labels = rows(problem.train)
    centre, spread = X.mean(axis=0), X.std(axis=0)
    spread[spread == 0] = 1

    def fitted(strength: float) -> Logits:
        model = LogisticRegression(C=strength, max_iter=PROBE_ITERATIONS).fit((X - centre) / spread, labels)
        W = model.coef_ / spread
        b = model.intercept_ - W @ centre
        if len(W) == 1:  # of two classes it fits the second's log odds alone
            W, b = np.vstack((np.zeros_like(W), W)), np.append(0, b)
        return lambda F: F.astype(np.float64) @ W.T + b

    X_val, labels_val = validation(problem)
    heads = map(fitted, PROBE_STRENGTHS)
    yield moment_of_head(problem, min(heads, key=lambda head: loss_of(head(X_val), labels_val)), 0)


def load_sklearn(bundle: Bundle) -> None:
    """So that no run's seconds hold its import."""
    import sklearn.linear_model  # noqa: F401


def best_of(heads: Iterable[Logits], problem: Problem) -> Logits:
    """The head of the highest accuracy on the validation pictures, of equal ones the lowest loss there."""
    features, labels = validation(problem)

    def worth(head: Logits) -> tuple[float, float]:
        logits = head(features)
        return float((logits.argmax(axis=1) == labels).mean()), -loss_of(logits, labels)

    return max(heads, key=worth)


def validation(problem: Problem) -> tuple[Floats, NDArray[np.int64]]:
    """Features (N, E) and labels (N,) to choose by; without validation pictures the shots stand in."""
    X, labels = rows(problem.val if len(problem.val) else problem.train)
    return X.astype(np.float32), labels


def moment_of_head(problem: Problem, logits: Logits, queries: int) -> Moment:
    X, labels = rows(problem.train)
    return Moment(queries, loss_of(logits(X.astype(np.float32)), labels), logits)


def rows(pictures: LabelledFeatures) -> tuple[Doubles, NDArray[np.int64]]:
    """All of the features (N, E) float64, and the labels (N,)."""
    return pictures.features[: len(pictures)].astype(np.float64), pictures.labels
