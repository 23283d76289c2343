"""SharpZO as its released code computes it (commit 13b491f, `--prompt_trainer zo`), not as its paper says.

Stage 1, every generation of S candidates x_i:

    centre = mean of S fresh samples that nobody is told; the first generation's are U[0, 1)
    eps    = (rho / sqrt S) g / |g|,  g = CGE at the centre: rho is lost on S equal rows of one norm
    told   : x_i, with the losses at x_i + eps

Stage 2 starts from the mean of S more fresh samples. Its buffer v starts with the last g and is never
cleared, so it is momentum of 1; and it has S rows from stage 1, of which the prompt is the mean, so every
step but the first sees the mean of S independent directions: the step size over S, mu over sqrt S. The
last g and the first step's estimate so stay in v in full strength, S times that of any later one.

    v <- v + RGE(w, mu, z);                w <- w - eta v      first step
    v <- v + RGE(w, mu / sqrt S, z) / S;   w <- w - eta v      every other
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from sharpzo_edge.search import cmaes
from sharpzo_edge.search.estimators import CoordinateWise
from sharpzo_edge.types import Doubles

from .method import Moment, Problem
from .prompts import DIM, std_of
from .search_loop import Ask, Search, watched

POPULATION, RHO, MU_CGE, MU_RGE = 40, 0.1, 1e-3, 1e-3
BOUNDS = 5.0


def released(problem: Problem, max_queries: int, settings: Mapping[str, Any]) -> Iterator[Moment]:
    """settings: std of A, sigma0, eta; change_point and steps as in the paper's preset."""
    objective = problem.objective(DIM, std_of(problem, settings))
    cma = cmaes.Settings(dim=DIM, population=POPULATION, sigma0=settings["sigma0"], rho=0.0, bounds=BOUNDS)
    search = released_search(
        cma,
        settings.get("change_point", 100),
        settings.get("steps", 20_000),
        settings["eta"],
        problem.seed_stream("stage1"),
        problem.seed_stream("stage2"),
    )
    yield from watched(objective, search, max_queries)


def released_search(
    settings: cmaes.Settings,
    change_point: int,
    steps: int,
    eta: float,
    seed1: np.random.SeedSequence,
    seed2: np.random.SeedSequence,
) -> Search:
    own, fresh_seed = seed1.spawn(2)
    cma = cmaes.SharpnessAwareCMAES.start(settings, np.zeros(settings.dim), own)
    fresh = np.random.default_rng(fresh_seed)
    S = settings.population
    # What the prompt is before the first generation, to the code and its CGE; the words themselves are
    # looked at so that every curve begins at zero-shot.
    centre, shown = fresh.random((S, settings.dim)).mean(axis=0), np.zeros(settings.dim)
    gradient = np.zeros(settings.dim)
    for _ in range(change_point):
        sweep = CoordinateWise(centre, MU_CGE)
        gradient = sweep.gradient((yield Ask(sweep.points(0, sweep.n_points), shown)))
        eps = cmaes.sharpness_step(gradient, RHO / math.sqrt(S))
        cma.tell((yield Ask(cma.state.candidates + eps, shown)))
        shown = centre = cmaes.sampled(cma.state, settings, fresh).candidates.mean(axis=0)
    yield from uncleared_descent(centre, gradient, S, steps - change_point, eta, MU_RGE, seed2)


def uncleared_descent(
    w: Doubles, v: Doubles, S: int, steps: int, eta: float, mu: float, seed: np.random.SeedSequence
) -> Search:
    """Stage 2 with the S rows written out as what their mean does: momentum 1, eta / S and mu / sqrt S."""
    rng = np.random.default_rng(seed)
    for step in range(steps):
        z = rng.standard_normal(w.size)
        probe, weight = (mu, 1.0) if step == 0 else (mu / math.sqrt(S), 1 / S)
        plus, minus = yield Ask(np.array([w + probe * z, w - probe * z]), w)
        v = v + weight * (plus - minus) / (2 * probe) * z
        w = w - eta * v
    yield Ask(np.empty((0, w.size)), w)
