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

    def make_format_2(self) -> None:
        """The bundle as an earlier version exported it: without tangents."""
        manifest = self.manifest() | {"format_version": 2}
        del manifest["text"]["tangents"]
        for name in [
            n for n in manifest["files"] if n.startswith(("text_primal", "text_tangent", "text_int8"))
        ]:
            (self.folder / name).unlink()
            del manifest["files"][name]
        self.set_manifest(manifest)

    def keep_float32_tangents(self) -> None:
        """The bundle as `export --tangents fp32` writes it."""
        manifest = self.manifest()
        tangents = manifest["text"]["tangents"]
        rounded = {tangents["data"], *(step["int8"] for step in tangents["steps"])}
        tangents["data"] = None
        for step in tangents["steps"]:
            step |= {"int8": None, "weights": []}
        for name in rounded:
            (self.folder / name).unlink()
            del manifest["files"][name]
        self.set_manifest(manifest)

    def make_deep(self, layers: int) -> None:
        """Text towers of any depth, from 2 on: the first block again and again, and the last one."""
        manifest = self.manifest()
        text = manifest["text"]
        halves, of_tangents = text["steps"][1:-1], text["tangents"]["steps"]
        deep, of_deep = (each[:2] * (layers - 1) + each[-2:] for each in (halves, of_tangents))
        text["layers"], text["tangents"]["steps"] = layers, of_deep
        text["steps"] = [text["steps"][0], *deep, text["steps"][-1]]
        self.set_manifest(manifest)
