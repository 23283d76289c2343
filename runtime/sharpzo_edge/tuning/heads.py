"""A closed-form head on the image features of the shots, beside the tuned prompt. Costs no query.

GDA: classes are Gaussians with means mu_k and one precision P (Wang et al., ICLR 2024, arXiv 2402.04087).

    S      = sum_n (x_n - mu_y)(x_n - mu_y)^T                       scatter within the classes   (E, E)
    P      = E (S + tr(S) / (N - 1) I)^-1                           shrunk towards the identity
    z_k(x) = x . P mu_k - mu_k . P mu_k / 2                         of a picture, all classes equally likely
    logits = s x . T_k + weight z_k(x)                              T: the prompt's class features

It knows the classes that it saw pictures of and no others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..search.losses import SCORING_BYTES, Score, logits_of, picture_block, scores_of
from ..types import Doubles, Floats, LabelledFeatures

HEADS = ("none", "gda")
# Tried on validation pictures; from where the head hardly counts to where it alone does.
WEIGHTS = (0.0, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
# Mean squared distance of unit features from their class's mean: below it pictures are one and the same.
ROUND_OFF = 1e-10
HEAD_MATRICES = 3  # E x E doubles alive while a head is solved for: the scatter, its copy, a product
HEAD_MEANS = 3  # and K x E doubles: means, right-hand sides, solutions
BLOCK_ROWS = 256  # pictures whose features are doubles at once


@dataclass(frozen=True, eq=False)
class Head:
    """z = F weights^T + bias, added to the prompt's logits with `weight`: (K, E), (K,) float32, 0 or more."""

    weights: Floats
    bias: Floats
    weight: float


def gda(shots: LabelledFeatures, n_classes: int) -> Head:
    """The head of weight 1 from features (N, E) of every class, in float64.

    Raises UsageError when no class has two pictures that differ: nothing tells the scatter then.
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
    """mu: (K, E) float64."""
    totals = np.zeros((n_classes, shots.features[:1].shape[1]))
    for X, y in _in_doubles(shots):
        np.add.at(totals, y, X)
    means: Doubles = totals / np.bincount(shots.labels, minlength=n_classes)[:, np.newaxis]
    return means


def within_scatter(shots: LabelledFeatures, means: Doubles) -> Doubles:
    """S: (E, E) float64."""
    scatter = np.zeros((means.shape[1], means.shape[1]))
    for X, y in _in_doubles(shots):
        X -= means[y]
        scatter += X.T @ X
    return scatter


def precision_times(scatter: Doubles, means: Doubles, n_pictures: int) -> Doubles:
    """P mu_k of every class: (K, E) float64. Adds to the diagonal of `scatter`."""
    embed_dim = len(scatter)
    scatter.flat[:: embed_dim + 1] += np.trace(scatter) / (n_pictures - 1)
    return embed_dim * np.asarray(np.linalg.solve(scatter, means.T), np.float64).T


def blended_logits(features: Floats, class_features: Floats, logit_scale: float, head: Head | None) -> Floats:
    """s F T^T, and what the head adds: (N, K) float32. A weight of 0 adds nothing at all."""
    logits = logits_of(features, class_features, logit_scale)
    return logits if head is None else blend(logits, head_logits(features, head), head.weight)


def head_logits(features: Floats, head: Head) -> Floats:
    """z of every picture, without the weight: (N, K) float32."""
    z: Floats = features @ head.weights.T
    z += head.bias
    return z


def blend(logits: Floats, z: Floats, weight: float) -> Floats:
    """logits + weight z; the logits themselves for a weight of 0."""
    return logits + np.float32(weight) * z if weight > 0 else logits


def with_best_weight(
    head: Head, class_features: Floats, validation: LabelledFeatures, logit_scale: float
) -> tuple[Head, Score]:
    """The head with the weight of WEIGHTS that is most accurate on validation, of equal ones by loss.

    Also returns what the blend is worth there. Not by loss first: a head fitted to its own pictures is too
    sure of itself, right or wrong. Of equal losses too, the smaller weight; so a head is never less accurate
    there than the prompt alone.
    """

    def answers(features: Floats) -> Iterator[Floats]:
        logits, z = logits_of(features, class_features, logit_scale), head_logits(features, head)
        for weight in WEIGHTS:
            yield blend(logits, z, weight)

    found = scores_of(answers, len(WEIGHTS), validation, picture_block(*class_features.shape))
    best = min(range(len(WEIGHTS)), key=lambda i: (-found[i].accuracy, found[i].loss))
    return replace(head, weight=WEIGHTS[best]), found[best]


def peak_bytes(n_classes: int, embed_dim: int) -> int:
    """While a head is fitted and its weight chosen, beside the features."""
    return SCORING_BYTES + 8 * embed_dim * (HEAD_MATRICES * embed_dim + HEAD_MEANS * n_classes)


def _in_doubles(pictures: LabelledFeatures) -> Iterator[tuple[Doubles, NDArray[np.int64]]]:
    """Features as doubles (b, E), of the caller's own, and labels (b,)."""
    for features, labels in pictures.blocks(BLOCK_ROWS):
        yield features.astype(np.float64), labels
