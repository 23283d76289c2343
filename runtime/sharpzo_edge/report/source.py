"""What a report is made from: JSON of a result, the events of its log, and the answers to its pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..run.files import read_checked_json, read_limited
from ..run.folder import WorkFolder
from .answered import Answered, load_answered

LOG_LIMIT_BYTES = 32 << 20


@dataclass(frozen=True)
class Source:
    """A result, finished or on its way.

    kind:     "tune" or "eval"
    title:    of the report: the name of the prompt file, or of the folder that was labelled
    result:   what --json prints; None while a tune goes on
    asked:    what decides a tune's numbers, by the names of options; empty for an evaluation
    events:   of the log since the run began
    answered: None while a tune goes on, and where no answers were judged
    command:  as it could be typed;  versions: of what worked on it, by name
    """

    kind: str
    title: str
    result: Mapping[str, Any] | None
    asked: Mapping[str, Any] = field(default_factory=dict)
    events: tuple[Mapping[str, Any], ...] = ()
    answered: Answered | None = None
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)


def source_of_tune(output: Path) -> Source:
    """Of a tune that writes or has written `output`: what its work folder holds at this moment.

    What is missing or damaged is left out. Raises SharpzoError when the system refuses to read a file.
    """
    work = WorkFolder.of(output)
    record = read_checked_json(work.record)
    record = record if isinstance(record, dict) else {}
    result = record.get("result")
    events = _since_it_began(_events(work.log))
    begun: dict[str, Any] = next((each for each in reversed(events) if each["event"] == "begun"), {})
    return Source(
        kind="tune",
        title=output.name,
        result=result,
        asked=record.get("made_for") or {},
        events=tuple(events),
        answered=load_answered(work.answers) if result else None,
        command=begun.get("command", ""),
        versions=begun.get("versions", {}),
    )


def _events(log: Path) -> list[dict[str, Any]]:
    """The lines of a log; torn ones are passed over."""
    try:
        lines = read_limited(log, LOG_LIMIT_BYTES).splitlines()
    except (OSError, ValueError):
        return []
    found = []
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and "event" in event:
            found.append(event)
    return found


def _since_it_began(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The events of the present run: a log also holds those of the runs that --restart threw away."""
    starts = [i for i, event in enumerate(events) if event["event"] == "begun" and event.get("is_new")]
    return events[starts[-1] :] if starts else events
