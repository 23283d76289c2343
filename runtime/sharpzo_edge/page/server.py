"""The page's process: listens, prints where the page is, and ends children when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import webbrowser
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import segno
import uvicorn

from ..errors import cannot_listen
from ..requests import PageRequest
from ..run.interrupt import SIGNALS
from .routes import Routes
from .safety import Door, Safety, Tries, is_loopback
from .state import Page, door_of, page_of

END_SECONDS = 2  # for answers that are on their way when the page ends
MOST_AT_ONCE = 64  # connections
# An address for documents (RFC 5737): nothing is sent there, but the system says by which of ours it would.
ANYWHERE = ("192.0.2.1", 9)
EVERY_ADDRESS = ("0.0.0.0", "::", "")


@dataclass(frozen=True)
class Address:
    """Where the page is. url: what to open, the token in its fragment, which no browser sends."""

    url: str
    token: str | None

    def to_json(self) -> dict[str, Any]:
        return {"url": self.url, "token": self.token}

    def qr_code(self) -> str:
        """For a phone's camera: in a terminal, two rows of it in one line."""
        code = segno.make(self.url, error="l", micro=False)
        rows = [bytes(row) for row in code.matrix_iter(border=2)]
        rows += [bytes(len(rows[0]))] * (len(rows) % 2)
        signs = {(0, 0): "█", (0, 1): "▀", (1, 0): "▄", (1, 1): " "}  # light on dark, as terminals are
        pairs = zip(rows[::2], rows[1::2], strict=True)
        return "\n".join("".join(signs[each] for each in zip(*pair, strict=True)) for pair in pairs)


def serve(request: PageRequest, on_ready: Callable[[Address], None]) -> None:
    """Show the page until a signal comes. on_ready: is told where it is, once it can be opened.

    Raises UsageError for options that cannot be, and where the address is taken.
    """
    door, page = door_of(request), page_of(request)
    with _listening(request) as listener:
        door = replace(door, port=listener.getsockname()[1])
        asyncio.run(_serve(request, page, door, listener, on_ready))


async def _serve(
    request: PageRequest,
    page: Page,
    door: Door,
    listener: socket.socket,
    on_ready: Callable[[Address], None],
) -> None:
    config = uvicorn.Config(
        Safety(Routes(page, door, Tries()).app(), door),
        log_config=None,
        log_level=logging.WARNING if os.environ.get("SHARPZO_DEBUG") == "1" else logging.CRITICAL,
        access_log=False,
        server_header=False,
        lifespan="off",
        http="h11",
        ws="none",
        loop="asyncio",
        limit_concurrency=MOST_AT_ONCE,
        timeout_graceful_shutdown=END_SECONDS,
    )
    server = _Server(config)
    for number in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, server.end)
    address = _address(request.host, door)
    on_ready(address)
    if request.open:
        webbrowser.open(address.url)
    try:
        await server.serve(sockets=[listener])
    finally:
        await page.run.stop()
        await page.worker.close()


class _Server(uvicorn.Server):
    """Signals are ours: the run has to save before this process ends."""

    def end(self) -> None:
        """The second time at once."""
        self.force_exit, self.should_exit = self.should_exit, True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _listening(request: PageRequest) -> contextlib.closing[socket.socket]:
    try:
        found = socket.getaddrinfo(
            request.host, request.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listener = socket.create_server((request.host, request.port), family=found[0][0])
    except OSError as error:
        raise cannot_listen("The page", request.host, request.port, error) from error
    return contextlib.closing(listener)


def _address(host: str, door: Door) -> Address:
    name = _own_address() if host in EVERY_ADDRESS else host.strip("[]")
    place = f"http://{f'[{name}]' if ':' in name else name}:{door.port}"
    return Address(f"{place}/" if door.token is None else f"{place}/enter#{door.token}", door.token)


def _own_address() -> str:
    """That of this machine on the network, as far as the system tells; otherwise its name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(ANYWHERE)
        found: str = probe.getsockname()[0]
        if not is_loopback(found):
            return found
    return f"{socket.gethostname().partition('.')[0]}.local"
