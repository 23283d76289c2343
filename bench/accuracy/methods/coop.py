"""CoOp by back-propagation in torch, on the same features: the ceiling for methods of forward passes.

Adam on all shots at once, at one rate, through the bundle's own text tower in torch; its authors take SGD on
minibatches and a falling rate. One query a step: its forward pass, which is also the look; the
backward pass, about two more in time, is not counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from sharpzo_edge.clip.bundle import Bundle
from sharpzo_edge.search.losses import logits_of
from sharpzo_edge.tuning.objective import projection

from .method import Moment, Problem, loss_of
from .prompts import DIM, std_of

if TYPE_CHECKING:
    import torch

    from .torch_tower import TorchTower

STEPS, LOOK_EVERY = 1_000, 20
PATIENCE = 200  # steps without a lower loss on the validation pictures that end a run


def coop_w(problem: Problem, max_queries: int, settings: Mapping[str, Any]) -> Iterator[Moment]:
    """context = p0 + reshape(A w), from w = 0. settings: std of A, rate, steps."""
    import torch

    A = projection(problem.seed_stream("projection"), problem.context.size, DIM, std_of(problem, settings))
    start, A = torch.from_numpy(problem.context.copy()), torch.from_numpy(A)
    yield from adam(
        problem, max_queries, settings, torch.zeros(DIM), lambda w: start + (A @ w).view_as(start)
    )


def coop_context(problem: Problem, max_queries: int, settings: Mapping[str, Any]) -> Iterator[Moment]:
    """The context itself, from the initial words. settings: rate, steps."""
    import torch

    yield from adam(
        problem, max_queries, settings, torch.from_numpy(problem.context.copy()), lambda context: context
    )


def adam(
    problem: Problem,
    max_queries: int,
    settings: Mapping[str, Any],
    initial: torch.Tensor,
    context_of: Callable[[torch.Tensor], torch.Tensor],
) -> Iterator[Moment]:
    """settings: rate, steps. The last moment is of the last step's variable, for one query more."""
    import torch
    from torch.nn import functional

    class_features = tower_of(problem.bundle).classes(problem.class_names, len(problem.context))
    X = torch.from_numpy(np.array(problem.train.features[: len(problem.train)]))
    labels, scale = torch.from_numpy(problem.train.labels), problem.logit_scale
    variable = torch.nn.Parameter(initial)
    optimizer = torch.optim.Adam([variable], settings["rate"])
    last = min(settings.get("steps", STEPS), max_queries - 1)
    lowest, lowest_at = math.inf, 0
    for step in range(last + 1):
        T = class_features(context_of(variable))
        loss = functional.cross_entropy(scale * X @ T.T, labels)
        if step % LOOK_EVERY == 0 or step == last:
            logits = partial(logits_of, class_features=T.detach().numpy(), logit_scale=scale)
            yield Moment(step + 1, loss.item(), logits)
            if len(problem.val):
                now = loss_of(logits(problem.val.features[:]), problem.val.labels)
                if now < lowest:
                    lowest, lowest_at = now, step
                elif step - lowest_at >= PATIENCE:
                    return
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def load(bundle: Bundle) -> None:
    """So that no run's seconds hold torch's import or the reading of the model."""
    tower_of(bundle)


@cache
def tower_of(bundle: Bundle) -> TorchTower:
    from .torch_tower import TorchTower

    return TorchTower(bundle)
