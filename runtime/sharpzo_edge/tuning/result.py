"""The result of `tune`, as --json prints it and run.json keeps it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from .answers import USES, ByUse
from .known import MOST_SHARE


@dataclass(frozen=True)
class HeadResult:
    """The head on the words.

    kind:   "kernel", "ridge" or "gda"
    weight: of its logits beside those of the words
    val_accuracy, val_loss: on validation pictures, each left out of its fit; None without them, or where too
        few classes have two pictures
    """

    kind: str
    weight: float
    val_accuracy: float | None
    val_loss: float | None


@dataclass(frozen=True)
class DoubtfulPicture:
    """A picture that looks least like its label: perhaps it was labelled wrongly.

    image: below the folder of pictures;  label: its class;  answer: the class that the head gives it
    """

    image: str
    label: str
    answer: str


@dataclass(frozen=True)
class NoneResult:
    """When the way in use calls a picture none of the classes.

    share:     of known pictures, that may be called so, as it was asked
    pictures:  how many known ones were left out to find that; 0 where none could be
    threshold: the largest logit below which a picture is none; None where these are too few
    called_none: the share of them that is below it
    strangers: the share of strangers that is below it, each class left out in turn, every class alike
    classes:   how many were left out
    """

    share: float
    pictures: int
    threshold: float | None
    called_none: float | None
    strangers: float | None
    classes: int

    def __post_init__(self) -> None:
        if not 0 < self.share <= MOST_SHARE:
            raise ValueError(f"share must be above 0 and up to {MOST_SHARE}, not {self.share}")


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
    use:          what predict and eval will use: "words", "prompt", "head" or "both"
    left_out, validated, covered: see Answers; accuracies weigh every class alike
    by_halves:    accuracy of the head when it is fitted to half of the pictures
    doubtful:     the pictures to look at, the worst first
    none:         when a picture is none of the classes; None of a run of an older version
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
    use: str
    left_out: ByUse
    validated: ByUse
    covered: ByUse
    by_halves: float | None
    doubtful: tuple[DoubtfulPicture, ...]
    none: NoneResult | None

    def __post_init__(self) -> None:
        if self.use not in USES:
            raise ValueError(f"use must be one of {', '.join(USES)}, not {self.use[:40]!r}")

    @property
    def opening_queries(self) -> int:
        """Those before stage 1: the zero-shot evaluation, and the same point once more as a check."""
        return self.queries - self.stage1_queries - self.stage2_queries

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)
