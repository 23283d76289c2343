"""The systemd unit and the Containerfile in docs/board, as far as they can be tested without either."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

import sharpzo_edge
from sharpzo_edge.cli import app

ROOT = Path(sharpzo_edge.__file__).parents[2]
BOARD = ROOT / "docs" / "board"
UNITS = [BOARD / f"sharpzo-edge-{name}.service" for name in ("tune", "watch")]
PROGRAM = "/opt/sharpzo/bin/sharpzo-edge"
CONTAINERFILE = (BOARD / "Containerfile").read_text(encoding="utf-8")


def options_of(command: str) -> set[str]:
    parameters = typer.main.get_command(app).commands[command].params  # type: ignore[attr-defined]
    return {spelling for parameter in parameters for spelling in parameter.opts}


def check_command(words: list[str]) -> None:
    program, command, *rest = words
    assert Path(program).name == "sharpzo-edge"
    assert {word for word in rest if word.startswith("--")} <= options_of(command)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_types_a_command_that_exists(unit: Path) -> None:
    (line,) = re.findall(rf"^ExecStart=.*?({PROGRAM} .*?)'?$", unit.read_text(encoding="utf-8"), re.MULTILINE)
    check_command(shlex.split(line))


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd here")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_finds_no_fault_in_a_unit(unit: Path, tmp_path: Path) -> None:
    """With a program that is there: the unit's own is on the board."""
    text = unit.read_text(encoding="utf-8").replace(PROGRAM, sys.executable)
    copy = tmp_path / unit.name
    copy.write_text(text, encoding="utf-8")
    verify = ["systemd-analyze", "verify", "--man=no", str(copy)]
    done = subprocess.run(verify, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def instructions() -> list[tuple[str, str]]:
    """The Containerfile's instructions, and what follows each."""
    lines = re.sub(r"\\\n\s*", "", CONTAINERFILE).splitlines()
    told = (line.partition(" ") for line in lines if line and not line.startswith("#"))
    return [(word, rest) for word, _, rest in told]


def test_the_containerfile_builds_this_versions_device_side() -> None:
    found = instructions()
    assert found[0] == ("FROM", "debian:trixie-slim")  # it has no architecture of its own: arm64 and amd64
    assert {word for word, _ in found} <= {"FROM", "RUN", "COPY", "ENV", "USER", "WORKDIR", "CMD"}
    wheel = f"sharpzo_edge-{sharpzo_edge.__version__}-py3-none-any.whl"
    assert ("COPY", f"dist/{wheel} /tmp/") in found
    (installing,) = [rest for word, rest in found if word == "RUN" and "pip install" in rest]
    assert f"/tmp/{wheel}" in installing and "export" not in installing
    for _, steps in (each for each in found if each[0] == "RUN"):
        subprocess.run(["sh", "-n", "-c", steps], check=True)
    word, command = found[-1]
    assert word == "CMD"
    check_command(json.loads(command))
    assert [word for word, _ in found].index("USER") < len(found) - 1  # it does not run as root


def test_the_pages_commands_are_of_this_version() -> None:
    page = (BOARD / "README.md").read_text(encoding="utf-8")
    assert all(unit.name in page for unit in UNITS)
    for version in re.findall(r"sharpzo_edge-(\S+)-py3", page):
        assert version == sharpzo_edge.__version__
    commands = re.findall(r" sharpzo-edge (sharpzo-edge .*)$", page, re.MULTILINE)
    assert commands
    for command in commands:
        check_command(shlex.split(command))
