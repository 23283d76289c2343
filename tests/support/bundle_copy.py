"""The embedded bundle, and copies of it that a test may damage."""

import hashlib
import json
import shutil
from pathlib import Path

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
