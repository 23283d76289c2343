"""The pictures that predict and eval are asked about: files, folders, and lines of standard input."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ..errors import ImagesError, UsageError
from ..pictures.folder import Skipped, files_below

STANDARD_INPUT = "-"
WAIT_SECONDS = 0.2  # for more lines, before it is asked whether to stop
READ_BYTES = 1 << 16
LONGEST_PATH_BYTES = 1 << 16


def paths_of(
    pictures: Iterable[str | os.PathLike[str]], passed_over: Skipped, ask_stop: Callable[[], None]
) -> Iterator[Path]:
    """Each picture's path, when its turn comes.

    passed_over: is told what is in folders and no picture by its name or place
    ask_stop:    is called while nothing comes on standard input; it may raise
    Raises UsageError where standard input is closed, ImagesError for a line on it that can be no path.
    """
    for each in pictures:
        if each == STANDARD_INPUT:
            yield from map(Path, _lines(ask_stop))
        elif os.path.isdir(each):
            yield from files_below(Path(each), passed_over)
        else:
            yield Path(each)


def nothing_read(pictures: Iterable[str | os.PathLike[str]], unreadable: Skipped) -> ImagesError:
    """The error where no picture was left to label."""
    n = unreadable.counts.total()
    if not n:
        return ImagesError(
            f"There is no picture in {', '.join(map(str, pictures)) or 'an empty list'}. At least "
            f"one is needed. Check the paths"
        )
    reason, example = next(iter(unreadable.examples.items()))
    return ImagesError(
        f"No picture of {n} could be read, such as {example}: {reason}. "
        f"JPEG, PNG and Pillow's other formats are allowed. Check the paths"
    )


def _lines(ask_stop: Callable[[], None]) -> Iterator[str]:
    """Lines of standard input as file names of any bytes; empty ones are left out."""
    try:
        source = sys.stdin.fileno()
    except (AttributeError, OSError, ValueError) as error:  # None where it was closed before the start
        raise UsageError(
            "Standard input is closed, and - asks for paths from there. It takes one path a line. "
            "Try: find photos -name '*.jpg' | sharpzo-edge predict - …"
        ) from error
    rest = b""
    while True:
        while not select.select([source], [], [], WAIT_SECONDS)[0]:
            ask_stop()
        read = os.read(source, READ_BYTES)
        *whole, rest = (rest + read).split(b"\n")
        if len(rest) > LONGEST_PATH_BYTES or b"\0" in read:
            raise ImagesError(
                f"A line on standard input is no path: it has a byte 0, or more than {LONGEST_PATH_BYTES:,} "
                f"bytes. One path a line is allowed, and no picture itself. Type: find photos -print | "
                f"sharpzo-edge predict - …"
            )
        yield from map(os.fsdecode, filter(None, whole))
        if not read:
            if rest:
                yield os.fsdecode(rest)
            return
