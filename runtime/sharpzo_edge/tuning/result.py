"""The result of `tune`, as --json prints it and run.json keeps it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class HeadResult:
    """The head that was added to the prompt.

    kind:   "gda"
    weight: of its logits beside the prompt's
    val_accuracy, val_loss: on validation pictures, of prompt and head together
    """

    kind: str
    weight: float
    val_accuracy: float
    val_loss: float


@dataclass(frozen=True)
class TuneResult:
    """The result of a run. `tune --json` prints it.

    queries:      all of the run; stage1_queries, stage2_queries: those of each stage
    seconds:      of tuning, from the first query
    peak_rss_mib: of the whole process
    best_queries: queries when the evaluation that is the result was made
    stopped:      why the run ended
    train_*, val_*: of the result, on the shots and on the validation pictures. Accuracies are fractions.
                  val_* are None without validation pictures
    zero_shot_train_loss: loss on the shots at w = 0, with the initial context
    plan:         how the towers ran, and what each phase was planned to take
    prompt:       path of the file that was written
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

    @property
    def opening_queries(self) -> int:
        """Those before stage 1: the zero-shot evaluation, and the same point once more as a check."""
        return self.queries - self.stage1_queries - self.stage2_queries

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)
