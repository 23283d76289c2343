"""A disk that fails, or a power cut, at a chosen call: it stands in for `os` in sharpzo_edge.run.files.

As a script it kills a tuning run at one site after the other and goes on with it, in processes of their own:
python -m support.disk PRESET BUNDLE IMAGES OUTPUT EVERY, see `kills`.
"""

from __future__ import annotations

import builtins
import collections
import contextlib
import errno
import io
import json
import os
import signal
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sharpzo_edge.commands.tune import tune_request
from sharpzo_edge.pictures import feature_file
from sharpzo_edge.requests import TuneRequest
from sharpzo_edge.run import files
from sharpzo_edge.run import folder as work_folder
from sharpzo_edge.run.folder import WorkFolder

CHANGES = ("open", "write", "fsync", "ftruncate", "replace", "unlink", "mkdir")
TINY: dict[str, dict[str, Any]] = {
    "paper": {"dim": 3, "population": 4, "rho": 0.1, "change_point": 1, "steps": 3, "prune_interval": 2},
    "edge": {"dim": 3, "population": 4, "change_point": 1, "rank": 2, "max_queries": 24},
}


class FailingOs:
    """`os`, but `strike` is called at the n-th change of the disk, from 1 on, in the middle of a write.

    strike is told what it hits, the call's name: the system's, and the file's where it has one, such as
    "replace .run.json.part", "fsync a folder", "write". With `watch` also "lock", "read run.json" and "read
    a picture".
    calls: how the names of the calls begin that count; empty: all that change the disk
    lasts: strike at all of them from the n-th on
    """

    def __init__(self, n: int | None, strike: Callable[[str], Any], calls: str = "", lasts: bool = False):
        self.counts: collections.Counter[str] = collections.Counter()
        self._n, self._strike, self._calls, self._lasts = n, strike, calls, lasts
        self._n_counted = 0

    @property
    def n_changes(self) -> int:
        return number_of(self.counts)

    def comes(self, name: str, before: Callable[[], Any] = lambda: None) -> None:
        """Count a call; if it is its turn, do what is done before, and strike."""
        self.counts[name] += 1
        if not is_counted(name, self._calls):
            return
        self._n_counted += 1
        if self._n_counted == self._n or (self._lasts and self._n and self._n_counted > self._n):
            before()
            self._strike(name)

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in (*CHANGES, "pread"):
            return real

        def call(*arguments: Any, **options: Any) -> Any:
            if name == "write":
                half = arguments[1][: len(arguments[1]) // 2]
                self.comes(name, lambda: real(arguments[0], half))
            else:
                self.comes(_name_of_call(name, *arguments))
            return real(*arguments, **options)

        return call

    def watch(self, images: Path, output: Path) -> None:
        """In this whole process: count locks too, and reads of pictures and of the run's own files."""
        work = WorkFolder.of(output).path
        really_open, flock = builtins.open, work_folder.fcntl.flock

        def kind_of(file: Any) -> str:
            path = Path(file) if isinstance(file, (str, Path)) else Path()
            return (
                path.name if path == output or path.parent == work else "a picture" * (images in path.parents)
            )

        def opened(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **options: Any) -> Any:
            if mode != "rb" or not kind_of(file):
                return really_open(file, mode, buffering, *rest, **options)
            raw = _Read(file, lambda: self.comes(f"read {kind_of(file)}"))
            return raw if buffering == 0 else io.BufferedReader(raw)

        def locks(*arguments: Any) -> None:
            self.comes("lock")
            flock(*arguments)

        builtins.open = io.open = opened  # Pillow asks the one, pathlib the other
        work_folder.fcntl.flock = locks
        vars(files)["os"] = vars(feature_file)["os"] = self


@contextlib.contextmanager
def watched(failing: FailingOs, images: Path, output: Path) -> Iterator[None]:
    """The same for a while; see FailingOs.watch."""
    before = builtins.open, io.open, work_folder.fcntl.flock
    failing.watch(images, output)
    try:
        yield
    finally:
        builtins.open, io.open, work_folder.fcntl.flock = before
        vars(files)["os"] = vars(feature_file)["os"] = os


class _Read(io.FileIO):
    """A file that tells of every read from the disk, as its buffer asks for them."""

    def __init__(self, file: Any, tell: Callable[[], None]):
        super().__init__(file, "rb")
        self._tell = tell

    def readinto(self, buffer: Any) -> int:
        self._tell()
        return super().readinto(buffer)

    def readall(self) -> bytes:
        self._tell()
        return super().readall()


def number_of(counts: Mapping[str, int], calls: str = "") -> int:
    """How many calls count; see FailingOs."""
    return sum(n for name, n in counts.items() if is_counted(name, calls))


def is_counted(name: str, calls: str) -> bool:
    return name.startswith(calls) if calls else name.split(" ")[0] in CHANGES


def _name_of_call(call: str, file: Any, flags: Any = 0, *_: Any) -> str:
    if call == "open" and flags & os.O_DIRECTORY:
        return "open a folder"
    if call == "pread":
        return f"read {Path(os.readlink(f'/proc/self/fd/{file}')).name}"
    if call == "fsync":
        return "fsync a folder" if stat.S_ISDIR(os.fstat(file).st_mode) else "fsync"
    return f"{call} {Path(file).name}" if isinstance(file, (str, Path)) else call


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
