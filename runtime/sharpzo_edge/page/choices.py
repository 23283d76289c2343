"""What the Tune tab lets a user choose, as the options of `tune`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..requests import TuneRequest
from ..run.files import read_limited, write_json

LIMIT_BYTES = 64 << 10
PRESETS = {
    "edge": "edge: the default",
    "demo": "demo: a short run, for small models",
    "head": "head: only a classifier on the pictures, no tuning",
}
MOST = {"shots": 10_000, "val": 10_000, "seed": 2**31 - 1, "max_minutes": 100_000}


@dataclass(frozen=True)
class Choices:
    """max_minutes: None for no limit. What is not chosen is left to tune, so the defaults are tune's own."""

    preset: str = TuneRequest.preset
    shots: int = TuneRequest.shots
    val: int = TuneRequest.val
    seed: int = TuneRequest.seed
    max_minutes: int | None = None

    @property
    def options(self) -> list[str]:
        """As they are typed after `tune`."""
        given = {
            name: value for name, value in dataclasses.asdict(self).items() if value != getattr(Choices, name)
        }
        return [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def choices_of(form: Mapping[str, str], default: Choices) -> Choices:
    """What a form says. Raises UsageError for a value that tune cannot have."""
    preset = form.get("preset", default.preset)
    if preset not in PRESETS:
        raise _wrong("preset", preset, f"one of {', '.join(PRESETS)}")
    numbers: dict[str, Any] = {name: _number(name, form.get(name, ""), default) for name in MOST}
    return Choices(preset, **numbers)


def _number(name: str, text: str, default: Choices) -> Any:
    if not text.strip():
        return None if name == "max_minutes" else getattr(default, name)
    least = 0 if name in ("val", "seed") else 1
    if not text.strip().isascii() or not text.strip().isdigit() or not least <= int(text) <= MOST[name]:
        raise _wrong(name.replace("_", " "), text, f"a whole number from {least} to {MOST[name]:,}")
    return int(text)


def _wrong(name: str, value: str, allowed: str) -> UsageError:
    return UsageError(f"{value[:40]!r} cannot be {name}. It takes {allowed}. Correct it, and try again")


def load_choices(path: Path, default: Choices) -> Choices:
    """What was chosen the last time; the default where there is nothing that can be used."""
    try:
        found = json.loads(read_limited(path, LIMIT_BYTES))
        return choices_of({name: "" if each is None else str(each) for name, each in found.items()}, default)
    except (OSError, ValueError, AttributeError, RecursionError, UsageError):
        return default


def save_choices(path: Path, choices: Choices) -> None:
    write_json(path, dataclasses.asdict(choices))
