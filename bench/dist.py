"""Build what people install, and check it as they would meet it.

    python bench/dist.py [--into dist]

The wheel is built from the sdist, so the sdist is whole. Both are checked by twine; the wheel's contents are
checked; it is installed into an empty environment, and the demo is run from there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

from shared.machine import ROOT
from sharpzo_edge import __version__

EMPTY = ROOT / "build" / "dist"  # the environment
PACKAGES = ("sharpzo_edge", "sharpzo_export")
NEEDED = (
    "sharpzo_edge/cli.py",
    "sharpzo_edge/demo/ATTRIBUTION.md",
    "sharpzo_edge/demo/bundle/manifest.json",
    "sharpzo_edge/demo/bundle/text.data",
    "sharpzo_edge/report/templates/report.css",
    "sharpzo_edge/report/templates/report.html",
    "sharpzo_edge/report/templates/report.js",
    "sharpzo_export/write_bundle.py",
)
DEMO = "sharpzo_edge/demo/"
EMBEDDED_LIMIT_BYTES = 28 << 20  # what the product promises for the bundle and the demo's pictures
# Of the shipped tasks. The styles of a shift have licences of their own, and stay at home.
TASK_PARTS = {("subgroups", part) for part in ("train", "test", "ATTRIBUTION.md")}


def defects(wheel: Path) -> list[str]:
    """What is wrong with the contents of a wheel."""
    entries = {entry.filename: entry.file_size for entry in zipfile.ZipFile(wheel).infolist()}
    found = [f"{name} is missing" for name in NEEDED if name not in entries]
    tops = (*PACKAGES, f"sharpzo_edge-{__version__}.dist-info")
    found += [f"{name} does not belong in it" for name in entries if name.split("/")[0] not in tops]
    found += [f"{name} is a leftover" for name in entries if "__pycache__" in name]
    tasks = f"{DEMO}tasks/"
    parts = {tuple(name.removeprefix(tasks).split("/")[:2]) for name in entries if name.startswith(tasks)}
    if parts != TASK_PARTS:
        found.append(f"the shipped tasks are {sorted(parts)}, and not {sorted(TASK_PARTS)}")
    embedded = sum(size for name, size in entries.items() if name.startswith(DEMO))
    if embedded > EMBEDDED_LIMIT_BYTES:
        found.append(f"the demo takes {embedded:,} bytes, and {EMBEDDED_LIMIT_BYTES:,} are promised")
    return found


def build(into: Path) -> tuple[Path, Path]:
    """The wheel and the sdist, built by the hatchling that is installed here."""
    shutil.rmtree(into, ignore_errors=True)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", into, ROOT)
    (wheel,), (sdist,) = into.glob("*.whl"), into.glob("*.tar.gz")
    for file in (wheel, sdist):
        if f"-{__version__}" not in file.name:
            raise SystemExit(f"{file.name} is not of version {__version__}, which the package has")
    return wheel, sdist


def check_changelog() -> None:
    if f"\n## {__version__}\n" not in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"):
        raise SystemExit(f"CHANGELOG.md has no section {__version__}. A release needs one. Write it first")


def run_demo_of(wheel: Path) -> None:
    """Install the wheel into an empty environment, and run the demo from it."""
    venv.create(EMPTY, clear=True, with_pip=True)
    run(EMPTY / "bin" / "python", "-m", "pip", "install", "--quiet", wheel)
    said = run(EMPTY / "bin" / "sharpzo-edge", "demo", "--json")
    result = json.loads(said)
    print(f"demo: {result['zero_shot_accuracy']:.1%} to {result['by']['head']:.1%}")
    if not result["by"]["head"] > result["zero_shot_accuracy"]:
        raise SystemExit("the demo of the installed wheel gains nothing")


def run(*command: object) -> str:
    return subprocess.run(
        [*map(str, command)], check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--into", type=Path, default=ROOT / "dist")
    into = parser.parse_args().into
    check_changelog()
    wheel, sdist = build(into)
    print(run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist).strip())
    if found := defects(wheel):
        raise SystemExit(f"{wheel.name}: {'; '.join(found)}")
    run_demo_of(wheel)
    print(*(f"{file.name} {file.stat().st_size / 1e6:.1f} MB" for file in (wheel, sdist)), sep="\n")


if __name__ == "__main__":
    main()
