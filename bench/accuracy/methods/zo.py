"""Plain and sparse zeroth-order SGD: MeZO (arXiv 2305.17333) and Sparse-MeZO (arXiv 2402.15751).

A step costs two queries, whatever the dimension:

    slope = [L(w + mu m*z) - L(w - mu m*z)] / (2 mu),  z ~ N(0, I)
    w    <- w - eta slope m*z                          m: 1 for MeZO, a mask for Sparse-MeZO

Both start at w = 0, the initial words, with a constant learning rate, and return the last w.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpzo_edge.types import Doubles

from .method import Moment, Problem
from .prompts import DIM, std_of
from .search_loop import Ask, Search, watched

MaskOf = Callable[[Doubles], NDArray[np.bool_]]


def mezo(problem: Problem, max_queries: int, settings: Mapping[str, Any]) -> Iterator[Moment]:
    """settings: std of A, eta, mu."""
    search = zo_sgd(settings["eta"], settings["mu"], all_of, problem.seed_stream("stage2"))
    yield from watched(problem.objective(DIM, std_of(problem, settings)), search, max_queries)


def sparse_mezo(problem: Problem, max_queries: int, settings: Mapping[str, Any]) -> Iterator[Moment]:
    """settings: std of A, eta, mu, sparsity: share of the coordinates, the largest, that a step leaves alone.

    The authors set their thresholds by percentiles of pre-trained weights; w starts at 0, so the percentile
    is taken anew of every step's w.
    """

    def mask_of(w: Doubles) -> NDArray[np.bool_]:
        return smallest(w, settings["sparsity"])

    search = zo_sgd(settings["eta"], settings["mu"], mask_of, problem.seed_stream("stage2"))
    yield from watched(problem.objective(DIM, std_of(problem, settings)), search, max_queries)


def zo_sgd(eta: float, mu: float, mask_of: MaskOf, seed: np.random.SeedSequence, dim: int = DIM) -> Search:
    rng = np.random.default_rng(seed)
    w = np.zeros(dim)
    while True:
        z = mask_of(w) * rng.standard_normal(dim)
        plus, minus = yield Ask(np.array([w + mu * z, w - mu * z]), w)
        w = w - eta * (plus - minus) / (2 * mu) * z


def all_of(w: Doubles) -> NDArray[np.bool_]:
    return np.ones(w.shape, np.bool_)


def smallest(w: Doubles, sparsity: float) -> NDArray[np.bool_]:
    """The coordinates with |w_j| at most the (1 - sparsity) quantile of |w|: all, where all are equal."""
    size = np.abs(w)
    small: NDArray[np.bool_] = size <= np.quantile(size, 1 - sparsity)
    return small
