"""What a process really takes, against what its plan promised."""

import json
import sys
from pathlib import Path

import pytest

import sharpzo_edge
from sharpzo_edge.demo import BUNDLE
from sharpzo_edge.memory.budget import budget_of, parse_budget
from sharpzo_edge.process_memory import (
    MIB,
    peak_rss_mib,
    release_library_pages,
    return_freed_blocks,
    rss_mib,
    sizes_of,
)
from support.processes import finish

RUNTIME = Path(sharpzo_edge.__file__).parents[1]
STATUS = Path("/proc/self/status").read_text() if Path("/proc/self/status").exists() else ""


@pytest.fixture(autouse=True)
def released(monkeypatch):
    """This process maps the same libraries as the commands below. While it holds their pages, the page cache
    cannot be read anew, and after an installation that cache may be in pieces of 2 MiB: so let them go.
    """
    with monkeypatch.context() as patch:
        patch.setattr("sharpzo_edge.process_memory._governed", True)
        release_library_pages()


def anonymous_mib():
    """The part of this process's resident set that no file backs. None where the system does not tell."""
    status = sizes_of()
    return status["RssAnon"] / MIB if "RssAnon" in status else None


def test_giving_back_library_pages_loses_nothing(monkeypatch):
    monkeypatch.setattr("sharpzo_edge.process_memory._governed", True)
    return_freed_blocks()
    before = rss_mib()
    release_library_pages()
    assert rss_mib() <= before + 1
    assert json.loads('{"still": [1, 2.5, "works"]}') == {"still": [1, 2.5, "works"]}
    assert peak_rss_mib() >= rss_mib() > 0
    anonymous = anonymous_mib()
    assert anonymous is None or 0 < anonymous <= peak_rss_mib()


THP = """
import sys

def thp_enabled():
    lines = open("/proc/self/status").read().splitlines()
    return [line.split()[1] for line in lines if line.startswith("THP_enabled")]

"""
IN_A_COMMAND = """
from sharpzo_edge import __main__, cli
cli.app = lambda **options: print(*thp_enabled(), "numpy" in sys.modules)
sys.argv = ["sharpzo-edge"]
__main__.main()
"""
IN_A_LIBRARY = "import sharpzo_edge; sharpzo_edge.tune; print(*thp_enabled())"


@pytest.mark.skipif("THP_enabled" not in STATUS, reason="the system does not tell of huge pages")
def test_a_command_has_no_huge_pages_and_a_library_leaves_them():
    """They are off before numpy is imported: its library's buffer would be in one."""
    before = finish([sys.executable, "-c", f"{THP}print(*thp_enabled())"]).stdout
    assert finish([sys.executable, "-c", THP + IN_A_COMMAND]).stdout == "0 False\n"
    assert finish([sys.executable, "-c", THP + IN_A_LIBRARY]).stdout == before


COMMAND = [sys.executable, "-m", "sharpzo_edge", "tune", "--threads", "1", "--json"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks are read from /proc")
@pytest.mark.parametrize(("names", "preset"), [(2, "paper"), (300, "edge")])
@pytest.mark.parametrize("mode", ["smallest", "default", "none"])
def test_a_plan_that_was_accepted_holds_when_measured(tmp_path, pictures, names, preset, mode):
    """The command itself, in a process of its own; its peak is what the product promises."""
    images = grow(pictures, names)
    base = [*COMMAND, "--bundle", str(BUNDLE), "--images", str(images), "--max-queries", "100", "--val", "0"]
    base += ["--preset", preset, "--change-point", "1"]
    budget = {"smallest": "1MiB", "default": "128MiB", "none": "none"}[mode]
    if mode == "smallest":
        refused = finish([*base, "--output", str(tmp_path / "a.st"), "--memory-budget", budget], 3)
        budget = refused.stderr.strip().rsplit("--memory-budget ")[-1]
    result = finish([*base, "--output", str(tmp_path / "b.st"), "--memory-budget", budget], 0)
    report = json.loads(result.stdout)
    assert report["peak_rss_mib"] <= report["plan"]["peak_mib"] <= parse_budget(budget)


def grow(pictures, n_classes):
    """The same few pictures under many class names."""
    source = pictures / "cat" / "0.png"
    for i in range(n_classes - 2):
        folder = pictures / f"animal_{i}"
        folder.mkdir()
        (folder / "0.png").symlink_to(source)
    return pictures


def test_without_proc_the_floor_is_that_of_the_imports(monkeypatch):
    """No pages can be given back there, and nothing is refused for what cannot be measured."""
    monkeypatch.setattr("sharpzo_edge.process_memory._governed", True)
    known = budget_of("200MiB", "1.32.0")
    monkeypatch.setattr("sharpzo_edge.process_memory.sizes_of", dict)
    blind = budget_of("200MiB", "1.32.0")
    assert blind.floor.work == blind.floor.imports == known.floor.imports > known.floor.work
    blind.require_floor()
