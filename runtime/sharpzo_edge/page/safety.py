"""What stands between a network and the page: who may ask, from where, and what a browser may do with it.

A page on 127.0.0.1 is for this machine. It must still be guarded from other pages in the same browser: they
may send forms here (Origin), or call this machine by a name of their own (Host, "DNS rebinding"). On any
other address a token is asked for too. Plain HTTP can be overheard; docs/page.md says so.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
OPEN_PATHS = ("/enter", "/report.css")  # without the token, like all of OPEN_FOLDER
OPEN_FOLDER = "/static/"
CHANGING = frozenset(("POST", "PUT", "PATCH", "DELETE"))
READING = frozenset(("GET", "HEAD"))
TRIES, EVERYBODYS_TRIES, TRIES_SECONDS = 10, 100, 60.0  # wrong tokens from one address, from all, in how long
MOST_FORM_BYTES = 4 << 20  # of a request that brings no pictures
UPLOAD_PATHS = ("/pictures", "/try")  # bounded where they are read
MOST_UPLOAD_BYTES = 8 << 30


@dataclass(frozen=True)
class Door:
    """Who may come in. token: None where none is asked for; names: what this machine may be called by."""

    token: str | None
    names: frozenset[str]
    port: int

    @property
    def cookie(self) -> str:
        """Its name. Cookies are shared by all ports of a host, so the port is in it."""
        return f"sharpzo-{self.port}"

    def is_open_to(self, token: str) -> bool:
        """In constant time: an answer must not tell how much of a token was right."""
        return self.token is None or hmac.compare_digest(token.encode(), self.token.encode())


def names_of(host: str, more: Iterable[str]) -> frozenset[str]:
    """What a page at this address may be called: this machine, by its names, and what the user allows."""
    names = {"localhost", "127.0.0.1", "::1", host, *more}
    if not is_loopback(host):
        own = socket.gethostname().lower()
        names |= {own, own.partition(".")[0], f"{own.partition('.')[0]}.local"}
    return frozenset(name.lower().strip("[]") for name in names if name)


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


@dataclass
class Tries:
    """Wrong tokens of the last minute. now: the clock, in seconds."""

    now: Callable[[], float] = time.monotonic
    wrong: deque[tuple[float, str]] = field(default_factory=deque)

    def are_used_up(self, address: str) -> bool:
        while self.wrong and self.now() - self.wrong[0][0] > TRIES_SECONDS:
            self.wrong.popleft()
        own = sum(1 for _, each in self.wrong if each == address)
        return own >= TRIES or len(self.wrong) >= EVERYBODYS_TRIES

    def add(self, address: str) -> None:
        self.wrong.append((self.now(), address))


class Safety:
    """Everything that comes in passes here first, and everything that goes out last."""

    def __init__(self, app: App, door: Door):
        self._app, self._door = app, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return  # no websocket is opened
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        guarded = _with_headers(send)
        if refused := self._refused(scope, headers):
            await _answer(guarded, *refused)
        elif _is_open(scope["path"]) or self._has_token(headers):
            await self._app(scope, _bounded(receive, scope["path"]), guarded)
        elif scope["method"] in READING and "text/html" in headers.get("accept", ""):
            await _answer(guarded, 303, "", location="/enter")
        else:
            await _answer(guarded, 401, "The token is missing. Open the address that the page printed.")

    def _refused(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        """A status and why, or None."""
        host = headers.get("host", "")
        if not self._is_ours(host, scope):
            return 403, (
                f"This page is not called {host[:100]!r}. It may be called by this machine's addresses and "
                f"names. Start it with --allow-host NAME to allow another"
            )
        if scope["method"] in CHANGING:
            origin = headers.get("origin")
            same = (
                headers.get("sec-fetch-site") == "same-origin" if origin is None else _place(origin) == host
            )
            if not same:
                return 403, "Another page sent this. Only this page itself may change something here."
        elif scope["method"] not in READING:
            return 405, "The page knows GET, HEAD and POST."
        elif headers.get("sec-fetch-site") in ("cross-site", "same-site") and (
            headers.get("sec-fetch-mode") != "navigate"
        ):
            return 403, "Another page asked for this. Open the page itself."
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length) > _most_bytes(scope["path"]):
            return 413, "That is more than the page takes in one piece. Send less at a time."
        return None

    def _is_ours(self, host: str, scope: Scope) -> bool:
        """By a name that is allowed, or by the very address that the connection came in at."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        here = (scope.get("server") or ("",))[0].partition("%")[0].lower()
        return bool(name) and (name in self._door.names or name == here)

    def _has_token(self, headers: dict[str, str]) -> bool:
        if self._door.token is None:
            return True
        try:
            found = SimpleCookie(headers.get("cookie", "")).get(self._door.cookie)
        except CookieError:
            return False
        return found is not None and self._door.is_open_to(found.value)


def _is_open(path: str) -> bool:
    return path in OPEN_PATHS or path.startswith(OPEN_FOLDER)


def _place(origin: str) -> str:
    """Host and port of an Origin header; "" for what is none."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _most_bytes(path: str) -> int:
    return MOST_UPLOAD_BYTES if path in UPLOAD_PATHS else MOST_FORM_BYTES


def _bounded(receive: Receive, path: str) -> Receive:
    """The same body, which ends as if the sender had gone where it is too long: a length may be a lie."""
    left = _most_bytes(path)

    async def receive_bounded() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        return message if left >= 0 else {"type": "http.disconnect"}

    return receive_bounded


def _with_headers(send: Send) -> Send:
    async def send_with(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = list(message.get("headers", ()))
            names = {name for name, _ in given}
            added = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in names]
            if b"cache-control" not in names:
                added.append((b"cache-control", b"no-store"))
            message = {**message, "headers": [*given, *added]}
        await send(message)

    return send_with


async def _answer(send: Send, status: int, text: str, **headers: str) -> None:
    body = text.encode()
    given = {"content-type": "text/plain; charset=utf-8", "content-length": str(len(body)), **headers}
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        }
    )
    await send({"type": "http.response.body", "body": body})
