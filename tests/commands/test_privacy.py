"""Nothing leaves the device: no socket is opened, and no file appears outside the work folder."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

import sharpzo_edge
from sharpzo_edge.demo import BUNDLE, TASKS

RUNTIME = Path(sharpzo_edge.__file__).parents[1]
TRAIN, TEST = TASKS / "subgroups" / "train", TASKS / "subgroups" / "test"

# Runs a command in whose processes the first call that opens a socket is a kill (a seccomp filter; x86-64 and
# aarch64). No name can be looked up without one.
WITHOUT_SOCKETS = """
import ctypes, os, struct, sys

class Filter(ctypes.Structure):
    _fields_ = [("n", ctypes.c_ushort), ("code", ctypes.c_char_p)]

NUMBER = {"x86_64": 41, "aarch64": 198}[os.uname().machine]
LOAD, EQUAL, RETURN, KILL, ALLOW = 0x20, 0x15, 0x06, 0x80000000, 0x7FFF0000
steps = [(LOAD, 0, 0, 0), (EQUAL, 0, 1, NUMBER), (RETURN, 0, 0, KILL), (RETURN, 0, 0, ALLOW)]
code = b"".join(struct.pack("HBBI", *step) for step in steps)
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # no new privileges
assert libc.prctl(22, 2, ctypes.byref(Filter(len(steps), code)), 0, 0) == 0
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or platform.machine() not in ("x86_64", "aarch64"),
    reason="the filter is Linux's",
)


def run(home: Path, here: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """In an empty HOME, and without sockets."""
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(RUNTIME)}
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_SOCKETS, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=here,
        env=environment,
        timeout=300,
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """The working folder."""
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


def test_the_filter_works(home: Path, here: Path) -> None:
    assert run(home, here, "-c", "print('alive')").stdout == "alive\n"
    assert run(home, here, "-c", "import socket; socket.socket()").returncode < 0


def test_no_command_opens_a_socket_or_leaves_a_file(home: Path, here: Path) -> None:
    """The tune is longer than the nine seconds after which onnxruntime would send its first report."""
    made = {"prompt.st", "prompt.st.work"}
    tune = ["tune", "--bundle", BUNDLE, "--images", TRAIN, "--output", "prompt.st"]
    picture = next((TEST / "sport").iterdir())
    for command in (
        ["doctor", "--bundle", BUNDLE],
        ["demo"],
        [*tune, "--preset", "paper", "--max-minutes", "0.18"],
        ["eval", "--bundle", BUNDLE, "--images", TEST, "--prompt", "prompt.st"],
        ["predict", "--bundle", BUNDLE, "--prompt", "prompt.st", picture],
    ):
        done = run(home, here, "-m", "sharpzo_edge", *command)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    assert not list(home.rglob("*"))
    assert {path.name for path in here.iterdir()} == made


def test_an_address_is_only_a_path_that_is_not_there(home: Path, here: Path) -> None:
    for command in (
        ["inspect", "https://example.com/bundle"],
        ["eval", "--bundle", BUNDLE, "--images", "http://example.com/photos"],
        ["predict", "--bundle", "//example.com/b", "--prompt", "p", "http://example.com/a.jpg"],
    ):
        assert run(home, here, "-m", "sharpzo_edge", *command).returncode == 2


def test_the_library_leaves_no_trace(home: Path, here: Path) -> None:
    code = (
        "import os, time\n"
        "before = dict(os.environ)\n"
        "import sharpzo_edge\n"
        f"sharpzo_edge.evaluate({str(BUNDLE)!r}, {str(TEST)!r})\n"
        "assert dict(os.environ) == before\n"
    )
    done = run(home, here, "-c", code)
    assert done.returncode == 0, done.stderr
    assert not list(home.rglob("*"))


def test_without_a_home_nothing_is_said_of_it(home: Path, here: Path) -> None:
    done = run(Path("/nonexistent/home"), here, "-c", "import sharpzo_edge; sharpzo_edge.tune")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
