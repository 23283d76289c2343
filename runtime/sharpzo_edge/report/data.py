"""Every figure of a report, from a source. It needs no library, so that any process can make it.

Names of figures are those of the JSON that they come from. What is drawn of them is in `charts`.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..wording import NAMED
from .answered import BY_SHOTS_TOO, Answered
from .groups import grouped
from .source import Source

Z95 = 1.959963984540054  # of the normal distribution, for 95 %
MOST_LOOKS = 200
MOST_CLASSES = 500  # rows of the table
MOST_CELLS = 40  # classes with a row of their own in the confusion matrix
MOST_MISTAKES = 12
MOST_WORST = 50
LONGEST_NAME = 60  # characters of a name of a class or a file
LONGEST_COMMAND = 2000
ABOUT_MIB = 0.05  # peaks are rounded to a tenth
PHASES = ("imports", "listing", "pictures", "image tower", "text tower", "head")  # in their order


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
    memory: Memory | None
    command: str
    versions: tuple[tuple[str, str], ...]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """Those that have a thumbnail, or could have one."""
        return (*self.doubtful, *self.worst)


def report_of(source: Source) -> Report:
    """All figures of a source. Time and memory grow with the number of pictures and classes, no faster."""
    result, answered = source.result, source.answered
    ways = _ways(source)
    measured, on = _measured(source)
    counts = _confusions(answered, measured) if answered else Counter()
    by_class = _classes(answered, measured, counts) if answered else []
    wrong = [n for n in measured if answered and not answered.is_right(n)]
    doubtful = _doubtful(source)
    return Report(
        kind=source.kind,
        title=source.title,
        is_finished=result is not None,
        headline=next((way for way in ways if way.is_used), None),
        facts=_facts(source),
        ways=ways,
        curve=_curve(source),
        on=on,
        confusion=_matrix(answered, counts) if answered and measured else None,
        mistakes=_mistakes(answered, counts) if answered else (),
        classes=tuple(by_class[:MOST_CLASSES]),
        n_classes=len(by_class),
        doubtful=doubtful,
        worst=_worst(answered, wrong, doubtful) if answered else (),
        n_measured=len(measured),
        n_wrong=len(wrong),
        memory=_memory(source),
        command=shortened(source.command, LONGEST_COMMAND),
        versions=tuple(source.versions.items()),
    )


def wilson(fraction: float, n: float) -> tuple[float, float]:
    """The 95 % interval of a fraction that was seen in n trials (E. B. Wilson 1927). n > 0.

    >>> low, high = wilson(0.9, 100)
    >>> round(low, 4), round(high, 4)
    (0.8256, 0.9448)
    """
    z2 = Z95 * Z95 / n
    middle = (fraction + z2 / 2) / (1 + z2)
    half = Z95 / (1 + z2) * math.sqrt(fraction * (1 - fraction) / n + z2 / (4 * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def effective(sizes: Iterable[int]) -> float:
    """Kish's number of pictures of a mean over classes of these sizes, all of which weigh alike.

    >>> effective([4, 4]), effective([1, 7])
    (8.0, 3.5)
    """
    there = [size for size in sizes if size]
    return len(there) ** 2 / sum(1 / size for size in there)


def shortened(text: str, longest: int = LONGEST_NAME) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


# The ways to label ------------------------------------------------------------------------------


def _ways(source: Source) -> tuple[Way, ...]:
    result = source.result
    if result is None:
        return ()
    in_use = result["use"]
    found = []
    for use, name in NAMED.items():
        way = Way(use, name, use == in_use)
        if source.kind == "eval":
            value = result["by"][use]
            way = dataclasses.replace(way, tested=_estimate(value, [result["n_images"]]))
        else:
            left_out, val = (result[key][use] for key in ("left_out", "validated"))
            say, vals = _sizes(source.answered, use in BY_SHOTS_TOO), _sizes(source.answered, False)
            way = dataclasses.replace(way, left_out=_estimate(left_out, say), validated=_estimate(val, vals))
        if way.is_used or way.left_out or way.validated or way.tested:
            found.append(way)
    return tuple(found)


def _sizes(answered: Answered | None, by_shots_too: bool) -> list[int]:
    """How many pictures of each class a way is measured on."""
    if answered is None:
        return []
    counts = answered.has_say if by_shots_too else answered.is_val
    return list(Counter(label for label, has in zip(answered.labels, counts, strict=True) if has).values())


def _estimate(value: float | None, sizes: Sequence[int]) -> Estimate | None:
    if value is None:
        return None
    if not any(sizes):
        return Estimate(value, None, None, None)
    low, high = wilson(value, effective(sizes))
    return Estimate(value, low, high, sum(sizes))


# How a tune went ----------------------------------------------------------------------------------


def _curve(source: Source) -> Curve | None:
    looks: list[Look] = []
    stage2: Mapping[str, Any] = {}
    for event in source.events:
        if event["event"] == "look":
            # A run that went on from a checkpoint repeats what came after it.
            looks = [look for look in looks if look.queries < event["queries"]]
            looks.append(_look(event))
        elif event["event"] == "stage":
            stage2 = event
    if len(looks) < 2:
        return None
    return Curve(
        _thinned(looks, MOST_LOOKS),
        len(looks),
        stage2.get("queries"),
        stage2.get("seconds"),
        source.result["best_queries"] if source.result else None,
    )


def _look(event: Mapping[str, Any]) -> Look:
    where, val = event["where"], event["val"] or {}
    return Look(
        where=where,
        stage=0 if where == "zero-shot" else 2 if where.startswith("stage 2") else 1,
        queries=event["queries"],
        seconds=event["seconds"],
        train_loss=event["train"]["loss"],
        train_accuracy=event["train"]["accuracy"],
        val_loss=val.get("loss"),
        val_accuracy=val.get("accuracy"),
    )


def _thinned(looks: Sequence[Look], most: int) -> tuple[Look, ...]:
    """At most so many of them, evenly spread; the first and the last stay."""
    if len(looks) <= most:
        return tuple(looks)
    return tuple(looks[round(i * (len(looks) - 1) / (most - 1))] for i in range(most))


# Pictures and classes -----------------------------------------------------------------------------


def _measured(source: Source) -> tuple[list[int], str]:
    """Numbers of the pictures that count, and in words which they are."""
    answered = source.answered
    if answered is None:
        return [], ""
    if source.kind == "eval":
        return answered.measured, "the folder’s pictures"
    if not answered.measured:  # a prompt without validation pictures
        return list(range(len(answered.files))), "the shots, which it was tuned on"
    if answered.use in BY_SHOTS_TOO:
        return answered.measured, "the drawn pictures, each left out of what answers it"
    return answered.measured, "the validation pictures"


def _confusions(answered: Answered, measured: Iterable[int]) -> Counter[tuple[int, int]]:
    """How often each label got each answer, right ones too."""
    return Counter((answered.labels[n], answered.answers[n]) for n in measured)


def _classes(
    answered: Answered, measured: Iterable[int], counts: Counter[tuple[int, int]]
) -> list[ClassFigures]:
    """Of every class that has pictures, the worst first."""
    sizes = Counter(answered.labels[n] for n in measured)
    taken: dict[int, tuple[int, int]] = {}
    for (label, answer), count in sorted(counts.items()):
        if label != answer and count > taken.get(label, (0, 0))[0]:
            taken[label] = count, answer
    found = []
    for k, n in sorted(sizes.items()):
        right, (taken_count, answer) = counts[k, k], taken.get(k, (0, 0))
        found.append(
            ClassFigures(
                name=shortened(answered.names[k]),
                pictures=n,
                right=right,
                accuracy=right / n,
                low=wilson(right / n, n)[0],
                high=wilson(right / n, n)[1],
                taken_for=shortened(answered.names[answer]) if taken_count else "",
                taken_count=taken_count,
            )
        )
    return sorted(found, key=lambda each: (each.accuracy, -each.pictures))


def _mistakes(answered: Answered, counts: Counter[tuple[int, int]]) -> tuple[Mistake, ...]:
    """The most frequent confusions of two classes."""
    wrong = [(count, pair) for pair, count in counts.items() if pair[0] != pair[1]]
    wrong.sort(key=lambda each: (-each[0], each[1]))
    names = answered.names
    return tuple(
        Mistake(shortened(names[label]), shortened(names[answer]), count)
        for count, (label, answer) in wrong[:MOST_MISTAKES]
    )


def _matrix(answered: Answered, counts: Counter[tuple[int, int]]) -> Confusion:
    groups = grouped(len(answered.names), counts, MOST_CELLS)
    row_of = {k: row for row, group in enumerate(groups) for k in group}
    cells = [[0] * len(groups) for _ in groups]
    for (label, answer), count in counts.items():
        cells[row_of[label]][row_of[answer]] += count
    named = tuple(tuple(shortened(answered.names[k]) for k in group) for group in groups)
    names = tuple(group[0] + f" + {len(group) - 1}" * (len(group) > 1) for group in named)
    return Confusion(names, named, tuple(map(tuple, cells)))


def _worst(answered: Answered, wrong: Iterable[int], shown: Iterable[Picture]) -> tuple[Picture, ...]:
    """The wrong pictures whose label seemed least likely, without those that are shown already."""
    already = {picture.image for picture in shown}
    worst = sorted(wrong, key=lambda n: (answered.label_scores[n], n))[: MOST_WORST + len(already)]
    found = (_picture(answered, n) for n in worst)
    return tuple(picture for picture in found if picture.image not in already)[:MOST_WORST]


def _picture(answered: Answered, n: int) -> Picture:
    names = answered.names
    return Picture(
        image=answered.files[n],
        label=names[answered.labels[n]],
        answer=names[answered.answers[n]],
        score=answered.scores[n],
        label_score=answered.label_scores[n],
    )


def _doubtful(source: Source) -> tuple[Picture, ...]:
    """Those that the result names, with their scores where the way in use is the one that found them."""
    if source.result is None or source.kind == "eval":
        return ()
    answered = source.answered if source.answered and source.answered.use == "head" else None
    numbers = {file: n for n, file in enumerate(answered.files)} if answered else {}
    found = []
    for each in source.result["doubtful"]:
        n = numbers.get(each["image"])
        scores = (None, None) if answered is None or n is None else _scores(answered, n)
        found.append(Picture(each["image"], each["label"], each["answer"], *scores))
    return tuple(found)


def _scores(answered: Answered, n: int) -> tuple[float, float]:
    return answered.scores[n], answered.label_scores[n]


# Memory and facts ---------------------------------------------------------------------------------


def _memory(source: Source) -> Memory | None:
    result = source.result
    if result is None or source.kind == "eval":
        return None
    measured = _peaks(source.events)
    plan, budget = result["plan"], str(source.asked.get("--memory-budget", ""))
    planned = plan["phases_mib"]
    names = sorted(planned, key=lambda name: PHASES.index(name) if name in PHASES else len(PHASES))
    phases = tuple(PhaseMemory(name, planned[name], measured.get(name)) for name in names)
    limit = float(budget.removesuffix("MiB")) if budget.endswith("MiB") else None
    return Memory(phases, plan["peak_mib"], result["peak_rss_mib"] if measured else None, budget, limit)


def _peaks(events: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The peaks of the process by the phase that reached them."""
    found: dict[str, float] = {}
    before = 0.0
    for event in events:
        if event["event"] == "begun":
            before = 0.0
        elif event["event"] == "phase":
            name, peak = event["phase"], event["peak_rss_mib"]
            if peak > before + ABOUT_MIB:
                found[name] = max(peak, found.get(name, 0.0))
            before = max(before, peak)
    return found


def _facts(source: Source) -> tuple[Fact, ...]:
    result, answered = source.result, source.answered
    if result is None:
        return ()
    if source.kind == "eval":
        return (
            Fact("n_images", "pictures", result["n_images"]),
            Fact("n_classes", "classes", result["n_classes"]),
        )
    of_pictures = []
    if answered:
        n_val = sum(answered.is_val)
        of_pictures = [
            Fact("n_classes", "classes", len(answered.names)),
            Fact("n_shots", "pictures to tune on", len(answered.files) - n_val),
            Fact("n_val", "to validate", n_val),
        ]
    return (
        *of_pictures,
        Fact("queries", "queries", result["queries"]),
        Fact("seconds", "of tuning", result["seconds"], "s"),
        Fact("peak_rss_mib", "peak memory", result["peak_rss_mib"], "MiB"),
        Fact("stopped", "stopped", result["stopped"]),
    )
