"""The page's processes after all that a user does: the page itself, and its helper.

Folders of so many pictures, copies of the demo's, in ten classes. Every tab is opened, all tiles are listed,
200 thumbnails are made, a picture is shown large, a run is made, its result is shown and a picture is tried.
The peaks are Linux's VmHWM.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from shared.machine import ROOT
from sharpzo_edge.demo import BUNDLE, DEFAULT_TASK, TASKS
from sharpzo_edge.process_memory import MIB, sizes_of

N_CLASSES, N_THUMBNAILS = 10, 200
BOUNDARY = "bench"
RUN = {"preset": "demo", "shots": "16", "val": "4"}


class Browser:
    """What asks a page, as a browser does."""

    def __init__(self, url: str):
        self._place = urlsplit(url).netloc

    def ask(self, path: str, body: bytes | None = None, kind: str = "") -> bytes:
        connection = http.client.HTTPConnection(self._place, timeout=600)
        with contextlib.closing(connection):
            headers = {"Origin": f"http://{self._place}", "Content-Type": kind}
            connection.request("GET" if body is None else "POST", path, body, headers)
            answer = connection.getresponse()
            found = answer.read1(1 << 22) if path == "/events" else answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {found!r}")
        return found

    def post(self, path: str, fields: dict[str, str]) -> bytes:
        return self.ask(path, urlencode(fields).encode(), "application/x-www-form-urlencoded")


def measure(n_pictures: int, folder: Path) -> dict[str, Any]:
    images = pictures(n_pictures, folder / "photos")
    with serving(images, folder / "prompt.safetensors") as (pid, browser):
        for path in ("/", "/contents", "/tune", "/try"):
            browser.ask(path)
        for k in range(N_CLASSES):
            browser.ask(f"/tiles?class=class_{k}&most=5000")
        some = sorted((images / "class_3").iterdir())[:N_THUMBNAILS]
        for picture in some:
            browser.ask(f"/thumbnail?of=class_3/{picture.name}")
        browser.ask(f"/view?of=class_3/{some[0].name}")
        browser.post("/plan", RUN)
        browser.post("/start", RUN)
        while b'"finished"' not in browser.ask("/events"):
            time.sleep(0.2)
        browser.ask("/report")
        browser.ask("/try", form(some[0]), f"multipart/form-data; boundary={BOUNDARY}")
        (helper,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return {
            "pictures": n_pictures,
            "page_mib": sizes_of(pid)["VmHWM"] / MIB,
            "helper_mib": sizes_of(helper)["VmHWM"] / MIB,
        }


def pictures(n: int, folder: Path) -> Path:
    shipped = sorted((TASKS / DEFAULT_TASK / "train").rglob("*.png"))
    for i in range(n):
        place = folder / f"class_{i % N_CLASSES}" / f"{i:05}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(shipped[i % len(shipped)], place)
    (folder / "class-names.json").write_text(
        json.dumps({f"class_{k}": path.name.replace("_", " ") for k, path in enumerate(class_folders())})
    )
    return folder


def class_folders() -> list[Path]:
    return sorted((TASKS / DEFAULT_TASK / "train").iterdir())


def form(picture: Path) -> bytes:
    head = f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="picture"; filename="a.png"\r\n\r\n'
    return head.encode() + picture.read_bytes() + f"\r\n--{BOUNDARY}--\r\n".encode()


@contextlib.contextmanager
def serving(images: Path, output: Path) -> Iterator[tuple[int, Browser]]:
    """The command that a user types, in a process of its own."""
    command = [sys.executable, "-m", "sharpzo_edge", "page", "--json", "--port", "0", "--bundle", BUNDLE]
    paths = os.pathsep.join([str(ROOT / "runtime"), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [*map(str, command), "--images", str(images), "--output", str(output)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": paths},
    )
    assert process.stdout
    try:
        yield process.pid, Browser(json.loads(process.stdout.readline())["url"])
    finally:
        process.terminate()
        process.wait()
