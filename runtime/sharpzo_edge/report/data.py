"""What a report says: the tree of its figures. Their names are those of the JSON that they come from."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Estimate:
    """An accuracy, a fraction, and its 95 % interval by Wilson.

    pictures: how many it is measured on. Where every class weighs alike, as in a tune, the interval is that
              of Kish's effective number of pictures, K^2 / sum(1 / n_k): the same with as many of each class
    low, high: None where the number of pictures is not known
    """

    value: float
    low: float | None
    high: float | None
    pictures: int | None


@dataclass(frozen=True)
class Way:
    """A way to label. left_out, validated: of a tune; tested: of an evaluation. None: not measured."""

    use: str
    name: str
    is_used: bool
    left_out: Estimate | None = None
    validated: Estimate | None = None
    tested: Estimate | None = None


@dataclass(frozen=True)
class Look:
    """An evaluation of a tune. stage: 0 before stage 1;  val_*: None without validation pictures"""

    where: str
    stage: int
    queries: int
    seconds: float
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None


@dataclass(frozen=True)
class Curve:
    """How a tune went. stage2_*: where stage 2 began; None where it did not; best_queries: of the result"""

    looks: tuple[Look, ...]
    n_looks: int
    stage2_queries: int | None
    stage2_seconds: float | None
    best_queries: int | None


@dataclass(frozen=True)
class Mistake:
    """A label that was answered with another class, and how often."""

    label: str
    answer: str
    count: int


@dataclass(frozen=True)
class Confusion:
    """counts[i][j]: pictures of class i that were answered as class j. Many classes stand in groups.

    groups: the names of the classes of each row
    """

    names: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...]
    counts: tuple[tuple[int, ...], ...]

    @property
    def is_grouped(self) -> bool:
        return any(len(group) > 1 for group in self.groups)


@dataclass(frozen=True)
class ClassFigures:
    """low, high: of the accuracy;  taken_for: the class that its pictures were most often taken for."""

    name: str
    pictures: int
    right: int
    accuracy: float
    low: float
    high: float
    taken_for: str
    taken_count: int


@dataclass(frozen=True)
class Sureness:
    """Answers whose probability is from `low` up to `high`: do they mean what they say?

    said: their mean probability;  right: the share of them that is right
    """

    low: float
    high: float
    said: float
    right: Estimate


@dataclass(frozen=True)
class NoneOfThem:
    """When a picture is none of the classes. See tuning.result.NoneResult, whose fields these are.

    classes:     of a tune; None of an evaluation
    n_strangers: of an evaluation; None of a tune
    """

    share: float
    pictures: int
    threshold: float | None
    called_none: float | None
    strangers: float | None
    classes: int | None = None
    n_strangers: int | None = None


@dataclass(frozen=True)
class Picture:
    """A picture to look at.

    image: below the folder
    score, label_score: probabilities of the answer and of the label; None where they are not known
    thumbnail: an address for <img>, or None, and then `why_none` may say why
    """

    image: str
    label: str
    answer: str
    score: float | None
    label_score: float | None
    thumbnail: str | None = None
    why_none: str = ""


@dataclass(frozen=True)
class PhaseMemory:
    """MiB of the process. measured_mib: None where none was measured, or an earlier phase took more."""

    name: str
    planned_mib: float
    measured_mib: float | None


@dataclass(frozen=True)
class Memory:
    """budget: as the command has it;  budget_mib: None without a limit;  peak_rss_mib: None before the end"""

    phases: tuple[PhaseMemory, ...]
    peak_mib: float
    peak_rss_mib: float | None
    budget: str
    budget_mib: float | None


@dataclass(frozen=True)
class Fact:
    """A figure of the result. key: its name in the JSON;  value: a number or text;  unit: s, MiB or none"""

    key: str
    name: str
    value: Any
    unit: str = ""


@dataclass(frozen=True)
class Report:
    """A whole report. What is None, "" or empty is left out of it.

    headline: the way in use, and its accuracy on pictures that it has not learnt from
    on:       which pictures mistakes, classes and the worst pictures are of
    n_measured, n_wrong: how many these are, and how many of them are answered wrongly
    n_classes: of which `classes` may have only the worst
    doubtful: those that a tune's result names;  worst: the worst of the others
    sureness: whether probabilities mean what they say, from low to high
    """

    kind: str
    title: str
    is_finished: bool
    headline: Way | None
    facts: tuple[Fact, ...]
    ways: tuple[Way, ...]
    curve: Curve | None
    on: str
    confusion: Confusion | None
    mistakes: tuple[Mistake, ...]
    classes: tuple[ClassFigures, ...]
    n_classes: int
    doubtful: tuple[Picture, ...]
    worst: tuple[Picture, ...]
    n_measured: int
    n_wrong: int
    sureness: tuple[Sureness, ...]
    none: NoneOfThem | None
    memory: Memory | None
    command: str
    versions: tuple[tuple[str, str], ...]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """Those that have a thumbnail, or could have one."""
        return (*self.doubtful, *self.worst)
