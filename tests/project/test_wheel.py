"""What `pip install .` puts on a board, and what a release needs."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import dist
import sharpzo_edge
from sharpzo_edge.demo import DEFAULT_TASK
from support.processes import finish

ROOT = Path(sharpzo_edge.__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_wheel_holds_both_packages_and_the_embedded_default(tmp_path: Path) -> None:
    """Built by the hatchling that is installed here (group test), so that no network is needed."""
    offline = ("--no-build-isolation", "--no-deps", "--no-index")
    finish([sys.executable, "-m", "pip", "wheel", "--quiet", *offline, "-w", tmp_path, ROOT])
    (wheel,) = tmp_path.glob("*.whl")
    assert dist.defects(wheel) == []
    assert {task for task, _ in dist.TASK_PARTS} == {DEFAULT_TASK}
    assert wheel.name in README
    with zipfile.ZipFile(wheel, "a") as damaged:
        damaged.writestr("bench/dist.py", "")
        damaged.writestr("sharpzo_edge/demo/tasks/nouns/train/a.png", "")
    assert len(dist.defects(wheel)) == 2


def test_the_version_has_one_place_and_a_changelog_section() -> None:
    dist.check_changelog()
    for name in ("pyproject.toml", "runtime/sharpzo_edge/cli.py"):
        assert sharpzo_edge.__version__ not in (ROOT / name).read_text(encoding="utf-8")
