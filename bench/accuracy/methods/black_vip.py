"""A variant of BlackVIP (arXiv 2303.14773): a picture added to every picture, tuned by SPSA-GC.

    x' = clip(x + strength h(x)),  h: a decoder of the picture's statistics and a trainable trigger

Variant: mean and spread of every colour on the decoder's own grid stand in for the authors' frozen ViT-MAE,
the decoder is half as wide, and the batch is all shots as they are, without fresh crops. The words are the
task's template, or the initial context's.

    g  = SPSA, as ZIP's but without its clip;  m <- beta m + g;  w <- w - a_t (g + beta m)

A query is a pass of the IMAGE tower over all shots: no cached features can spare it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from sharpzo_edge.clip.manifest import Preprocess
from sharpzo_edge.clip.tower_plan import RESIDENT, ImagePlan
from sharpzo_edge.clip.towers import ImageTower
from sharpzo_edge.errors import UsageError
from sharpzo_edge.search.losses import cross_entropies, logits_of
from sharpzo_edge.types import Doubles, Floats

from .method import Moment, Problem
from .prompts import DIM
from .search_loop import LOOK_EVERY
from .zip_spsa import REPEATS, STEP_DECAY, segmented_uniform, spsa_gradient

WIDTHS = (16, 16, 16, 8, 8, 3)  # channels before and behind each layer
N_STATISTICS = 6  # of the first ones; the others are the trigger
CELL = 2 ** (len(WIDTHS) - 1)  # pixels that one point of the decoder's grid becomes
NORM_EPSILON = 1e-5

Norms = list[tuple[Floats, Floats]]


def black_vip(problem: Problem, max_queries: int, settings: Mapping[str, Any]) -> Iterator[Moment]:
    """settings: strength, c, a, beta, gamma. Its moments' logits take pixels (N, 3, H, W), not features.

    Raises UsageError where the problem brings no pixels, or their sides do not fit the decoder.
    """
    if problem.pixels is None:
        raise UsageError(
            f"BlackVIP changes pictures, and the problem {problem.task} brings their features alone. "
            f"It needs the shots' pixels. Give Problem.pixels"
        )
    objective = problem.spelt_out().objective(DIM)
    T = objective.class_features(np.zeros((1, DIM)))[0]
    prompter = Prompter(problem, settings["strength"])
    pixels, labels = problem.pixels(), problem.train.labels

    def scored(features: Floats) -> Floats:
        return logits_of(features, T, problem.logit_scale)

    def loss_at(params: Doubles) -> float:
        objective.queries += 1
        return loss_of(prompter.features(pixels, params))

    def loss_of(features: Floats) -> float:
        return float(cross_entropies(scored(features), labels).mean())

    def moment(params: Doubles) -> Moment:
        """For one query, which measures the norms too."""
        loss, norms = loss_at(params), prompter.norms(pixels, params)
        return Moment(
            objective.queries, loss, lambda tested: scored(prompter.features(tested, params, norms))
        )

    yield Moment(
        objective.queries,
        loss_of(problem.train.features[: len(labels)]),
        lambda tested: scored(prompter.encoded(tested)),
    )
    rng = np.random.default_rng(problem.seed_stream("stage2"))
    params = prompter.decoder.start(np.random.default_rng(problem.seed_stream("projection")))
    momentum, a_step, t, due = np.zeros_like(params), 2 * REPEATS, 0, LOOK_EVERY
    while objective.queries + a_step < max_queries:
        t += 1
        probe = settings["c"] / t ** settings["gamma"]
        deltas = segmented_uniform(rng, (REPEATS, params.size))
        losses = [loss_at(params + sign * probe * delta) for delta in deltas for sign in (1, -1)]
        gradient = spsa_gradient(np.array(losses), deltas, probe)
        momentum = settings["beta"] * momentum + gradient
        params = params - settings["a"] / (t + 1) ** STEP_DECAY * (gradient + settings["beta"] * momentum)
        if objective.queries >= due or objective.queries + a_step >= max_queries:
            yield moment(params)
            due = objective.queries + LOOK_EVERY


class Prompter:
    """Pixels (N, 3, H, W), normalised, to unit features of the pictures with something added to them."""

    def __init__(self, problem: Problem, strength: float) -> None:
        """Raises UsageError when the decoder cannot fill the bundle's pictures."""
        how = problem.bundle.manifest.preprocess
        height, width = how.size
        if height % CELL or width % CELL:
            raise UsageError(
                f"BlackVIP's decoder cannot fill pictures of {height} x {width} pixels. Their sides must be "
                f"multiples of {CELL}. Leave this method out for this bundle"
            )
        self.decoder = Decoder(height // CELL, width // CELL)
        self._strength = np.float32(strength)
        self._black, self._white = colour_range(how)
        # Never closed by hand: whoever keeps a moment may still ask it for logits.
        self._tower = ImageTower(problem.bundle, ImagePlan(RESIDENT, math.inf, problem.threads))

    def encoded(self, pixels: Floats) -> Floats:
        step = RESIDENT.micro_batch
        return self._tower.image_features(pixels[i : i + step] for i in range(0, len(pixels), step))

    def features(self, pixels: Floats, params: Doubles, norms: Norms | None = None) -> Floats:
        """norms: the decoder's, of other pictures; None: of these."""
        added, _ = self.decoder.run(statistics(pixels), params, norms)
        prompted = pixels + self._strength * added
        return self.encoded(np.clip(prompted, self._black, self._white))

    def norms(self, pixels: Floats, params: Doubles) -> Norms:
        return self.decoder.run(statistics(pixels), params)[1]


class Decoder:
    """h: layers that double the size by 2 x 2 kernels, a channel each, and mix channels; all but the last
    end in a norm over the batch and GELU. Its variables are one vector: trigger, then layer by layer.
    """

    def __init__(self, height: int, width: int) -> None:
        self._shapes: list[tuple[int, ...]] = [(WIDTHS[0] - N_STATISTICS, height, width)]
        for n_in, n_out in pairwise(WIDTHS):
            self._shapes += [(n_in, 2, 2), (n_in,), (n_in, n_out), (2, n_out)]

    def start(self, rng: np.random.Generator) -> Doubles:
        """The trigger ~ U[0, 0.1); kernels, biases and mixtures as torch draws them; plain norms."""
        trigger, *layers = self._shapes
        parts = [rng.uniform(0, 0.1, trigger)]
        for i in range(0, len(layers), 4):
            kernel, bias, mix, norm = layers[i : i + 4]
            parts += [rng.uniform(-0.5, 0.5, kernel), rng.uniform(-0.5, 0.5, bias)]
            parts += [rng.uniform(-1, 1, mix) / np.sqrt(mix[1]), np.array([[1.0], [0.0]]) * np.ones(norm)]
        return np.concatenate([part.ravel() for part in parts])

    def run(self, found: Floats, params: Doubles, norms: Norms | None = None) -> tuple[Floats, Norms]:
        """Statistics (N, h, w, 6) -> what is added (N, 3, H, W), and the norms used: means and variances."""
        ends = np.cumsum([np.prod(shape) for shape in self._shapes])[:-1]
        values = np.split(params.astype(np.float32), ends)
        trigger, *layers = (p.reshape(s) for p, s in zip(values, self._shapes, strict=True))
        trigger = np.moveaxis(trigger, 0, -1)
        x = np.concatenate((found, np.broadcast_to(trigger, (len(found), *trigger.shape))), axis=-1)
        used: Norms = []
        for i in range(0, len(layers), 4):
            kernel, bias, mix, (gain, shift) = layers[i : i + 4]
            x = doubled(x, kernel, bias, mix)
            if i + 4 < len(layers):
                own = (x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))) if norms is None else norms[len(used)]
                used.append(own)
                scale = gain / np.sqrt(own[1] + np.float32(NORM_EPSILON))
                x = gelu(x * scale + (shift - own[0] * scale))
        return np.moveaxis(x, -1, 1), used


