"""The runs of a development study, and their results on disk: a run that is there already is kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.workers import as_done, workers
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


def all_kept(
    study: str, run: Callable[[Job], dict[str, Any]], jobs: Sequence[Job], processes: int
) -> list[dict[str, Any]]:
    """The same of many jobs, in their order.

    Raises SystemExit when one failed; its traceback is shown.
    """
    with workers(processes) as client:
        found = dict(as_done(client, kept, [(study, run, job) for job in jobs]))
    if failed := sum(each is None for each in found.values()):
        raise SystemExit(f"{failed} runs failed; what they said is above. The others are kept")
    return [found[number] for number in range(len(jobs))]
