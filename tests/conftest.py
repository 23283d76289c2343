"""The embedded bundle, whole and in copies that a test may damage, and folders of tiny pictures."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sharpzo_edge
from sharpzo_edge.clip.bundle import MANIFEST_FILE, Bundle

EMBEDDED = Path(sharpzo_edge.__file__).parent / "demo" / "bundle"


class BundleCopy:
    """A copy of the embedded bundle, and ways to damage it."""

    def __init__(self, folder: Path):
        self.folder = folder
        shutil.copytree(EMBEDDED, folder)

    def open(self) -> Bundle:
        return Bundle.open(self.folder)

    def manifest(self) -> dict:
        return json.loads((self.folder / MANIFEST_FILE).read_bytes())

    def set_manifest(self, manifest: object) -> None:
        (self.folder / MANIFEST_FILE).write_text(json.dumps(manifest))

    def replace(self, name: str, data: bytes) -> None:
        """Other bytes for a file, and a manifest that says so: damage that only a reader can find."""
        (self.folder / name).write_bytes(data)
        manifest = self.manifest()
        manifest["files"][name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        self.set_manifest(manifest)


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
