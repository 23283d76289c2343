"""What `pip install .` puts on a board."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import sharpzo_edge

ROOT = Path(sharpzo_edge.__file__).parents[2]
EMBEDDED_LIMIT_BYTES = 24 << 20  # what the product promises for the bundle and the demo's pictures


def test_the_wheel_holds_both_packages_and_the_embedded_default(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", tmp_path, ROOT], check=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    entries = {entry.filename: entry.file_size for entry in zipfile.ZipFile(wheel).infolist()}
    for name in (
        "sharpzo_edge/cli.py",
        "sharpzo_export/write_bundle.py",
        "sharpzo_edge/demo/bundle/manifest.json",
        "sharpzo_edge/demo/bundle/text.data",
    ):
        assert name in entries
    tasks = {name.split("/")[3] for name in entries if name.startswith("sharpzo_edge/demo/tasks/")}
    assert tasks
    for task in tasks:
        assert f"sharpzo_edge/demo/tasks/{task}/ATTRIBUTION.md" in entries
    embedded = sum(size for name, size in entries.items() if name.startswith("sharpzo_edge/demo/"))
    assert embedded < EMBEDDED_LIMIT_BYTES
    assert not [name for name in entries if "__pycache__" in name or name.startswith(("tests", "bench"))]
