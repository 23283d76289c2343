"""Server-sent events: the run as it goes on, from its own log and from what the system tells of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from .tuning_run import TuningRun

EVERY_SECONDS = 0.5


async def events(run: TuningRun) -> AsyncIterator[str]:
    """First all that there is, then what is new, for as long as somebody listens.

    "run": state, status, error and memory;  "looks": all evaluations of the run so far;  "look": a new one
    """
    shown: dict[str, Any] | None = None
    n_shown, first = -1, None
    while True:
        run.log.read()
        now = _now(run)
        if now != shown:
            yield _event("run", now)
        else:
            yield ": still here\n\n"  # so that a listener that has gone is noticed
        shown = now
        looks = run.log.looks
        if n_shown < 0 or len(looks) < n_shown or looks[:1] != first:
            yield _event("looks", looks)
        else:
            for look in looks[n_shown:]:
                yield _event("look", look)
        n_shown, first = len(looks), looks[:1]
        await asyncio.sleep(EVERY_SECONDS)


def _now(run: TuningRun) -> dict[str, Any]:
    figures = run.figures
    return {
        "state": run.state,
        "status": run.status,
        "error": run.error,
        "said": run.log.said[-3:],
        "rss_mib": _rounded(figures.rss_mib),
        "peak_rss_mib": _rounded(figures.peak_rss_mib),
    }


def _rounded(mib: float | None) -> int | None:
    return None if mib is None else round(mib)


def _event(name: str, value: Any) -> str:
    return f"event: {name}\ndata: {json.dumps(value)}\n\n"
