"""What `pip install .` puts on a board."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import sharpzo_edge
from sharpzo_edge.demo import DEFAULT_TASK
from support.processes import finish

ROOT = Path(sharpzo_edge.__file__).parents[2]
EMBEDDED_LIMIT_BYTES = 28 << 20  # what the product promises for the bundle and the demo's pictures


def test_the_wheel_holds_both_packages_and_the_embedded_default(tmp_path: Path) -> None:
    """Built by the hatchling that is installed here (group test), so that no network is needed."""
    offline = ("--no-build-isolation", "--no-deps", "--no-index")
    finish([sys.executable, "-m", "pip", "wheel", "--quiet", *offline, "-w", tmp_path, ROOT])
    (wheel,) = tmp_path.glob("*.whl")
    entries = {entry.filename: entry.file_size for entry in zipfile.ZipFile(wheel).infolist()}
    for name in (
        "sharpzo_edge/cli.py",
        "sharpzo_export/write_bundle.py",
        "sharpzo_edge/demo/bundle/manifest.json",
        "sharpzo_edge/demo/bundle/text.data",
    ):
        assert name in entries
    assert "sharpzo_edge/demo/ATTRIBUTION.md" in entries
    shipped = "sharpzo_edge/demo/tasks/"
    parts = {tuple(name.removeprefix(shipped).split("/")[:2]) for name in entries if name.startswith(shipped)}
    # The styles of a shift have licences of their own, and stay at home.
    assert parts == {(DEFAULT_TASK, part) for part in ("train", "test", "ATTRIBUTION.md")}
    embedded = sum(size for name, size in entries.items() if name.startswith("sharpzo_edge/demo/"))
    assert embedded < EMBEDDED_LIMIT_BYTES
    assert not [name for name in entries if "__pycache__" in name or name.startswith(("tests", "bench"))]
