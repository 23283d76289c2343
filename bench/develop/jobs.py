"""One run of a development study, and its result on disk: a run that is there already is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sharpzo_edge.run.files import write_json


@dataclass(frozen=True)
class Job:
    """Which run. shots, n_val: pictures a class; candidate: a name of the study's own"""

    work: Path
    model: str
    task: str
    shots: int
    n_val: int
    candidate: str
    seed: int

    def place(self, study: str) -> Path:
        words = (self.model, self.task, str(self.shots), str(self.n_val), self.candidate, str(self.seed))
        return self.work / study / f"{'-'.join(words).replace(' ', '_').replace('/', '_')}.json"


def kept(study: str, run: Callable[[Job], dict[str, Any]], job: Job) -> dict[str, Any]:
    """What `run` found, now or before."""
    place = job.place(study)
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        write_json(place, run(job))
        print(place.stem, flush=True)
    found: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
    return found