def statistics(pixels: Floats) -> Floats:
    """Mean and standard deviation of every colour in cells of CELL pixels: (N, 3, H, W) -> (N, h, w, 6)."""
    n, colours, height, width = pixels.shape
    cells = pixels.reshape(n, colours, height // CELL, CELL, width // CELL, CELL)
    found = np.concatenate((cells.mean(axis=(3, 5)), cells.std(axis=(3, 5))), axis=1)
    return np.moveaxis(found, 1, -1)


def doubled(x: Floats, kernel: Floats, bias: Floats, mix: Floats) -> Floats:
    """A transposed convolution of stride 2, channel by channel, and a mixture of the channels, as one
    product: x (N, h, w, C), kernel (C, 2, 2), bias (C,), mix (C, D) -> (N, 2 h, 2 w, D).
    """
    n, h, w, _ = x.shape
    both = kernel[..., np.newaxis] * mix[:, np.newaxis, np.newaxis]  # (C, 2, 2, D)
    y = (x @ both.reshape(len(mix), -1)).reshape(n, h, w, *both.shape[1:])
    placed: Floats = y.transpose(0, 1, 3, 2, 4, 5).reshape(n, 2 * h, 2 * w, -1)
    placed += bias @ mix
    return placed


def gelu(x: Floats) -> Floats:
    """By its tanh approximation."""
    inner = np.float32(np.sqrt(2 / np.pi)) * (x + np.float32(0.044715) * x * x * x)
    gated: Floats = x / 2 * (1 + np.tanh(inner))
    return gated


def colour_range(how: Preprocess) -> tuple[Floats, Floats]:
    """Black and white as the image tower sees them: (3, 1, 1) each."""
    mean, std = (np.asarray(v, np.float32)[:, np.newaxis, np.newaxis] for v in (how.mean, how.std))
    return -mean / std, (1 - mean) / std
