"""What `fleet member` and `fleet scheduler` do until a signal comes."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

from ..clip.sessions import check_threads
from ..errors import UsageError
from ..requests import MemberRequest, SchedulerRequest
from ..run.progress import caller_of
from . import engine
from .board import Board


def member(request: MemberRequest) -> None:
    """Take part in the runs of a fleet until `stop` says so. Raises UsageError for what cannot be used."""
    check_threads(request.threads)
    if request.least_pictures < 1:
        raise UsageError(
            f"--least-pictures {request.least_pictures} is too small. It takes 1 or more. "
            f"Try --least-pictures 10"
        )
    caller = caller_of(request.on_progress, request.stop)
    security = engine.security_of(Path(request.certificates) if request.certificates else None)
    address = engine.address_of(request.scheduler, security)
    board = Board(request, caller)
    with board.locked(), tempfile.TemporaryDirectory(prefix="sharpzo-edge-fleet-") as scratch:
        try:
            name = request.name or socket.gethostname()
            asyncio.run(engine.run_member(board, name, address, security, Path(scratch), caller))
        finally:
            board.close()


def scheduler(request: SchedulerRequest, on_ready: Callable[[str], None]) -> None:
    """Be the scheduler of a fleet until `stop` says so. on_ready: is told its address, HOST:PORT."""
    security = engine.security_of(Path(request.certificates) if request.certificates else None)
    caller = caller_of(request.on_progress, request.stop)

    def told(address: str) -> None:
        on_ready(address.rpartition("://")[2])

    asyncio.run(
        engine.run_scheduler(request.host, request.port, security, told, lambda: caller.wants_to_stop)
    )
