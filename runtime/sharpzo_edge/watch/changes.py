"""What the system tells of the changes in a folder (inotify, through watchdog: the extra [watch])."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

from watchdog.events import FileClosedEvent, FileCreatedEvent, FileMovedEvent, FileSystemEvent
from watchdog.events import FileSystemEventHandler as Handler
from watchdog.observers import Observer

MOST_NAMES = 1000
END_SECONDS = 1.0

logging.getLogger("watchdog").addHandler(logging.NullHandler())  # it calls an ordinary end an error


class Changes(Handler):
    """happened: is set when a file has come, was closed by its writer, or was renamed."""

    def __init__(self, folder: Path):
        """Raises OSError where the system cannot tell, such as when it tells others too much already."""
        self.happened = threading.Event()
        self._closed: set[str] = set()
        self._observer = Observer()
        kinds: list[type[FileSystemEvent]] = [FileCreatedEvent, FileClosedEvent, FileMovedEvent]
        self._observer.schedule(self, str(folder), event_filter=kinds)
        self._observer.start()

    def on_any_event(self, event: FileSystemEvent) -> None:
        if not isinstance(event, FileCreatedEvent) and len(self._closed) < MOST_NAMES:
            self._closed.add(os.path.basename(os.fsdecode(event.dest_path or event.src_path)))
        self.happened.set()

    def closed(self) -> set[str]:
        """The names of files that are complete, since the last call."""
        self.happened.clear()
        names, self._closed = self._closed, set()
        return names

    def close(self) -> None:
        self._observer.stop()
        self._observer.join(END_SECONDS)
