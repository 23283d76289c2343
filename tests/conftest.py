"""The embedded bundle, whole and in copies that a test may damage, and folders of tiny pictures."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from PIL import Image

from sharpzo_edge.clip.bundle import Bundle
from sharpzo_edge.demo import DEFAULT_TASK, TASKS
from support import processes
from support.bundle_copy import EMBEDDED, BundleCopy

# Not hypothesis' choice: it takes another profile where the environment says CI, and keeps a database here.
hypothesis.settings.register_profile("tests", deadline=None, database=None)
hypothesis.settings.load_profile("tests")


@pytest.fixture(scope="session", autouse=True)
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The same environment, home, folder, file modes and signals, whatever those are that pytest met.

    SIGHUP stays as it was: whoever types `nohup make test` wants the tests to survive their terminal.
    """
    umask = os.umask(processes.UMASK)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it is ignored, exit codes are lost
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD, signal.SIGALRM})
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if not name.startswith("PYTEST_"):
                patch.delenv(name)
        for name, value in (processes.clean(processes.ORIGINAL) | {"HOME": str(home)}).items():
            patch.setenv(name, value)
        patch.chdir(home)
        yield
    os.umask(umask)


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    return Bundle.open(EMBEDDED)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of the demo's first task. A test that changes pictures copies them first."""
    folder = tmp_path_factory.mktemp("images")
    for each in sorted((TASKS / DEFAULT_TASK / "train").iterdir())[:2]:
        shutil.copytree(each, folder / each.name)
    return folder


@pytest.fixture
def bundle_copy(tmp_path: Path) -> BundleCopy:
    return BundleCopy(tmp_path / "bundle")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes of three tiny pictures each: photos/cat, photos/hot_dog."""
    rng = np.random.default_rng(0)
    for name, level in (("cat", 40), ("hot_dog", 200)):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for i in range(3):
            noise = rng.integers(level, level + 50, (20, 24, 3)).astype(np.uint8)
            Image.fromarray(noise).save(folder / f"{i}.png")
    return tmp_path / "photos"


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tune in this process makes no report unless it is asked to: it would start a process each time."""
    monkeypatch.setattr("sharpzo_edge.commands.reports.can_report", lambda: False)


@pytest.fixture(autouse=True)
def ungoverned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that runs the command line in this process does not change what the next one finds."""
    monkeypatch.setattr("sharpzo_edge.process_memory._governed", False)
