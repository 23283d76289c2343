"""A browser's requests to the page, in this process: no socket, and one event loop for all of them.

A test file that imports this is skipped where the extra [page] is not installed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

import pytest

for library in ("starlette", "uvicorn", "python_multipart", "segno", "jinja2"):
    pytest.importorskip(library, reason=f"the extra [page] is not installed: there is no {library}")

from sharpzo_edge.page.routes import Routes
from sharpzo_edge.page.safety import Door, Safety, Tries, names_of
from sharpzo_edge.page.state import Page, page_of
from sharpzo_edge.requests import PageRequest

BOUNDARY = "sharpzo-test"
HERE = "127.0.0.1:8750"
FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        found: str = self.json["error"]
        return found


class Client:
    """A browser that shows the page of a request. A context manager.

    host: what the browser calls the page;  address: where its connections come from
    """

    def __init__(
        self, request: PageRequest, token: str | None = None, host: str = HERE, allowed: Sequence[str] = ()
    ):
        self.page: Page = page_of(request)
        self.host, self.cookie, self.address = host, "", "127.0.0.1"
        self._door = Door(token, names_of("127.0.0.1", allowed), 8750)
        self.tries = Tries()
        self._app = Safety(Routes(self.page, self._door, self.tries).app(), self._door)
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.run(self.page.run.stop())
        self.run(self.page.worker.close())
        self._runner.close()

    def run(self, work: Any) -> Any:
        """Wait for what the page does."""

        async def waiting() -> Any:
            return await work

        return self._runner.run(waiting())

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def post(self, path: str, fields: Mapping[str, str] = {}, **headers: str) -> Answer:
        kind = {"content_type": FORM, "origin": f"http://{self.host}"}
        return self.ask("POST", path, urlencode(fields).encode(), **(kind | headers))

    def send(self, path: str, files: Sequence[tuple[str, bytes]], **headers: str) -> Answer:
        """Upload files by their names."""
        kind = {"content_type": f"multipart/form-data; boundary={BOUNDARY}", "origin": f"http://{self.host}"}
        return self.ask("POST", path, form_of(files), **(kind | headers))

    def ask(
        self, method: str, path: str, body: bytes = b"", cut: int | None = None, **headers: str
    ) -> Answer:
        """cut: after how many bytes of the body the browser goes."""
        given = {"host": self.host, "content_length": str(len(body))} | headers
        if self.cookie:
            given["cookie"] = self.cookie
        return self.run(self._asked(method, path, body, cut, given))  # type: ignore[no-any-return]

    async def _asked(
        self, method: str, path: str, body: bytes, cut: int | None, headers: Mapping[str, str]
    ) -> Answer:
        parts = urlsplit(path)
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": parts.path,
            "raw_path": parts.path.encode(),
            "query_string": parts.query.encode(),
            "root_path": "",
            "headers": [(k.replace("_", "-").encode(), v.encode("latin-1")) for k, v in headers.items()],
            "client": (self.address, 5000),
            "server": ("127.0.0.1", 8750),
        }
        chunks = self._chunks(body, cut)
        sent: list[Any] = []

        async def receive() -> Any:
            return await anext(chunks)

        async def send(message: Any) -> None:
            sent.append(message)

        await self._app(scope, receive, send)
        start = next(each for each in sent if each["type"] == "http.response.start")
        answer = b"".join(each.get("body", b"") for each in sent)
        return Answer(start["status"], {k.decode(): v.decode() for k, v in start["headers"]}, answer)

    @staticmethod
    async def _chunks(body: bytes, cut: int | None) -> AsyncIterator[Any]:
        step, end = 7000, len(body) if cut is None else cut
        for i in range(0, max(end, 1), step):
            chunk = body[i : min(i + step, end)]
            yield {"type": "http.request", "body": chunk, "more_body": cut is not None or i + step < end}
        while True:
            yield {"type": "http.disconnect"}


def form_of(files: Sequence[tuple[str, bytes]]) -> bytes:
    parts = [
        f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="picture"; filename="{name}"\r\n'.encode()
        + b"content-type: image/jpeg\r\n\r\n"
        + data
        + b"\r\n"
        for name, data in files
    ]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def page_request(images: Path, **options: Any) -> PageRequest:
    """Of a folder of pictures, on the demo's bundle, one thread."""
    from sharpzo_edge.demo import BUNDLE

    return PageRequest(bundle=BUNDLE, images=images, threads=1, **options)


def files_below(root: Path) -> list[str]:
    """All files but the page's own, below a folder."""
    found = (path.relative_to(root) for path in root.rglob("*") if not path.is_dir())
    return sorted(str(path) for path in found if path.parts[0] != ".page")
