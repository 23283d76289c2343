"""SIGINT, SIGTERM and SIGHUP become a flag that a work asks for at moments of its choice.

For the command line alone: a library must not change the signals of the program that uses it.
"""

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

    def is_received(self) -> bool:
        """What a work asks as its `stop`."""
        return self.received != 0

    def named(self, stopped: InterruptedRunError) -> InterruptedRunError:
        """The same error, with the signal's name and exit code where a signal was the reason."""
        if not self.received:
            return stopped
        text = str(stopped).replace("Stopped.", f"Stopped by {signal.Signals(self.received).name}.", 1)
        return InterruptedRunError(text, 128 + self.received)

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
