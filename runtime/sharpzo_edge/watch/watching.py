"""`watch`: labels pictures as they come, and tells when what they show has changed.

One thread reads the source and keeps the newest picture, this one labels, and every output has its own. None
waits for another: a slow board skips pictures, and a slow output skips news.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..commands.classifier import Classifier, classifier_of
from ..errors import ImagesError, SharpzoError, UsageError
from ..libraries import needing
from ..requests import WatchRequest
from ..run.progress import Caller, caller_of
from ..wording import counted
from .broker import broker_of
from .folder import Folder
from .home_assistant import NONE
from .latest import TAKE_SECONDS, Outbox
from .lines import Lines, ReaderGoneError
from .reader import NOT_YET, Arrival, Reader, Source
from .steady import Steady
from .stream import MOST_FRAME_BYTES, Stream, is_pipe
from .unsure import Unsure

if TYPE_CHECKING:
    from .mqtt import Mqtt

MOST_WAITING = 100  # lines for standard output, and news for standard error
BROKEN_SECONDS = 60.0  # between two notes of broken pictures
TORN = (
    f"a picture of the stream broke off, or has more than {MOST_FRAME_BYTES >> 20} MiB; if all are so, let "
    f"the camera make smaller ones"
)


def watch_request(request: WatchRequest) -> None:
    """Watch until the caller wants to stop, or standard input ends.

    Raises UsageError for options that cannot be, and InterruptedRunError when the caller stops it; as
    Classifier for the bundle and the prompt.
    """
    _check(request)
    caller = caller_of(request.on_progress, request.stop)
    news = News(caller)
    with contextlib.ExitStack() as opened:
        opened.callback(news.say)  # the last: outputs may fail while they end
        watching = _open(request, news, opened)
        watching.run(caller)


def _check(request: WatchRequest) -> None:
    if not 0 <= request.every < math.inf:
        raise UsageError(f"--every {request.every} cannot be. It takes seconds, 0 or more. Try --every 1")
    for name, value in (("steady", request.steady), ("save-unsure-per-day", request.save_unsure_per_day)):
        if value < 1:
            raise UsageError(f"--{name} {value} is too small. It takes 1 or more. Try --{name} 3")
    if request.mqtt is None and (request.mqtt_password_file or request.mqtt_binary_sensors):
        raise UsageError(
            "There are options of MQTT, and no broker. They need an address. Add --mqtt mqtt://HOST/PREFIX, "
            "or leave them out"
        )
    if request.save_unsure and os.path.realpath(request.save_unsure) == os.path.realpath(request.source):
        raise UsageError(
            f"--save-unsure is the folder that is watched, {request.source}: what it keeps would come in "
            f"again. It takes another folder. Try --save-unsure unsure"
        )


def source_of(given: str) -> Source:
    """A folder, a named pipe, or - for standard input. Raises UsageError."""
    path = Path(given)
    if given == "-":
        return Stream()
    if is_pipe(path):
        return Stream(path)
    if path.is_dir():
        return Folder(path)
    raise UsageError(
        f"SOURCE {given} is not there, or is no source. It takes a folder into which pictures come, a named "
        f"pipe, or - for a stream of JPEGs on standard input. Check the path"
    )


def _open(request: WatchRequest, news: News, opened: contextlib.ExitStack) -> Watching:
    """All that a watch needs. What can be refused is refused before the first picture comes."""
    source = source_of(str(request.source))
    held = source.held_bytes + source.picture_bytes  # of the picture that is being labelled
    if request.save_unsure:
        held += 2 * source.picture_bytes  # of one that waits, and one that is being saved
    if request.mqtt:
        broker = broker_of(request.mqtt, request.mqtt_password_file)
        with needing("mqtt", "--mqtt", "All else works without it"):
            from . import mqtt as library
        held += library.HELD_BYTES
    classify = opened.enter_context(classifier_of(request, held))
    for note in classify.notes:
        news.add(f"note: {note}")
    lines = Outbox(Lines(sys.stdout.fileno()).write, MOST_WAITING, news.failed)
    watching = Watching(request, classify, news, opened.enter_context(lines), Steady(request.steady))
    if request.save_unsure:
        unsure = Unsure(Path(request.save_unsure), request.save_unsure_per_day)
        watching.saving = opened.enter_context(Outbox(unsure.offer, 1, news.failed))
    if request.mqtt:
        mqtt = library.Mqtt(broker, classify.labels, request.mqtt_binary_sensors, news.add)
        watching.mqtt = opened.enter_context(mqtt)
    watching.reader = opened.enter_context(Reader(source, news.add))
    return watching


class News:
    """What other threads have to say. The main thread says it."""

    def __init__(self, caller: Caller):
        self._caller = caller
        self._waiting: deque[str] = deque(maxlen=MOST_WAITING)
        self._fatal: SharpzoError | None = None

    def add(self, text: str) -> None:
        self._waiting.append(text)

    def failed(self, error: SharpzoError) -> None:
        """An output has failed. Watching goes on, unless nobody is left who reads what it finds."""
        if isinstance(error, ReaderGoneError):
            self._fatal = error
        else:
            self.add(f"note: {error}")

    def say(self) -> None:
        """Raises SharpzoError where there is no use in going on."""
        while self._waiting:
            self._caller.say(self._waiting.popleft())
        fatal, self._fatal = self._fatal, None
        if fatal:
            raise fatal


@dataclass
class Watching:
    """A watch that is open.

    n_labelled, n_broken, n_torn: pictures so far; torn ones never came out of the stream
    gone: why the source was not there at the last look; None: it was
    """

    request: WatchRequest
    classify: Classifier
    news: News
    lines: Outbox[dict[str, Any]]
    steady: Steady
    saving: Outbox[tuple[Arrival, float]] | None = None
    mqtt: Mqtt | None = None
    reader: Reader = field(init=False)
    n_labelled: int = 0
    n_broken: int = 0
    n_torn: int = 0
    gone: str | None = NOT_YET
    broken_told: float = -BROKEN_SECONDS

    def run(self, caller: Caller) -> None:
        """Raises InterruptedRunError when the caller wants to stop."""
        due = 0.0
        while True:
            self.news.say()
            caller.raise_if_stopped(f"{self._summary()}. Type the same command again")
            has_ended = self.reader.has_ended
            self._look_at_the_source()
            if self.reader.broken > self.n_torn:
                self.n_torn = self.reader.broken
                self._tell_broken(TORN)
            if (early := due - time.monotonic()) > 0 and not has_ended:
                time.sleep(min(early, TAKE_SECONDS))
            elif arrival := self.reader.pictures.take(TAKE_SECONDS):
                due = time.monotonic() + self.request.every
                self._label(arrival)
            elif has_ended:
                break
        nothing = "" if any(self._counts().values()) else "; it held no JPEG"
        caller.say(f"the stream has ended: {self._summary()}{nothing}")

    def _look_at_the_source(self) -> None:
        gone, before = self.reader.gone, self.gone
        if gone == before:
            return
        self.gone = gone
        source = self.request.source
        if gone is None:
            row = self.request.steady
            told = f"; a change is told after {row} equal answers in a row" if row > 1 else ""
            self.news.add(f"watching {source}{told if before == NOT_YET else ' again'}")
        else:
            self.news.add(f"nothing comes from {source} ({gone}); it is waited for")
        self.steady.forget_the_row()
        if self.mqtt:
            self.mqtt.tell_there(gone is None)

    def _label(self, arrival: Arrival) -> None:
        try:
            found = self.classify(arrival.picture)
        except ImagesError as error:
            self.n_broken += 1
            self._tell_broken(str(error))
            return
        self.n_labelled += 1
        label, score = NONE if found.none else found.labels[0], found.scores[0]
        about = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "image": arrival.image or None,
            "label": label,
            "none": found.none,
            "score": score,
            "labels": found.labels,
            "scores": found.scores,
            **self._counts(),
        }
        if self.request.answers:
            self.lines.put({"event": "answer", **about})
        if self.steady.has_changed(label):
            self.lines.put({"event": "change", **about})
            if self.mqtt:
                self.mqtt.tell(label, about)
        if self.saving:
            self.saving.put((arrival, score))

    def _tell_broken(self, why: str) -> None:
        if time.monotonic() - self.broken_told >= BROKEN_SECONDS:
            self.broken_told = time.monotonic()
            self.news.add(f"note: {why}")

    def _counts(self) -> dict[str, int]:
        return {
            "pictures": self.n_labelled,
            "skipped": self.reader.pictures.dropped,
            "broken": self.n_broken + self.n_torn,
        }

    def _summary(self) -> str:
        counts = self._counts()
        labelled = counted(counts["pictures"], "picture")
        return f"{labelled} labelled, {counts['skipped']:,} skipped, {counts['broken']:,} broken"
