"""The page's side of its helper: starts it, gives it one order at a time, ends it when it has none."""

from __future__ import annotations

import asyncio
import contextlib
import json
from asyncio.subprocess import DEVNULL, Process
from typing import Any

from ..errors import SharpzoError
from .children import start

IDLE_SECONDS = 60.0
ORDER_SECONDS = 600.0  # the most that one order may take
LONGEST_ANSWER = 8 << 20  # bytes


class Worker:
    """The helper, which runs only while it has work. budget, threads: as after the options of those names."""

    def __init__(self, budget: str, threads: int, idle_seconds: float = IDLE_SECONDS):
        self._command = (f"{__package__}.worker_process", budget, str(threads))
        self._idle_seconds = idle_seconds
        self._process: Process | None = None
        self._lock = asyncio.Lock()
        self._end: asyncio.TimerHandle | None = None

    @property
    def pid(self) -> int | None:
        """None while it does not run."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def ask(self, do: str, **order: Any) -> dict[str, Any]:
        """Give an order, and wait for the answer. Raises SharpzoError, also when the helper ended."""
        async with self._lock:
            if self._end:
                self._end.cancel()
            try:
                async with asyncio.timeout(ORDER_SECONDS):
                    answer = await self._answer_to({"do": do, **order})
            except (OSError, ValueError, TimeoutError) as error:
                self._kill()
                raise SharpzoError(
                    "The page's helper ended before it answered, for lack of memory or time. It may take "
                    "what --memory-budget says. Start the page with a larger one, or stop other programs"
                ) from error
            self._end = asyncio.get_running_loop().call_later(self._idle_seconds, self._close)
        if "error" in answer:
            raise SharpzoError(answer["error"])
        return answer

    async def _answer_to(self, order: dict[str, Any]) -> dict[str, Any]:
        process = await self._running()
        assert process.stdin and process.stdout  # both are pipes
        process.stdin.write(f"{json.dumps(order)}\n".encode())
        await process.stdin.drain()
        answer: dict[str, Any] = json.loads(await process.stdout.readline())
        return answer

    async def _running(self) -> Process:
        if self.pid is None:
            self._process = await start(*self._command, stderr=DEVNULL, limit=LONGEST_ANSWER)
        assert self._process
        return self._process

    def _close(self) -> None:
        """Let it end by itself, once it has done what it has."""
        if self._process and self._process.stdin:
            self._process.stdin.close()
        self._process = None

    def _kill(self) -> None:
        if self._process and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        self._process = None

    async def close(self) -> None:
        """When the page ends."""
        if self._end:
            self._end.cancel()
        process = self._process
        self._kill()
        if process:
            await process.wait()
