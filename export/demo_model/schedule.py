"""What both trainings share: the learning rate's course, and the optimiser."""

from __future__ import annotations

import math
import time

import torch
from torch import nn

LOWEST = 0.01  # of the learning rate, at the end


class Schedule:
    """Warm-up, then a cosine over `steps`; with `minutes` it hurries so as to end in that time."""

    def __init__(self, steps: int, minutes: float | None, rate: float, warm_up: int) -> None:
        self._steps, self._minutes, self._rate, self._warm_up = steps, minutes, rate, warm_up
        self._began = time.monotonic()
        self._progress = 0.0

    def progress(self, step: int) -> float:
        """From 0 to 1; call it once a step. At 1 the step is the last."""
        in_time = (time.monotonic() - self._began) / 60 / self._minutes if self._minutes else 0.0
        self._progress = min(1.0, max((step + 1) / self._steps, in_time))
        return self._progress

    def rate(self, step: int) -> float:
        """The learning rate at the last progress."""
        cosine = LOWEST + (1 - LOWEST) * (1 + math.cos(math.pi * self._progress)) / 2
        return self._rate * cosine * min(1, (step + 1) / self._warm_up)

    def minutes_so_far(self) -> float:
        return round((time.monotonic() - self._began) / 60, 2)


def new_optimizer(*modules: nn.Module | nn.Parameter, weight_decay: float) -> torch.optim.AdamW:
    """AdamW; weights of linear and convolutional layers decay, all others do not."""
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for module in modules:
        if isinstance(module, nn.Parameter):
            others.append(module)
            continue
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                matrix = parameter.ndim > 1 and "embedding" not in name
                (decayed if matrix else others).append(parameter)
    return torch.optim.AdamW(
        [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}],
        betas=(0.9, 0.98),
    )
