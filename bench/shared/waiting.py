"""To wait for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

SECONDS = 60.0


def until(is_so: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """Wait for something; returns it."""
    end = time.monotonic() + seconds
    while not (found := is_so()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)
    return found
