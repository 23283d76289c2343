"""`tune --plan`: the plan of a tune, and how long it would take. Tunes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..memory.plan import Plan
from ..requests import AnyPath, PreviewRequest, by_keywords
from ..run.progress import caller_of
from ..tuning.prepare import Prepared, check, prepare
from .figures import read_figures
from .speed import image_seconds, text_seconds


@dataclass(frozen=True)
class Preview:
    """queries, pictures: of the whole run; seconds: about, in the towers, decoding and arithmetic aside.

    queries, seconds: the most;  likely_queries, likely_seconds: when patience is likely to end it
    board: whose figures the seconds are of; None: this machine's, measured now
    """

    plan: Plan
    queries: float
    queries_per_second: float
    pictures: int
    pictures_per_second: float
    seconds: float
    likely_queries: float
    likely_seconds: float
    board: str | None

    def to_json(self) -> dict[str, Any]:
        return {
            "plan": self.plan.to_json(),
            "queries": self.queries,
            "queries_per_second": self.queries_per_second,
            "pictures": self.pictures,
            "pictures_per_second": self.pictures_per_second,
            "seconds": self.seconds,
            "likely_queries": self.likely_queries,
            "likely_seconds": self.likely_seconds,
            "board": self.board,
        }


@dataclass(frozen=True)
class _Speed:
    """Seconds a query, a direction and a picture. direction: None without tangents."""

    query: float
    direction: float | None
    picture: float
    board: str | None = None


def preview_of(request: PreviewRequest) -> Preview:
    """The plan, and how long it would take on this machine by a batch through each tower, or by figures.

    Arguments are those of `tune`, and `figures`. Raises what `tune` would raise before its work begins, and
    UsageError for figures of another bundle.
    """
    check(request)
    ready = prepare(request)
    caller = caller_of(request.on_progress, request.stop)
    for note in ready.notes:
        caller.say(f"note: {note}")
    speed = _measured(ready) if request.figures is None else _by_figures(ready, request.figures)
    query = speed.query
    if speed.direction is not None:
        query += (speed.direction - query) * ready.settings.tangents_share
    n_queries = ready.settings.expected_queries
    n_queries = min(n_queries, ready.limits.max_queries or n_queries)
    n_pictures = ready.few_shot.n_rows(ready.folder)
    likely = min(n_queries, ready.settings.likely_queries)

    def seconds(queries: float) -> float:
        tuning = queries * query
        if request.max_minutes is not None:
            tuning = min(tuning, request.max_minutes * 60)
        return n_pictures * speed.picture + tuning

    return Preview(
        ready.plan,
        n_queries,
        1 / query,
        n_pictures,
        1 / speed.picture,
        seconds(n_queries),
        likely,
        seconds(likely),
        speed.board,
    )


preview = by_keywords(PreviewRequest)(preview_of)


def _measured(ready: Prepared) -> _Speed:
    query, direction = text_seconds(ready.bundle, ready.plan.text, ready.context, ready.prompts)
    return _Speed(query, direction, image_seconds(ready.bundle, ready.plan.image))


def _by_figures(ready: Prepared, path: AnyPath) -> _Speed:
    """Figures of another number of classes: a pass takes as long as it has rows."""
    figures = read_figures(path, ready.bundle)
    share = ready.prompts.n_rows / figures.query_rows
    direction = figures.direction_seconds if ready.plan.text.tangents else None
    return _Speed(
        figures.query_seconds * share,
        None if direction is None else direction * share,
        figures.picture_seconds,
        figures.board,
    )
