"""All figures of a report, from a source. They need no library, so that any process can make them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..wording import NAMED, shortened
from .answered import BY_SHOTS_TOO, Answered
from .data import Curve, Fact, Look, Memory, NoneOfThem, PhaseMemory, Report, Way
from .intervals import estimate
from .judged import Judged, doubtful
from .source import Source

MOST_LOOKS = 200
MOST_CLASSES = 500  # rows of the table
LONGEST_COMMAND = 2000
ABOUT_MIB = 0.05  # peaks are rounded to a tenth
PHASES = ("imports", "listing", "pictures", "image tower", "text tower", "head")  # in their order


def report_of(source: Source) -> Report:
    """All figures of a source. Time and memory grow with the number of pictures and classes, no faster."""
    ways, judged, asked_about = _ways(source), Judged.of(source), doubtful(source)
    return Report(
        kind=source.kind,
        title=source.title,
        is_finished=source.result is not None,
        headline=next((way for way in ways if way.is_used), None),
        facts=_facts(source),
        ways=ways,
        curve=_curve(source),
        on=judged.on,
        n_measured=len(judged.numbers),
        n_wrong=len(judged.wrong),
        confusion=judged.confusion(),
        mistakes=judged.mistakes(),
        classes=tuple(judged.classes[:MOST_CLASSES]),
        n_classes=len(judged.classes),
        doubtful=asked_about,
        worst=judged.worst(asked_about),
        sureness=judged.sureness(),
        none=_none(source),
        memory=_memory(source),
        command=shortened(source.command, LONGEST_COMMAND),
        versions=tuple(source.versions.items()),
    )


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
            way = dataclasses.replace(way, tested=estimate(value, [result["n_images"]]))
        else:
            left_out, val = (result[key][use] for key in ("left_out", "validated"))
            say, vals = _sizes(source.answered, use in BY_SHOTS_TOO), _sizes(source.answered, False)
            way = dataclasses.replace(way, left_out=estimate(left_out, say), validated=estimate(val, vals))
        if way.is_used or way.left_out or way.validated or way.tested:
            found.append(way)
    return tuple(found)


def _sizes(answered: Answered | None, by_shots_too: bool) -> list[int]:
    """How many pictures of each class a way is measured on."""
    if answered is None:
        return []
    counts = answered.has_say if by_shots_too else answered.is_val
    return list(Counter(label for label, has in zip(answered.labels, counts, strict=True) if has).values())


def _curve(source: Source) -> Curve | None:
    looks: list[Look] = []
    stage2: Mapping[str, Any] = {}
    for event in source.events:
        if event["event"] == "look":
            # A run that went on from a checkpoint repeats what came after it.
            looks = [look for look in looks if look.queries < event["queries"]]
            looks.append(_look(event, looks[-1].stage if looks else 0))
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


def _look(event: Mapping[str, Any], stage_before: int) -> Look:
    where, val = event["where"], event["val"] or {}
    return Look(
        where=where,
        stage=next((stage for stage in (1, 2) if where.startswith(f"stage {stage}")), stage_before),
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


def _none(source: Source) -> NoneOfThem | None:
    """None of an evaluation without a threshold, and of a tune of an older version."""
    result = source.result or {}
    found = result.get("none")
    if not found:
        return None
    return NoneOfThem(**found) if source.kind == "tune" else NoneOfThem(**found, pictures=result["n_images"])


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
