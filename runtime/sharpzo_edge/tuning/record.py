"""What a work folder is for: the command that it was made for, and its result once there is one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..run.files import read_checked_json, write_checked_json
from ..run.typed_json import from_json

RECORD_FILE = "run.json"


@dataclass(frozen=True)
class Head:
    """val_accuracy, val_loss: of prompt and head together."""

    kind: str
    weight: float
    val_accuracy: float
    val_loss: float


@dataclass(frozen=True)
class Result:
    """What `tune --json` prints."""

    queries: int
    stage1_queries: int
    stage2_queries: int
    seconds: float
    peak_rss_mib: float
    best_queries: int
    stopped: str
    train_loss: float
    train_accuracy: float
    val_accuracy: float | None
    val_loss: float | None
    zero_shot_train_loss: float
    plan: dict[str, Any]
    prompt: str
    head: Head | None


@dataclass(frozen=True)
class Record:
    """made_for: by the names that the user types, what decides the result.
    output: checksum of the output file, as the run found it (None: there was none) or as it wrote it.
    result: None while the run goes on.
    """

    made_for: dict[str, Any]
    output: str | None
    result: Result | None


def save_record(work: Path, record: Record) -> None:
    """Raises SharpzoError when the disk does not take it."""
    write_checked_json(work / RECORD_FILE, asdict(record))


def load_record(work: Path) -> Record | None:
    """None when there is none, or a damaged one."""
    try:
        record = from_json(Record, read_checked_json(work / RECORD_FILE))
    except ValueError:
        return None
    assert isinstance(record, Record)
    return record
