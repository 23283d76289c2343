"""The log of a run, followed while it grows: what the page draws its curve of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MOST_SAID = 50  # lines that are kept for the page
READ_BYTES = 1 << 20


class RunLog:
    """What the last run in a log has told so far.

    looks: evaluations, by rising queries; said: its lines; done: its result, once it is there
    version: rises with every piece of news
    """

    def __init__(self, path: Path):
        self._path = path
        self._clear()

    def _clear(self) -> None:
        self._place, self._torn = 0, b""
        self.looks: list[dict[str, Any]] = []
        self.said: list[str] = []
        self.done: dict[str, Any] | None = None
        self.version = 0

    def read(self) -> bool:
        """Read what is new; returns whether anything was."""
        before = self.version
        try:
            with self._path.open("rb") as file:
                if file.seek(0, 2) < self._place:  # it is another log
                    self._clear()
                file.seek(self._place)
                while data := file.read(READ_BYTES):
                    self._place += len(data)
                    *lines, self._torn = (self._torn + data).split(b"\n")
                    for line in lines:
                        self._take(line)
        except OSError:
            if self._place:
                self._clear()
                return True
        return self.version != before

    def _take(self, line: bytes) -> None:
        try:
            news = json.loads(line)
            event = news.pop("event")
        except (ValueError, KeyError, TypeError, AttributeError):
            return
        self.version += 1
        if event == "said":
            self._begin_anew_after_an_end()
            self.said = [*self.said, str(news.get("text", ""))][-MOST_SAID:]
        elif event == "look" and isinstance(news.get("queries"), int):
            self._begin_anew_after_an_end()
            # A run that goes on does again what came after its last save, and a new one does all again.
            self.looks = [look for look in self.looks if look["queries"] < news["queries"]]
            self.looks.append(news)
        elif event == "done":
            self.done = news

    def _begin_anew_after_an_end(self) -> None:
        if self.done is not None:
            self.looks, self.said, self.done = [], [], None
