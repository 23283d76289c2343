"""The embedded bundle, whole and in copies that a test may damage, and folders of tiny pictures."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sharpzo_edge.clip.bundle import Bundle
from support.bundle_copy import EMBEDDED, BundleCopy


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    return Bundle.open(EMBEDDED)


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
def ungoverned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that runs the command line in this process does not change what the next one finds."""
    monkeypatch.setattr("sharpzo_edge.process_memory._governed", False)
