"""The result of a tune: what it prints, and what run.json keeps."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class HeadResult:
    """val_accuracy, val_loss: of prompt and head together."""

    kind: str
    weight: float
    val_accuracy: float
    val_loss: float


@dataclass(frozen=True)
class TuneResult:
    """What a run came to; `tune --json` prints it.

    queries:      all; stage1_queries, stage2_queries: of them in the stages
    seconds:      of tuning, from the first query; peak_rss_mib: of the whole process
    best_queries: queries after which the result was found
    stopped:      why the run ended
    train_*, val_*: of the result, on shots and validation pictures; accuracies are fractions; None without
                  validation pictures
    zero_shot_train_loss: on the shots, with the initial words
    plan:         how it ran, and what every phase was planned to take
    prompt:       the file that was written
    head:         None without a head
    """

    queries: int
    stage1_queries: int
    stage2_queries: int
    seconds: float
    peak_rss_mib: float
    best_queries: int
    stopped: str
    train_loss: float
    train_accuracy: float
    val_accuracy: float | None
    val_loss: float | None
    zero_shot_train_loss: float
    plan: dict[str, Any]
    prompt: str
    head: HeadResult | None

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)
