"""The driver's messages to its members, by Dask."""

from __future__ import annotations

import contextlib
import queue
import time
from typing import Any
from uuid import uuid4

from distributed import CancelledError, Client, Future, Security

from ..errors import SharpzoError
from ..run.progress import Caller
from .engine import CONNECT_SECONDS, SILENT_SECONDS, set_up
from .member import answer

FETCH_SECONDS = 5.0
UNREACHABLE = (OSError, TimeoutError, RuntimeError)  # of these are all of Dask's own


class DaskLine:
    """A line (see waves.Line) through a scheduler."""

    def __init__(self, scheduler: str, security: Security, wait_seconds: float, caller: Caller):
        """Raises SharpzoError when no scheduler answers in wait_seconds."""
        set_up()
        self._scheduler, self._security, self._wait_seconds = scheduler, security, wait_seconds
        self._caller = caller
        self._client: Client | None = None
        self._id = ""  # of the scheduler: a new one knows nothing of what was sent to the last
        # By name: the address that a message was sent to, and its future.
        self._sent: dict[str, tuple[str, Future]] = {}
        self._lost: set[str] = set()
        self._done: queue.Queue[tuple[str, Future]] = queue.Queue()
        self._addresses: dict[str, str] = {}
        self._connect()

    def present(self) -> frozenset[str]:
        begun = time.monotonic()
        while True:
            try:
                found = self._scheduler_says()
                if found["id"] == self._id:
                    workers = found["workers"].items()
                    self._addresses = {str(worker["name"]): address for address, worker in workers}
                    return frozenset(self._addresses)
            except UNREACHABLE:
                pass
            self._connect(begun)

    def send(self, name: str, message: bytes) -> None:
        assert self._client
        address = self._addresses.get(name, "")
        try:
            future = self._client.submit(
                answer, message, workers=[address], pure=False, key=f"fleet-{uuid4().hex}"
            )
        except (*UNREACHABLE, ValueError):
            self._lost.add(name)
            return
        self._sent[name] = address, future
        future.add_done_callback(lambda done: self._done.put((name, done)))

    def receive(self, seconds: float) -> list[tuple[str, bytes | None]]:
        found = {} if self._lost else self._come(seconds)
        if not (found or self._lost) and self._sent and seconds > 0:
            self.present()
            for name, (address, _) in list(self._sent.items()):
                if self._addresses.get(name) != address:
                    self._lost.add(name)
                    self._forget(name)
        for name in self._lost:
            found.setdefault(name, None)
        self._lost.clear()
        return [*found.items()]

    def _come(self, seconds: float) -> dict[str, bytes | None]:
        found: dict[str, bytes | None] = {}
        wait = seconds
        while True:
            try:
                name, future = self._done.get(timeout=wait) if wait > 0 else self._done.get_nowait()
            except queue.Empty:
                return found
            address, sent = self._sent.get(name, ("", None))
            if sent is future:
                found[name] = self._fetched(name, address, future)
                self._forget(name)
            wait = 0

    def _fetched(self, name: str, address: str, future: Future) -> bytes | None:
        """A result; None where the member that held it is gone. Raises SharpzoError for its defects."""
        while True:
            if future.status == "error":
                raise SharpzoError(
                    f"The member {name} failed where it should not "
                    f"({future.exception(timeout=FETCH_SECONDS)!r}). All machines must have one version of "
                    f"sharpzo-edge: sharpzo-edge --version. Otherwise it is a defect: please report it"
                )
            if future.status != "finished":
                return None
            try:
                result: bytes = future.result(timeout=FETCH_SECONDS)
                return result
            except UNREACHABLE:
                self.present()
                if self._addresses.get(name) != address:
                    return None
            except CancelledError:
                return None

    def _forget(self, name: str) -> None:
        _, future = self._sent.pop(name, ("", None))
        if future is not None:
            with contextlib.suppress(*UNREACHABLE):
                future.release()

    def _connect(self, begun: float | None = None) -> None:
        """A new connection; what was sent before is lost. Raises SharpzoError."""
        is_told = False
        begun = time.monotonic() if begun is None else begun
        self._lost |= {*self._sent}
        self._sent.clear()
        self.close()
        while True:
            try:
                self._client = Client(
                    self._scheduler,
                    security=self._security,
                    timeout=CONNECT_SECONDS,
                    set_as_default=False,
                    name="sharpzo-edge",
                )
                self._id = self._scheduler_says()["id"]
                return
            except UNREACHABLE as error:
                self.close()
                if time.monotonic() - begun > self._wait_seconds:
                    raise SharpzoError(
                        f"No scheduler answers at {self._scheduler}, in {self._wait_seconds:g} s. One must "
                        f"run there. Both sides need the same certificates, or both none. Type there: "
                        f"sharpzo-edge fleet scheduler"
                    ) from error
            self._caller.raise_if_stopped(
                f"No scheduler answers at {self._scheduler}. When one does, type the same command again"
            )
            if not is_told:
                self._caller.say(f"no scheduler answers: it is waited for, at most {self._wait_seconds:g} s")
            is_told = True
            time.sleep(1)

    def _scheduler_says(self) -> Any:
        """Who the scheduler is, and its workers. Raises one of UNREACHABLE.

        It is asked: the client's own `scheduler_info` remembers the last answer, or none, when the scheduler
        is gone.
        """
        scheduler: Any = self._client.scheduler if self._client else None
        if self._client is None or scheduler is None:
            raise RuntimeError("there is no connection")
        return self._client.sync(scheduler.identity, n_workers=-1, callback_timeout=SILENT_SECONDS)

    def close(self) -> None:
        """End the connection."""
        if self._client:
            with contextlib.suppress(*UNREACHABLE):
                self._client.close(timeout=2)
        self._client = None
