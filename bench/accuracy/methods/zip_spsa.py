"""ZIP (arXiv 2504.06838): a low-rank prompt behind Fastfood maps, and clipped SPSA.

    W       = U diag(s) V^T + 1 v^T          (m, q): rank r, and v which all tokens share
    token_i = theta0_i + F_i(W_i)            F_i: Fastfood, R^q -> R^D, fixed

SPSA averages REPEATS estimates, 2 queries each, and scales an estimate longer than sqrt(delta) down to it,
delta the number of variables. Unlike its authors' code a query is the full batch of cached image features,
not a minibatch of fresh crops, so its losses carry no noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from sharpzo_edge.clip.class_prompts import random_context
from sharpzo_edge.types import Doubles

from .method import Moment, Problem
from .search_loop import Ask, Search, watched

TOKENS, INTRINSIC, RANK = 8, 500, 5
REPEATS = 5
STEP_DECAY, PROBE_DECAY = 0.4, 0.1  # exponents of a_t and c_t


def zip_spsa(problem: Problem, max_queries: int, settings: Mapping[str, Any]) -> Iterator[Moment]:
    """settings: a, c: first step and probe; words: start at the initial words, not at 8 random vectors."""
    context = problem.context
    if not settings.get("words", False):
        rng = np.random.default_rng(problem.seed_stream("context"))
        context = random_context(problem.bundle, TOKENS, rng)
    n_tokens, width = context.shape
    rng = np.random.default_rng(problem.seed_stream("projection"))
    q = INTRINSIC // n_tokens
    blocks = [fastfood(rng, q, width) for _ in range(n_tokens)]
    objective = problem.objective_of(context, block_diagonal(blocks).astype(np.float32))
    low_rank = LowRank.start(n_tokens, q, RANK, rng)
    search = spsa_search(low_rank, settings["a"], settings["c"], problem.seed_stream("stage2"))
    yield from watched(objective, search, max_queries)


@dataclass(frozen=True)
class LowRank:
    """U (m, r), s (r,), V (q, r), v (q,), float64."""

    U: Doubles
    s: Doubles
    V: Doubles
    v: Doubles

    @classmethod
    def start(cls, m: int, q: int, rank: int, rng: np.random.Generator) -> Self:
        """U = 0 and v = 0, so W = 0; s = 1, V ~ N(0, 1)."""
        return cls(np.zeros((m, rank)), np.ones(rank), rng.standard_normal((q, rank)), np.zeros(q))

    @property
    def vector(self) -> Doubles:
        return np.concatenate([part.ravel() for part in (self.U, self.s, self.V, self.v)])

    def with_vector(self, x: Doubles) -> LowRank:
        parts = (self.U, self.s, self.V, self.v)
        ends = np.cumsum([part.size for part in parts])[:-1]
        split = np.split(x, ends)
        return LowRank(*(new.reshape(old.shape) for new, old in zip(split, parts, strict=True)))

    @property
    def mixed(self) -> Doubles:
        """W, (m q,): what the Fastfood maps take, token by token."""
        return ((self.U * self.s) @ self.V.T + self.v).ravel()


def spsa_search(start: LowRank, a: float, c: float, seed: np.random.SeedSequence) -> Search:
    """w <- w - a_t g, a_t = a / (t + 1)^0.4, c_t = c / t^0.1, t from 1."""
    rng = np.random.default_rng(seed)
    x, t = start.vector, 0
    while True:
        t += 1
        probe = c / t**PROBE_DECAY
        deltas = segmented_uniform(rng, (REPEATS, x.size))
        points = [start.with_vector(x + sign * probe * d).mixed for d in deltas for sign in (1, -1)]
        losses = yield Ask(np.array(points), start.with_vector(x).mixed)
        g = clipped(spsa_gradient(losses, deltas, probe), np.sqrt(x.size))
        x = x - a / (t + 1) ** STEP_DECAY * g


def segmented_uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> Doubles:
    """+-u, u ~ U[0.5, 1], the sign fair."""
    return rng.choice([-1.0, 1.0], shape) * rng.uniform(0.5, 1.0, shape)


def spsa_gradient(losses: Doubles, deltas: Doubles, probe: float) -> Doubles:
    """Mean over the repeats of [L(w + c D) - L(w - c D)] / (2 c D_j); losses: (2 n,) plus, minus, plus …"""
    slopes = (losses[0::2] - losses[1::2]) / (2 * probe)
    gradient: Doubles = (slopes[:, np.newaxis] / deltas).mean(axis=0)
    return gradient


def clipped(gradient: Doubles, longest: float) -> Doubles:
    length = np.linalg.norm(gradient)
    return gradient if length < longest else gradient * (longest / length)


def fastfood(rng: np.random.Generator, n_in: int, n_out: int) -> Doubles:
    """F as a matrix (n_out, n_in): norm-preserving on average.

    First n_out rows of H G P H B [I; 0], H the unnormalised Walsh-Hadamard matrix of L = 2^k >= both,
    B signs, P a permutation, G ~ N(0, 1), over sqrt(L sum G²) sqrt(n_out / L).
    """
    L = 1 << (max(n_in, n_out) - 1).bit_length()
    signs, order, G = rng.choice([-1.0, 1.0], L), rng.permutation(L), rng.standard_normal(L)
    x = np.zeros((L, n_in))
    x[np.arange(n_in), np.arange(n_in)] = signs[:n_in]
    y = walsh_hadamard(G[:, np.newaxis] * walsh_hadamard(x)[order])
    F: Doubles = y[:n_out] / np.sqrt(n_out * np.square(G).sum())
    return F


def walsh_hadamard(x: Doubles) -> Doubles:
    """H x for the columns of x (L, n), L a power of two; H H = L I."""
    L = len(x)
    half = 1
    while half < L:
        pairs = x.reshape(L // (2 * half), 2, half, -1)
        x = np.stack((pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]), axis=1).reshape(L, -1)
        half *= 2
    return x


def block_diagonal(blocks: list[Doubles]) -> Doubles:
    """Equal blocks (D, q), m of them -> (m D, m q)."""
    D, q = blocks[0].shape
    A = np.zeros((len(blocks) * D, len(blocks) * q))
    for i, block in enumerate(blocks):
        A[i * D : (i + 1) * D, i * q : (i + 1) * q] = block
    return A
