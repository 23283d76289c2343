"""Server-sent events: first all that there is, then what is new."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sharpzo_edge.page import events as module
from sharpzo_edge.page.events import events


def told(text: str) -> tuple[str, Any]:
    """One event's name and value."""
    name, data = text.strip().split("\n")
    return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


def test_a_listener_gets_what_was_and_then_what_is_new(client, monkeypatch):
    monkeypatch.setattr(module, "EVERY_SECONDS", 0.01)
    log = Path(f"{client.page.run.output}.work") / "log.jsonl"
    log.parent.mkdir()
    looks = [{"event": "look", "where": "x", "queries": n, "train": {}, "val": None} for n in (2, 40, 80)]
    lines = [f"{json.dumps(look)}\n" for look in looks]
    log.write_text("".join(lines[:2]))
    stream = events(client.page.run)

    async def next_but(skipped: str) -> str:
        while (text := await anext(stream)).startswith(skipped):
            pass
        return text

    name, value = told(client.run(anext(stream)))
    assert name == "run" and value["state"] == "none"
    name, value = told(client.run(anext(stream)))
    assert name == "looks" and [each["queries"] for each in value] == [2, 40]
    with log.open("a") as file:
        file.write(lines[2])
    name, value = told(client.run(next_but(":")))
    assert name == "look" and value["queries"] == 80
    client.run(stream.aclose())
