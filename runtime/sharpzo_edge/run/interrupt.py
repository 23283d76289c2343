"""SIGINT, SIGTERM and SIGHUP become a flag that a loop reads at a moment of its choice."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, Self

from ..errors import InterruptedRunError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupt:
    """While open, the first signal sets `received`; a second one of the kind acts as it always does.

    Not so SIGHUP: a terminal that closes sends it twice, and under nohup it stays ignored.
    """

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[signal.Signals, Any] = {}

    @property
    def name(self) -> str:
        return signal.Signals(self.received).name

    def raise_if_received(self, what_is_kept: str) -> None:
        """Raises InterruptedRunError, once a signal has come."""
        if self.received:
            raise InterruptedRunError(f"Stopped by {self.name}. {what_is_kept}", self.received)

    def __enter__(self) -> Self:
        for number in SIGNALS:
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        if number != signal.SIGHUP:
            signal.signal(number, self._before[signal.Signals(number)])
