"""The initial words, CMA-ES alone, and the product's own presets."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from sharpzo_edge.heads.fit import AUTO
from sharpzo_edge.search import cmaes
from sharpzo_edge.search.losses import logits_of
from sharpzo_edge.tuning.answers import BOTH, HEAD, PROMPT, WORDS, compare
from sharpzo_edge.tuning.loop import Loop, Update
from sharpzo_edge.tuning.methods import method_of
from sharpzo_edge.tuning.objective import Evaluation
from sharpzo_edge.tuning.presets import EDGE, PAPER
from sharpzo_edge.tuning.settings import NOT_OPTIONS, TuneSettings
from sharpzo_edge.tuning.stopping import Limits
from sharpzo_edge.types import Floats, joined

from .method import IN_USE, Logits, Moment, Problem
from .search_loop import Ask, Search, look, moment_of, watched

EMBEDDING = "embedding"  # as a std of A: the initial context's own, so that |w| = 1 moves it by its size
DIM = 512


def std_of(problem: Problem, settings: Mapping[str, Any]) -> float:
    """The std of A's entries that settings["std"] means."""
    std = settings.get("std", 1.0)
    return problem.std if std == EMBEDDING else float(std)


def zero_shot(problem: Problem, max_queries: int, settings: Mapping[str, Any]) -> Iterator[Moment]:
    """The task's template, or the initial words as they are: one query."""
    yield look(problem.spelt_out().objective(DIM), np.zeros(DIM))


def cma(problem: Problem, max_queries: int, settings: Mapping[str, Any]) -> Iterator[Moment]:
    """BBT: CMA-ES with its full covariance from w = 0, nothing else.

    settings: std of A, sigma0, population. Returns the mean; the released codes return a mean of fresh
    samples, which is the mean and noise.
    """
    objective = problem.objective(DIM, std_of(problem, settings))
    own = cmaes.Settings(
        dim=DIM, population=settings.get("population", 40), sigma0=settings["sigma0"], rho=0.0
    )
    yield from watched(objective, cma_search(own, problem.seed_stream("stage1")), max_queries)


def cma_search(settings: cmaes.Settings, seed: np.random.SeedSequence) -> Search:
    search = cmaes.SharpnessAwareCMAES.start(settings, np.zeros(settings.dim), seed)
    while True:
        search.tell((yield Ask(search.ask(settings.population).points, search.solution)))


def paper(problem: Problem, max_queries: int, settings: Mapping[str, Any]) -> Iterator[Moment]:
    """The preset `paper`; settings: std of A, and fields of PaperSettings."""
    changes = {name: value for name, value in settings.items() if name != "std"}
    own = dataclasses.replace(PAPER, projection_std=std_of(problem, settings), **changes)
    yield from preset(problem, max_queries, own)


# All of them, so that a run tells what it was made with when the preset has changed.
# Tangents in 8 bits, as on a processor that `auto` takes them on.
EDGE_SETTINGS = {
    **{name: value for name, value in dataclasses.asdict(EDGE).items() if name not in NOT_OPTIONS},
    "tangents": "int8",
}


def edge(problem: Problem, max_queries: int, settings: Mapping[str, Any]) -> Iterator[Moment]:
    """The preset `edge`; settings: fields of EdgeSettings."""
    yield from preset(problem, max_queries, dataclasses.replace(EDGE, **settings))


def preset(problem: Problem, max_queries: int, settings: TuneSettings) -> Iterator[Moment]:
    """The product's own loop, from its evaluation at w = 0 to its end. Moments come when it is done."""
    started = time.process_time()
    settings = settings.for_context(problem.context.size)
    A = settings.projection(problem.seed_stream("projection"), problem.context)
    objective = problem.objective_of(problem.context, A)
    seen: list[Moment] = []

    def see(update: Update) -> None:
        if update.kind == "evaluation":
            T = update.state.latest.class_features
            seen.append(moment_of(objective, T, time.process_time() - started))

    method = method_of(settings, problem.train, problem.logit_scale)
    loop = Loop(method, objective, problem.val, Limits(max_queries), problem.seed_stream, on_update=see)
    best = loop.run().best
    yield from seen
    yield from ways_to_label(problem, loop.state.opening.class_features, best, objective.queries)


def ways_to_label(
    problem: Problem, words: Floats, best: Evaluation, queries: int, kind: str = AUTO
) -> Iterator[Moment]:
    """What `tune` has at its end: words, prompt, head, both, and the one that it uses. Costs no query.

    The heads are fitted to shots and validation pictures.
    """
    T = best.class_features if best.w.any() else None
    scale, drawn = problem.logit_scale, joined(problem.train, problem.val)
    found = compare(kind, drawn, len(problem.train), words, T, scale)
    ways: dict[str, Logits] = {WORDS: functools.partial(logits_of, class_features=words, logit_scale=scale)}
    if T is not None:
        ways[PROMPT] = functools.partial(logits_of, class_features=T, logit_scale=scale)
    for use, head, of in ((HEAD, found.head, words), (BOTH, found.both, T)):
        if head is not None and of is not None:
            ways[use] = functools.partial(head.head.logits, class_features=of, logit_scale=scale)
    for use, logits in (ways | {IN_USE: ways.get(found.use, ways[WORDS])}).items():
        yield Moment(queries, best.train.loss, logits, use=use)
