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

from .arrays import Doubles, Floats, LabelledFeatures
from .errors import UsageError
from .objective import cross_entropies, logits_of

HEADS = ("none", "gda")
# Tried on validation pictures; from where the head hardly counts to where it alone does.
WEIGHTS = (0.0, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
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
    if not np.trace(scatter) > 0:
        raise UsageError(
            f"--head gda has {len(shots)} different pictures of {n_classes} classes to learn from. It takes "
            f"two or more of at least one class. Try more --shots, or leave --head out"
        )
    directions = precision_times(scatter, means, len(shots))
    bias = -0.5 * (means * directions).sum(axis=1)
    return Head(directions.astype(np.float32), bias.astype(np.float32), 1.0)


def class_means(shots: LabelledFeatures, n_classes: int) -> Doubles:
    """mu: (K, E) float64."""
    totals = np.zeros((n_classes, shots.features[:1].shape[1]))
    for X, y in _blocks(shots):
        np.add.at(totals, y, X)
    means: Doubles = totals / np.bincount(shots.labels, minlength=n_classes)[:, np.newaxis]
    return means


def within_scatter(shots: LabelledFeatures, means: Doubles) -> Doubles:
    """S: (E, E) float64."""
    scatter = np.zeros((means.shape[1], means.shape[1]))
    for X, y in _blocks(shots):
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
    if head is not None and head.weight > 0:
        logits += np.float32(head.weight) * (features @ head.weights.T + head.bias)
    return logits


def with_best_weight(
    head: Head, class_features: Floats, validation: LabelledFeatures, logit_scale: float
) -> Head:
    """The head with the weight of WEIGHTS that is most accurate on validation, of equal ones by loss.

    Not by loss first: a head fitted to its own pictures is too sure of itself, right or wrong. Of equal
    losses too, the smaller weight; so a head is never less accurate there than the prompt alone.
    """
    candidates = [replace(head, weight=weight) for weight in WEIGHTS]
    return min(candidates, key=lambda each: _errors_and_loss(each, class_features, validation, logit_scale))


def _errors_and_loss(
    head: Head, class_features: Floats, pictures: LabelledFeatures, logit_scale: float
) -> tuple[int, float]:
    errors, loss = 0, 0.0
    for start in range(0, len(pictures), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        logits = blended_logits(pictures.features[rows], class_features, logit_scale, head)
        errors += int((logits.argmax(axis=1) != pictures.labels[rows]).sum())
        loss += float(cross_entropies(logits, pictures.labels[rows]).sum())
    return errors, loss


def _blocks(pictures: LabelledFeatures) -> Iterator[tuple[Doubles, NDArray[np.int64]]]:
    """Features as doubles (b, E), of the caller's own, and labels (b,)."""
    for start in range(0, len(pictures), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        yield pictures.features[rows].astype(np.float64), pictures.labels[rows]
