"""`fleet scheduler`: carries the messages of a fleet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from distributed import Scheduler, Security

from ..errors import cannot_listen
from ..requests import SchedulerRequest
from ..run.progress import caller_of
from .engine import LOOK_SECONDS, WithoutHttp, require_safe, security_of, set_up


class _Scheduler(WithoutHttp, Scheduler):
    pass


def scheduler(request: SchedulerRequest, on_ready: Callable[[str], None]) -> None:
    """Be the scheduler of a fleet until `stop` says so. on_ready: is told its address, HOST:PORT.

    Raises UsageError for an address that it cannot or must not have.
    """
    security, caller = security_of(request.certificates), caller_of(request.on_progress, request.stop)
    require_safe("--host", request.host, security)
    asyncio.run(_schedule(request.host, request.port, security, on_ready, lambda: caller.wants_to_stop))


async def _schedule(
    host: str, port: int, security: Security, on_ready: Callable[[str], None], stop: Callable[[], bool]
) -> None:
    set_up()
    protocol = "tls" if security.require_encryption else "tcp"
    try:
        scheduler = _Scheduler(host=host, port=port, protocol=protocol, security=security, dashboard=False)
        await scheduler
    except (OSError, RuntimeError) as error:
        why = error.__cause__ if isinstance(error, RuntimeError) else error  # Dask wraps what ended its start
        if not isinstance(why, OSError):
            raise
        raise cannot_listen("The scheduler", host, port, why) from error
    try:
        on_ready(scheduler.address.rpartition("://")[2])
        while not stop():
            await asyncio.sleep(LOOK_SECONDS)
    finally:
        await scheduler.close()
