"""A page on two classes of three pictures, asked in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.page_client import Client


@pytest.fixture
def client(pictures: Path) -> Iterator[Client]:
    from support.page_client import Client, page_request

    with Client(page_request(pictures)) as found:
        yield found
