"""A disk that fails, or a power cut, at a chosen change: it stands in for `os` in sharpzo_edge.run.files.

As a script it kills a tuning run at one site after the other and goes on with it, in processes of their own:
python -m support.disk PRESET BUNDLE IMAGES OUTPUT EVERY, see `kills`.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from sharpzo_edge.commands.tune import tune_request
from sharpzo_edge.requests import TuneRequest
from sharpzo_edge.run import files

CHANGES = ("open", "write", "fsync", "ftruncate", "replace", "unlink", "mkdir")
TINY: dict[str, dict[str, Any]] = {
    "paper": {"dim": 3, "population": 4, "rho": 0.1, "change_point": 1, "steps": 3, "prune_interval": 2},
    "edge": {"dim": 3, "population": 4, "change_point": 1, "rank": 2, "max_queries": 24},
}


class FailingOs:
    """`os`, but `strike` is called at the n-th change of the disk, from 1 on, in the middle of a write.

    strike is told what it hits: the call, and the file's name where the call has one.
    """

    def __init__(self, n: int | None, strike: Callable[[str], Any]):
        self.n_changes = 0
        self._n = n
        self._strike = strike

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in CHANGES:
            return real

        def change(*arguments: Any, **options: Any) -> Any:
            self.n_changes += 1
            if self.n_changes == self._n:
                if name == "write":
                    real(arguments[0], arguments[1][: len(arguments[1]) // 2])
                named = f" {Path(arguments[0]).name}" if isinstance(arguments[0], (str, Path)) else ""
                self._strike(name + named)
            return real(*arguments, **options)

        return change


def full_disk(_: str) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def power_cut(_: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def tiny(preset: str, bundle: Path, images: Path, output: Path) -> TuneRequest:
    """Seconds apart from the bundle's: a run whose every update is a checkpoint."""
    return TuneRequest(
        bundle,
        images,
        output,
        preset=preset,
        shots=2,
        val=1,
        threads=1,
        memory_budget="none",
        checkpoint_seconds=0,
        **TINY[preset],
    )


def changes_of(request: TuneRequest) -> int:
    """How many changes of the disk a run makes from its beginning to its end."""
    files.os = watched = FailingOs(None, power_cut)  # type: ignore[assignment]
    try:
        tune_request(request)
    finally:
        files.os = os
    return watched.n_changes


def kills(request: TuneRequest, sites: Iterable[int]) -> list[int]:
    """Kill the run at each of the sites, go on with it; returns those that did not end with the same prompt.

    This process must not have run a tower: children of it are forked.
    """
    folder = request.output_path.parent
    whole = replace(request, output=folder / "whole")
    assert _in_child(lambda: tune_request(whole)) == 0
    lost = []
    for site in sites:
        killed = replace(request, output=folder / f"killed-{site}")

        def cut(killed: TuneRequest = killed, site: int = site) -> None:
            files.os = FailingOs(site, power_cut)  # type: ignore[assignment]
            tune_request(killed)

        ends = _in_child(cut), _in_child(lambda killed=killed: tune_request(killed))  # type: ignore[misc]
        if ends != (-signal.SIGKILL, 0) or killed.output_path.read_bytes() != whole.output_path.read_bytes():
            lost.append(site)
    return lost


def _in_child(work: Callable[[], object]) -> int:
    """Exit code of a forked process: 0, 1 for an exception, minus the signal that ended it."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        work()
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    preset, bundle, images, output, every = sys.argv[1:]
    request = tiny(preset, Path(bundle), Path(images), Path(output))
    count = Path(output).with_name("count")
    counted = lambda: count.write_text(str(changes_of(replace(request, output=count.with_name("counted")))))  # noqa: E731
    assert _in_child(counted) == 0
    sites = range(1, int(count.read_text()) + 1, int(every))
    print(json.dumps({"sites": len(sites), "lost": kills(request, sites)}))
