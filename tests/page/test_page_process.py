"""The page's own process, as `sharpzo-edge page` starts it: small, and gone in good order."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from sharpzo_edge.demo import BUNDLE
from sharpzo_edge.page import worker as worker_module
from sharpzo_edge.page.worker import Worker
from sharpzo_edge.process_memory import MIB, sizes_of
from support.page_client import BOUNDARY, form_of
from support.processes import finish, start

PROMISED_MIB = 80  # of the page's own process; docs/memory.md has what was measured
BUDGET_MIB = 128
HEAVY = re.compile(r"numpy|onnxruntime|PIL|pillow", re.IGNORECASE)

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it reads Linux's /proc")


class Server:
    """A page in a process of its own, and what a browser asks of it."""

    def __init__(self, process: subprocess.Popen[str]):
        assert process.stdout
        self.process, self.pid = process, process.pid
        self.line = process.stdout.readline()
        if not self.line:
            raise AssertionError(process.communicate()[1])
        self.url = json.loads(self.line)["url"]
        self.place = urlsplit(self.url).netloc

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.place, timeout=60)
        given = {"Origin": f"http://{self.place}"} | {k.replace("_", "-"): v for k, v in headers.items()}
        connection.request(method, path, body, given)
        answer = connection.getresponse()
        with contextlib.closing(connection):
            return answer.status, answer.read()

    def post(self, path: str, body: bytes = b"") -> int:
        return self.ask("POST", path, body, Content_Type="application/x-www-form-urlencoded")[0]

    def children(self) -> list[int]:
        found = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [int(pid) for pid in found]


def require_loopback() -> None:
    """Skips where this machine cannot reach itself, as in a new network namespace."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            socket.create_connection(listening.getsockname(), timeout=5).close()
    except OSError as error:
        pytest.skip(f"this machine cannot reach itself at 127.0.0.1 ({error})")


@contextlib.contextmanager
def serving(*words: object, **environment: str) -> Iterator[Server]:
    require_loopback()
    command = [sys.executable, "-m", "sharpzo_edge", "page", "--json", "--port", 0, "--threads", 1, *words]
    with start(command, **environment) as process:
        try:
            yield Server(process)
        finally:
            process.kill()


def test_the_page_stays_small_and_meets_no_heavy_library(images, tmp_path):
    with serving("--bundle", BUNDLE, "--images", images, "--output", tmp_path / "p.safetensors") as server:
        picture = next(images.rglob("*.png"))
        word = "/".join(picture.relative_to(images).parts)
        for path in (
            "/",
            "/contents",
            f"/thumbnail?of={word}",
            f"/view?of={word}",
            "/tune",
            "/try",
            "/result",
        ):
            assert server.ask("GET", path)[0] == 200
        assert server.post("/start", b"preset=demo&shots=4") == 200
        while server.children():  # the run, and the helper
            if b'"finished"' in first_events(server):
                break
        assert server.ask("GET", "/report")[0] == 200
        kind = f"multipart/form-data; boundary={BOUNDARY}"
        form = form_of([("a.png", picture.read_bytes())])
        assert server.ask("POST", "/try", form, Content_Type=kind)[0] == 200
        torn = form_of([("torn <b>.png", picture.read_bytes()[:300])])
        code, said = server.ask("POST", "/try", torn, Content_Type=kind)
        assert code == 400 and b"The picture torn <b>.png cannot be used" in said  # no path of this machine
        (helper,) = server.children()
        assert sizes_of(server.pid)["VmHWM"] / MIB < PROMISED_MIB
        assert sizes_of(helper)["VmHWM"] / MIB < BUDGET_MIB
        mapped = Path(f"/proc/{server.pid}/maps").read_text()
        assert not HEAVY.search(mapped) and HEAVY.search(Path(f"/proc/{helper}/maps").read_text())


def first_events(server: Server) -> bytes:
    """What the events say at this moment."""
    connection = http.client.HTTPConnection(server.place, timeout=60)
    connection.request("GET", "/events")
    with contextlib.closing(connection):
        return connection.getresponse().read1(1 << 20)


def test_the_page_imports_no_heavy_library():
    code = "import sharpzo_edge.page.server, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = set(finish([sys.executable, "-c", code]).stdout.split())
    assert "starlette" in loaded and not loaded & {"numpy", "onnxruntime", "PIL", "safetensors"}


def test_the_extra_is_asked_for_where_it_is_missing():
    code = (
        "import sys; sys.modules['starlette'] = None; sys.argv = ['sharpzo-edge', 'page']; "
        "from sharpzo_edge.__main__ import main; main()"
    )
    said = finish([sys.executable, "-c", code], code=2).stderr
    assert "starlette is not installed" in said and "pip install '.[page]'" in said


def test_a_token_is_printed_once_for_a_network(pictures):
    with serving("--bundle", BUNDLE, "--images", pictures, "--host", "0.0.0.0") as server:
        found = json.loads(server.line)
        assert found["url"].endswith(f"/enter#{found['token']}") and len(found["token"]) == 32
        port = urlsplit(server.url).port
        server.place = f"127.0.0.1:{port}"
        assert server.ask("GET", "/")[0] == 401
        assert server.ask("GET", "/", Cookie=f"sharpzo-{port}={found['token']}")[0] == 200


def test_on_this_machine_there_is_no_token(pictures):
    with serving("--bundle", BUNDLE, "--images", pictures) as server:
        assert json.loads(server.line) == {"url": f"http://{server.place}/", "token": None}


