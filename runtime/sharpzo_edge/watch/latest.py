"""What passes from one thread to another without either waiting for long: the newest wins."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, Self, TypeVar

from ..errors import SharpzoError

T = TypeVar("T")

END_SECONDS = 2.0  # for what still waits when the command ends
TAKE_SECONDS = 0.25


class Latest(Generic[T]):
    """At most `room` items that wait to be taken. Where there is no room, the oldest gives way.

    dropped: how many gave way
    """

    def __init__(self, room: int = 1):
        self.dropped = 0
        self._items: deque[T] = deque(maxlen=room)
        self._there = threading.Condition()

    def put(self, item: T) -> None:
        with self._there:
            self.dropped += len(self._items) == self._items.maxlen
            self._items.append(item)
            self._there.notify()

    def take(self, seconds: float) -> T | None:
        """The oldest that waits, after so many seconds at most; None: there is none."""
        with self._there:
            if not self._items:
                self._there.wait(seconds)
            return self._items.popleft() if self._items else None


class Outbox(Generic[T]):
    """Does something with each item, in a thread of its own: whoever puts one in never waits.

    A context manager. At its end, what waits is done, if that takes no longer than END_SECONDS.

    do:     may raise SharpzoError; the next item is tried all the same
    room:   how many items may wait; then the oldest is dropped
    failed: is told an error, once until something was done again or another one comes
    """

    def __init__(self, do: Callable[[T], None], room: int, failed: Callable[[SharpzoError], None]):
        self._do, self._failed = do, failed
        self._waiting: Latest[T] = Latest(room)
        self._is_ending = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        self._waiting.put(item)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._is_ending = True
        self._thread.join(END_SECONDS)

    def _run(self) -> None:
        told = ""
        while True:
            is_last = self._is_ending
            item = self._waiting.take(0 if is_last else TAKE_SECONDS)
            if item is None:
                if is_last:
                    return
                continue
            try:
                self._do(item)
                told = ""
            except SharpzoError as error:
                if str(error) != told:
                    told = str(error)
                    self._failed(error)
            del item  # a picture is not kept until the next one comes
