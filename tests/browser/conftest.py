"""A real browser, Debian's chromium, on a page of the demo in a process of its own: make test-page."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sharpzo_edge.demo import BUNDLE, DEFAULT_TASK, TASKS
from support.processes import ROOT, start

SIZES = {"phone": (390, 844), "desk": (1440, 900)}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WAIT = 120_000  # milliseconds, the most for a step, on a machine that has other work
SHOTS = ROOT / "build" / "page"
# The processes of a container run as root, where chromium's own sandbox does not.
OPTIONS = ["--no-sandbox", "--force-prefers-reduced-motion"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """While it is there, Playwright's event loop runs: no other test of this process may need one."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: make test-page installs Debian's")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as library:
        found = library.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield found
        found.close()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """The demo's pictures, one of them in a wrong class, and a file that is no picture."""
    folder = tmp_path / "sharpzo-demo"
    shutil.copytree(TASKS / DEFAULT_TASK / "train", folder)
    (folder / "animal_mammal" / "1F428.png").rename(folder / "clothing" / "1F428.png")
    (folder / "alphanum" / "0-torn.png").write_bytes((folder / "alphanum" / "1F171.png").read_bytes()[:300])
    return folder


@pytest.fixture
def url(photos: Path) -> Iterator[str]:
    """Where the page is."""
    command = [sys.executable, "-m", "sharpzo_edge", "page", "--json", "--port", 0]
    with start([*command, "--bundle", BUNDLE, "--images", photos]) as process:
        assert process.stdout
        yield json.loads(process.stdout.readline())["url"]
        process.terminate()


class Tab:
    """A tab of the browser, at a size, and what its console said."""

    def __init__(self, browser: Any, url: str, size: str, scheme: str = "light"):
        width, height = SIZES[size]
        self.is_phone = size == "phone"
        self.name = f"{size}-{scheme}"
        self._context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            has_touch=self.is_phone,
            is_mobile=self.is_phone,
        )
        self._context.set_default_timeout(WAIT)
        self.page = self._context.new_page()
        self.console: list[str] = []
        self.page.on("console", lambda said: self.console.append(f"{said.type}: {said.text}"))
        self.page.on("pageerror", lambda error: self.console.append(f"error: {error}"))
        self.url = url

    def open(self, tab: str = "") -> Any:
        self.page.goto(f"{self.url}{tab}")
        return self.page

    def press(self, what: Any) -> None:
        """A finger on a phone, a mouse elsewhere."""
        what.tap() if self.is_phone else what.click()

    def shoot(self, name: str) -> None:
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SHOTS / f"{name}-{self.name}.png")

    def close(self) -> None:
        assert [said for said in self.console if said.startswith(("error", "warning"))] == []
        self._context.close()
