"""Child processes in surroundings of our own: nothing of the shell that started the tests reaches them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATHS = [str(ROOT / name) for name in ("runtime", "export", "bench", "tests")]
UMASK = 0o022
ORIGINAL = dict(os.environ)  # what the tests themselves were started with
KEPT = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "TMPDIR")  # what a program may need to be found and to start

# A signal that is ignored or blocked stays so in children. Each child therefore begins with this: it sets
# all signals to their defaults but those in its first argument, and becomes the command in the others.
DEFAULT_SIGNALS = """
import os, signal, sys
ignored = {int(number) for number in sys.argv[1].split()}
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_SETMASK, ())
os.execv(sys.argv[2], sys.argv[2:])
"""


def clean(environment: Mapping[str, str]) -> dict[str, str]:
    """What is kept of an environment. Text is UTF-8 in it, whatever the locale."""
    return {name: environment[name] for name in KEPT if name in environment} | {"PYTHONUTF8": "1"}


def start(
    command: Sequence[object], *, ignored: Collection[signal.Signals] = (), **environment: str
) -> subprocess.Popen[str]:
    """Start a program by its full path. `ignored`: signals that it finds ignored, as under nohup."""
    found = clean(ORIGINAL)
    paths = os.pathsep.join([*PATHS, *filter(None, [found.get("PYTHONPATH")])])
    numbers = " ".join(str(int(number)) for number in ignored)
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", DEFAULT_SIGNALS, numbers, *map(str, command)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=found | {"PYTHONPATH": paths} | environment,
        umask=UMASK,
    )


def finish(command: Sequence[object], code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """Start it, wait for its end, and hold it to its exit code."""
    with start(command, **environment) as process:
        try:
            out, err = process.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert process.returncode == code, out + err
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def run(*words: object, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """Type `sharpzo-edge` and these words."""
    return finish([sys.executable, "-m", "sharpzo_edge", *words], code, **environment)
