"""Where every command begins: `sharpzo-edge` and `python -m sharpzo_edge`.

Signals are taken care of before anything else, so that a command that is stopped in its first moment ends
with a sentence too. Then the command line is imported, which takes a while on a board.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from types import FrameType


def main() -> None:
    """Run the command line. Every end is a sentence and an exit code."""
    open_standard_streams()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, end_at_once)
    try:
        from .cli import main as run
    except Exception as error:  # whatever it is, it came of an import
        from .libraries import not_imported

        say_at_once(type(error).__name__, str(not_imported(error)), 1)
        raise SystemExit(1) from None
    run()


def open_standard_streams() -> None:
    """Where standard input, output or error is closed, open nothing in its place.

    Otherwise the next file that is opened would get its number, and what is printed would go into that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def say_at_once(kind: str, message: str, code: int, before: str = "") -> None:
    """Write an error with the system's calls alone."""
    with contextlib.suppress(OSError):
        os.write(2, f"{before}error: {message}\n".encode(errors="backslashreplace"))
    if {"--json", "--json-lines"} & {*sys.argv}:  # as cli.py has it, which may be damaged
        about = {"kind": kind, "message": message, "exit_code": code}
        with contextlib.suppress(OSError):
            os.write(1, f"{json.dumps({'error': about})}\n".encode())


def end_at_once(number: int, frame: FrameType | None) -> None:
    """End this process: a signal has come where no work has taken signals over (see run/interrupt).

    Nothing is raised: half the libraries that are being imported then would make another error of it.
    """
    message = (
        f"Stopped by {signal.Signals(number).name}. What was saved before is kept. "
        f"Type the same command again"
    )
    code = 128 + number
    say_at_once("InterruptedRunError", message, code, chr(10) * os.isatty(2))
    os._exit(code)


if __name__ == "__main__":
    main()
