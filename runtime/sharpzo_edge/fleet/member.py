"""`fleet member`: a board in a fleet."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
from pathlib import Path

from distributed import Security, Worker
from distributed.utils import get_ip

from ..clip.sessions import check_threads
from ..errors import UsageError
from ..requests import MemberRequest
from ..run.progress import Caller, caller_of
from .board import Board
from .engine import CONNECT_SECONDS, LOOK_SECONDS, WithoutHttp, address_of, is_loopback, security_of, set_up

_board: Board | None = None  # of this process


def answer(message: bytes) -> bytes:
    """What Dask runs on a member. The board is the process's: it outlives Dask's worker."""
    if _board is None:
        raise RuntimeError("this process is no member of a fleet")
    return _board.answer(message)


class _Worker(WithoutHttp, Worker):
    pass


def member(request: MemberRequest) -> None:
    """Take part in the runs of a fleet until `stop` says so. Raises UsageError for what cannot be used."""
    check_threads(request.threads)
    if request.least_pictures < 1:
        raise UsageError(
            f"--least-pictures {request.least_pictures} is too small. It takes 1 or more. "
            f"Try --least-pictures 10"
        )
    caller = caller_of(request.on_progress, request.stop)
    security = security_of(request.certificates)
    address = address_of(request.scheduler, security)
    board = Board(request, caller)
    with board.locked(), tempfile.TemporaryDirectory(prefix="sharpzo-edge-fleet-") as scratch:
        try:
            name = request.name or socket.gethostname()
            asyncio.run(take_part(board, name, address, security, Path(scratch), caller))
        finally:
            board.close()


async def take_part(
    board: Board, name: str, scheduler: str, security: Security, scratch: Path, caller: Caller
) -> None:
    """Be a member until the caller stops it. When the scheduler is lost, a new worker waits for it."""
    global _board
    set_up()
    _board, is_told = board, False
    host = scheduler.rpartition("://")[2].rpartition(":")[0].strip("[]")
    own = host if is_loopback(host) else get_ip(host)
    while not caller.wants_to_stop:
        worker = _Worker(
            scheduler,
            nthreads=1,
            name=name,
            host=own,
            memory_limit=0,
            dashboard=False,
            security=security,
            local_directory=str(scratch),
            death_timeout=CONNECT_SECONDS,
        )
        try:
            await worker
            caller.say(f"{name} is a member of the fleet at {scheduler}")
            is_told = False
            while worker.status.name == "running" and not caller.wants_to_stop:
                await asyncio.sleep(LOOK_SECONDS)
        except (Exception, asyncio.CancelledError) as error:  # whatever Dask's worker died of
            if not is_told:
                caller.say(
                    f"no scheduler at {scheduler} takes this member ({error or 'no answer'}): it waits"
                )
            is_told = True
            await asyncio.sleep(1)
        finally:
            with contextlib.suppress(Exception, asyncio.CancelledError):
                await worker.close(timeout=2, executor_wait=False)
    caller.say(f"{name} was told to stop: it is no member any more")
