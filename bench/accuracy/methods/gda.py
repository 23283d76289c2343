"""A closed-form classifier on image features, the head, which is added to the tuned prompt. Costs no query.

GDA: each class is a Gaussian with a mean mu_k; all share one precision P (Wang et al., ICLR 2024, arXiv
2402.04087).

    S      = sum_n (x_n - mu_y)(x_n - mu_y)^T                       scatter within the classes   (E, E)
    P      = E (S + tr(S) / (N - 1) I)^-1                           shrunk towards the identity
    z_k(x) = x . P mu_k - mu_k . P mu_k / 2                         of a picture, all classes equally likely
    logits = s x . T_k + weight z_k(x)                              T: the prompt's class features

A head knows only the classes that it was fitted on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sharpzo_edge.errors import UsageError
from sharpzo_edge.search.losses import SCORING_BYTES, Score, logits_of, picture_block, scores_of
from sharpzo_edge.types import Doubles, Floats, LabelledFeatures

HEADS = ("none", "gda")
# Weights to try on validation pictures: from where the head hardly counts to where it alone counts.
WEIGHTS = (0.0, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
# Below this mean squared distance of features from their class's mean, the pictures count as equal.
ROUND_OFF = 1e-10
HEAD_MATRICES = 3  # E x E doubles in use while a head is fitted: the scatter, its copy, a product
HEAD_MEANS = 3  # K x E doubles in use then: means, right-hand sides, solutions
BLOCK_ROWS = 256  # pictures whose features are converted to doubles at a time


@dataclass(frozen=True, eq=False)
class Head:
    """A linear classifier: z = F weights^T + bias for image features F (N, E).

    `weight` times z is added to the prompt's logits.

    weights: (K, E) float32
    bias:    (K,) float32
    weight:  0 or more
    """

    weights: Floats
    bias: Floats
    weight: float


def gda(shots: LabelledFeatures, n_classes: int) -> Head:
    """The GDA head with weight 1, from features (N, E) of all n_classes classes. Computed in float64.

    Raises UsageError when no class has two different pictures: the scatter is then unknown.
    Time: E^3 + N E^2. Memory: three (E, E) doubles, three (K, E) doubles, a block of pictures.
    """
    means = class_means(shots, n_classes)
    scatter = within_scatter(shots, means)
    if not np.trace(scatter) > ROUND_OFF * len(shots):
        raise UsageError(
            f"--head gda has {len(shots)} pictures, and no two of one class differ. It takes two "
            f"different ones of at least one class. Try more --shots, add other pictures, or leave --head out"
        )
    directions = precision_times(scatter, means, len(shots))
    bias = -0.5 * (means * directions).sum(axis=1)
    return Head(directions.astype(np.float32), bias.astype(np.float32), 1.0)


def class_means(shots: LabelledFeatures, n_classes: int) -> Doubles:
    """mu, the mean feature of each class: (K, E) float64."""
    totals = np.zeros((n_classes, shots.features[:1].shape[1]))
    for X, y in _in_doubles(shots):
        np.add.at(totals, y, X)
    means: Doubles = totals / np.bincount(shots.labels, minlength=n_classes)[:, np.newaxis]
    return means


def within_scatter(shots: LabelledFeatures, means: Doubles) -> Doubles:
    """S, the scatter around the class means: (E, E) float64. means: (K, E)."""
    scatter = np.zeros((means.shape[1], means.shape[1]))
    for X, y in _in_doubles(shots):
        X -= means[y]
        scatter += X.T @ X
    return scatter


def precision_times(scatter: Doubles, means: Doubles, n_pictures: int) -> Doubles:
    """P mu_k for each class: (K, E) float64. It changes the diagonal of `scatter`."""
    embed_dim = len(scatter)
    scatter.flat[:: embed_dim + 1] += np.trace(scatter) / (n_pictures - 1)
    return embed_dim * np.asarray(np.linalg.solve(scatter, means.T), np.float64).T


def blended_logits(features: Floats, class_features: Floats, logit_scale: float, head: Head | None) -> Floats:
    """Logits of the prompt, s F T^T, with the head's added: (N, K) float32. head: None adds nothing.

    features: F, (N, E);  class_features: T, (K, E);  logit_scale: s
    """
    logits = logits_of(features, class_features, logit_scale)
    return logits if head is None else blend(logits, head_logits(features, head), head.weight)


def head_logits(features: Floats, head: Head) -> Floats:
    """z for each picture, before it is multiplied by the weight: (N, K) float32. features: (N, E)."""
    z: Floats = features @ head.weights.T
    z += head.bias
    return z


def blend(logits: Floats, z: Floats, weight: float) -> Floats:
    """logits + weight z. For a weight of 0: the given logits, unchanged."""
    return logits + np.float32(weight) * z if weight > 0 else logits


def with_best_weight(
    head: Head, class_features: Floats, validation: LabelledFeatures, logit_scale: float
) -> tuple[Head, Score]:
    """The head with the best of WEIGHTS on the validation pictures, and the score of prompt and head there.

    The best has the highest accuracy, then the lowest loss, then the smallest weight. Accuracy comes first
    because a head that is fitted to its own pictures is too sure of itself, right or wrong, which spoils the
    loss. So prompt and head together are never less accurate there than the prompt alone.
    """

    def answers(features: Floats) -> Iterator[Floats]:
        logits, z = logits_of(features, class_features, logit_scale), head_logits(features, head)
        for weight in WEIGHTS:
            yield blend(logits, z, weight)

    found = scores_of(answers, len(WEIGHTS), validation, picture_block(*class_features.shape))
    best = min(range(len(WEIGHTS)), key=lambda i: (-found[i].accuracy, found[i].loss))
    return replace(head, weight=WEIGHTS[best]), found[best]


def peak_bytes(n_classes: int, embed_dim: int) -> int:
    """The most memory in bytes while a head is fitted and its weight is chosen, beside the features."""
    return SCORING_BYTES + 8 * embed_dim * (HEAD_MATRICES * embed_dim + HEAD_MEANS * n_classes)


def _in_doubles(pictures: LabelledFeatures) -> Iterator[tuple[Doubles, NDArray[np.int64]]]:
    """Yields features (b, E) as new arrays of doubles, and labels (b,)."""
    for features, labels in pictures.blocks(BLOCK_ROWS):
        yield features.astype(np.float64), labels
