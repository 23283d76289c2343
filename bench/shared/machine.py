"""What every result file says of where it was measured."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sharpzo_edge import __version__

ROOT = Path(__file__).parents[2]
PACKAGES = ("onnxruntime", "numpy", "torch", "open_clip_torch")


def describe_machine() -> dict[str, Any]:
    return {
        "cpu": _cpu(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "page_bytes": os.sysconf("SC_PAGE_SIZE"),
        "versions": {"Python": platform.python_version(), "sharpzo-edge": __version__, **_versions()},
        "commit": _commit(),
    }


def with_versions_of(machine: dict[str, Any], earlier: dict[str, Any]) -> dict[str, Any]:
    """The same machine, for results of which some were measured earlier: every processor, system and version
    that any has.
    """

    def both(before: dict[str, Any], now: dict[str, Any], name: str) -> str:
        seen = [*before.get(name, "").split(" and "), now.get(name, "")]
        return " and ".join(dict.fromkeys(filter(None, seen)))

    versions = {
        name: both(earlier["versions"], machine["versions"], name)
        for name in earlier["versions"] | machine["versions"]
    }
    places = {name: both(earlier, machine, name) for name in ("cpu", "system") if name in machine}
    return machine | places | {"versions": versions}


def one_line(machine: dict[str, Any]) -> str:
    """What `describe_machine` found, as pages end or begin with it."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return f"{machine['cpu']}, {machine['cores']} cores; {versions}; commit {machine['commit']}."


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str:
    """The commit, marked when the code that is measured differs from it (results and pages may)."""
    commit = _git("rev-parse", "--short", "HEAD")
    changed = _git("status", "--porcelain", "--", "runtime", "export", "bench", ":!bench/results")
    return f"{commit}, changed" if changed else commit or "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=ROOT)
    return done.stdout.strip()
