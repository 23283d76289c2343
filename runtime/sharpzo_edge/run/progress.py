"""What a long work tells its caller while it goes on, and how its caller stops it.

The work knows neither terminal nor signals. It tells a function, and asks another one now and then whether
it should stop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import InterruptedRunError
from ..process_memory import is_governed, peak_rss_mib


@dataclass(frozen=True)
class Progress:
    """One piece of news.

    kind:  "said", a line to keep; "status", a line that the next one replaces; "begun", a process begins to
           work on a run; "phase", one of the plan's phases has ended; "evaluation", what the prompt is worth
           at this moment; "stage", stage 1 has ended; "done", the end of a run
    text:  for people
    figures: the same in numbers. Of "begun": whether the run is new, the command, versions. Of a phase: its
           name, and the peak memory of the process so far. Of an evaluation: where, queries, seconds, for
           train and val loss and accuracy, and the memory now. Of a stage: queries and seconds so far. Of the
           end: what `tune --json` prints
    is_first: the first evaluation of a run: show it, however little time has passed
    """

    kind: Literal["said", "status", "begun", "phase", "evaluation", "stage", "done"]
    text: str
    figures: Mapping[str, Any] = field(default_factory=dict)
    is_first: bool = False


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class Caller:
    """Who asked for the work: is told of it, and may stop it.

    listeners: are told everything, in their order
    stop:      is asked before every picture and after every batch of queries; True ends the work there
    """

    listeners: tuple[OnProgress, ...] = ()
    stop: Callable[[], bool] | None = None

    def tell(self, progress: Progress) -> None:
        for listener in self.listeners:
            listener(progress)

    def say(self, text: str) -> None:
        """A line that stays."""
        self.tell(Progress("said", text))

    def status(self, text: str) -> None:
        """A line that the next one replaces."""
        self.tell(Progress("status", text))

    def phase_ended(self, name: str) -> None:
        """One of the plan's phases has ended. It is told where the process is governed, as plans reckon."""
        if is_governed():
            peak = round(peak_rss_mib(), 1)
            self.tell(
                Progress("phase", f"{name}: at most {peak} MiB so far", {"phase": name, "peak_rss_mib": peak})
            )

    @property
    def wants_to_stop(self) -> bool:
        return self.stop is not None and self.stop()

    def raise_if_stopped(self, what_is_kept: str) -> None:
        """Raises InterruptedRunError, when the caller wants to stop."""
        if self.wants_to_stop:
            raise InterruptedRunError(f"Stopped. {what_is_kept}")


def caller_of(on_progress: OnProgress | None, stop: Callable[[], bool] | None) -> Caller:
    """The caller that these two functions make; None: nobody listens, nobody stops it."""
    return Caller((on_progress,) if on_progress else (), stop)


def duration(seconds: float) -> str:
    """42 s, 3 min 20 s, 1 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