def test_the_demo_is_copied_and_never_labelled_where_it_is(tmp_path):
    copy = "from sharpzo_edge.page.demo_folder import copy_demo; copy_demo()"
    code = f"import os; os.chdir({str(tmp_path)!r}); {copy}"
    finish([sys.executable, "-c", code])
    demo = tmp_path / "sharpzo-demo"
    assert sorted(path.name for path in demo.iterdir()) == ["ATTRIBUTION.md", "pictures", "to-try"]
    assert len(list((demo / "pictures").rglob("*.png"))) == 187
    (demo / "pictures" / "sport").rename(demo / "pictures" / "games")
    finish([sys.executable, "-c", code])  # what is there stays as it is
    assert not (demo / "pictures" / "sport").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--bundle", BUNDLE), "--images is not"),
        (("--images", "x"), "--bundle is not"),
        (("--port", "70000"), "is no port"),
        (("--bundle", BUNDLE, "--images", "/no/such/place"), "cannot be made"),
    ],
)
def test_options_that_cannot_be_are_refused(words, said):
    assert said in finish([sys.executable, "-m", "sharpzo_edge", "page", *words], code=2).stderr


def test_a_port_that_is_taken_is_refused(pictures):
    require_loopback()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = ("--port", taken.getsockname()[1], "--bundle", BUNDLE, "--images", pictures)
        refused = finish([sys.executable, "-m", "sharpzo_edge", "page", *words], code=2)
    assert "cannot listen" in refused.stderr and "(Address already in use)" in refused.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_end_of_the_page_saves_the_run(images, tmp_path, number):
    output = tmp_path / "p.safetensors"
    with serving("--bundle", BUNDLE, "--images", images, "--output", output) as server:
        assert server.post("/start", b"preset=edge&shots=4") == 200
        log = tmp_path / "p.safetensors.work" / "log.jsonl"
        while not (log.exists() and "stage 1" in log.read_text()):
            time.sleep(0.02)
        children = server.children()
        server.process.send_signal(number)
        assert server.process.wait(30) == 0
        assert (tmp_path / "p.safetensors.work" / "checkpoint.safetensors").exists()
        assert not any(Path(f"/proc/{pid}/cmdline").exists() for pid in children)


def test_a_kill_in_the_middle_of_an_upload_leaves_no_picture(pictures):
    png = (pictures / "cat" / "0.png").read_bytes()
    with serving("--bundle", BUNDLE, "--images", pictures) as server:
        body = form_of([("new.png", png + bytes(500_000))])
        host, port = server.place.split(":")
        with socket.create_connection((host, int(port))) as connection:
            head = (
                f"POST /pictures?to=cat HTTP/1.1\r\nHost: {server.place}\r\nOrigin: http://{server.place}\r\n"
                f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
                f"Content-Length: {len(body)}\r\n\r\n"
            )
            connection.sendall(head.encode() + body[:300_000])
            uploads = pictures / ".page" / "uploads"
            while not any(path.stat().st_size for path in uploads.iterdir()):
                time.sleep(0.02)
            server.process.kill()
            server.process.wait(30)
    assert sorted(os.listdir(pictures / "cat")) == ["0.png", "1.png", "2.png"]
    assert len(os.listdir(uploads)) == 1
    with serving("--bundle", BUNDLE, "--images", pictures):
        assert os.listdir(uploads) == []


def test_the_helper_ends_when_it_has_no_work(pictures, monkeypatch):
    """After a minute; here after a moment."""
    import asyncio

    assert worker_module.IDLE_SECONDS == 60

    async def work() -> tuple[int | None, int | None]:
        helper = Worker("128MiB", 1, idle_seconds=0.3)
        await helper.ask("view", picture=str(pictures / "cat" / "0.png"))
        first = helper.pid
        await asyncio.sleep(1.5)
        assert helper.pid is None and not Path(f"/proc/{first}/cmdline").exists()
        await helper.ask("view", picture=str(pictures / "cat" / "0.png"))  # and comes back
        second = helper.pid
        await helper.close()
        return first, second

    first, second = asyncio.run(work())
    assert first and second and first != second


def test_a_helper_that_dies_is_a_sentence_and_comes_back(pictures):
    import asyncio

    async def work() -> None:
        helper = Worker("128MiB", 1)
        await helper.ask("view", picture=str(pictures / "cat" / "0.png"))
        assert helper.pid
        os.kill(helper.pid, signal.SIGKILL)
        with pytest.raises(Exception, match="ended before it answered"):
            await helper.ask("view", picture=str(pictures / "cat" / "0.png"))
        assert "jpeg" in await helper.ask("view", picture=str(pictures / "cat" / "0.png"))
        await helper.close()

    asyncio.run(work())


def test_ten_thousand_pictures_stay_usable(pictures, tmp_path):
    """All of them are listed, and the page's process stays small."""
    for i in range(5000):
        for name in ("cat", "hot_dog"):
            os.link(pictures / name / "0.png", pictures / name / f"x{i:04}.png")
    with serving("--bundle", BUNDLE, "--images", pictures) as server:
        assert len(server.ask("GET", "/")[1]) < 100_000  # tiles come when they are near
        assert server.ask("GET", "/tiles?class=cat")[1].count(b"data-word") == 60
        assert server.ask("GET", "/tiles?class=cat&start=5000")[1].count(b"data-word") == 3
        assert server.ask("GET", "/tiles?class=cat&most=5000")[1].count(b"data-word") == 5000
        words = "%0A".join(f"cat/x{i:04}.png" for i in range(5000))
        assert server.post("/move", f"to=hot_dog&pictures={words}".encode()) == 200
        assert len(os.listdir(pictures / "hot_dog")) == 10_003
        assert sizes_of(server.pid)["VmHWM"] / MIB < PROMISED_MIB
