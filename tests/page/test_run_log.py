"""The log of a run, as the page follows it."""

from __future__ import annotations

import json
from pathlib import Path

from sharpzo_edge.page.run_log import RunLog


def look(queries: int, loss: float = 1.0) -> dict[str, object]:
    return {"event": "look", "where": "stage 1", "queries": queries, "train": {"loss": loss}}


def write(path: Path, *events: object) -> None:
    with path.open("a") as file:
        file.writelines(f"{json.dumps(event)}\n" for event in events)


def queries(log: RunLog) -> list[int]:
    return [each["queries"] for each in log.looks]


def test_a_log_is_followed_while_it_grows(tmp_path):
    path = tmp_path / "log.jsonl"
    log = RunLog(path)
    assert not log.read()
    write(path, {"event": "said", "text": "hello"}, look(2))
    assert log.read() and queries(log) == [2] and log.said == ["hello"]
    with path.open("a") as file:
        file.write(json.dumps(look(40))[:20])
    log.read()
    assert queries(log) == [2]  # half a line is none yet
    with path.open("a") as file:
        file.write(json.dumps(look(40))[20:] + "\n")
    log.read()
    assert queries(log) == [2, 40] and not log.read()


def test_a_run_that_goes_on_does_not_double_its_curve(tmp_path):
    path = tmp_path / "log.jsonl"
    write(path, look(2), look(40, 2.0), look(80), look(40, 3.0), look(80))
    log = RunLog(path)
    log.read()
    assert queries(log) == [2, 40, 80]


def test_a_new_run_begins_a_new_curve(tmp_path):
    path = tmp_path / "log.jsonl"
    log = RunLog(path)
    write(path, look(2), look(1200), {"event": "done", "queries": 1200})
    log.read()
    assert log.done == {"queries": 1200}
    write(path, {"event": "said", "text": "again"})
    log.read()
    assert log.done is None and queries(log) == [] and log.said == ["again"]


def test_a_damaged_log_is_no_error(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'\xff\xfe\n[1]\n{}\n{"event": "look"}\n{"event": "look", "queries": "x"}\nnull\n')
    write(path, look(5))
    log = RunLog(path)
    log.read()
    assert queries(log) == [5]


def test_a_log_that_was_replaced_is_read_anew(tmp_path):
    path = tmp_path / "log.jsonl"
    write(path, look(2), look(40))
    log = RunLog(path)
    log.read()
    path.unlink()
    assert log.read() and log.looks == []
    write(path, look(3))
    log.read()
    assert queries(log) == [3]
