"""The emulated boards' tools, without an emulator: what is copied into a system, and what is told of it."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from boards import boot, job, laboratory, page, parts, run, supplies
from sharpzo_edge.commands.figures import read_figures
from support.processes import finish

MACHINE = {"cpu": "Xeon", "cores": 2, "versions": {"Python": "3.11"}, "commit": "1234567"}
NO_ROWS = {"model": "ViT-B-16", "rows": [], "load": 0.1, "machine": MACHINE}
KEPT = {"check": "tune", "kept": True, "found": "as on x86-64", "seconds": 3.0}


def test_the_job_needs_pythons_own_library_alone(tmp_path: Path) -> None:
    """It is copied into a system that has nothing else. A check that breaks is told; the next one runs."""
    told = job.Job(["doctor", "memory limit"], ["/no/such/command"], "/no/such/package", {}, {})
    script, file = tmp_path / "job.py", tmp_path / "job.json"
    source = Path(job.__file__).read_text(encoding="utf-8")
    script.write_text(source.replace("/sys/fs/cgroup/limited", f"{tmp_path}/none/limited"))
    file.write_text(json.dumps(told.__dict__))
    lines = finish([sys.executable, "-I", "-S", script, file], HOME=str(tmp_path)).stdout.splitlines()
    cells = [json.loads(line.removeprefix(job.MARK)) for line in lines]
    assert [cell["check"] for cell in cells] == told.checks
    assert not any(cell["kept"] for cell in cells) and "FileNotFoundError" in cells[0]["found"]
    assert {name for part in parts.PARTS for name in part.checks} - {parts.IMAGE} == set(job.CHECKS)


@pytest.mark.skipif(not shutil.which("cpio"), reason="there is no cpio here")
def test_the_first_disk_is_an_archive_that_cpio_reads(tmp_path: Path) -> None:
    modules = tmp_path / "kernel"
    modules.mkdir()
    (modules / "ext4.ko").write_bytes(b"module")
    busybox = tmp_path / "busybox"
    busybox.write_bytes(b"program")
    initrd = boot.make_initrd(boot.Kernel(tmp_path, modules), busybox, tmp_path / "initrd.gz")
    unpacked = subprocess.run(["gzip", "-dc", initrd], capture_output=True, check=True).stdout
    listed = subprocess.run(["cpio", "-t", "--quiet"], input=unpacked, capture_output=True, check=True)
    assert {"init", "bin/busybox", "modules/ext4.ko", "modules/order"} <= set(listed.stdout.decode().split())


def test_what_was_kept_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that was stopped goes on; another wheel begins anew; a check without a word is broken."""
    part, asked = parts.User(parts.TRIXIE, "max", ("doctor", "tune", "demo")), []
    wheel = tmp_path / "wheel.whl"

    def emulate(lab, part, checks, log) -> None:
        asked.append(checks)
        cell = {**KEPT, "check": checks[0]}
        with log.open("a") as out:
            out.write(f"[ 1.2] console{job.MARK}{json.dumps(cell)}\n{job.MARK}{{cut off")

    monkeypatch.setattr(laboratory.Laboratory, "_emulate", emulate)
    lab = laboratory.Laboratory(supplies.Supplies(tmp_path, wheel))
    wheel.write_bytes(b"1")
    for kept in (1, 2, 3, 3):
        assert [cell["kept"] for cell in lab.cells_of(part)] == [i < kept for i in range(3)]
    assert asked == [["doctor", "tune", "demo"], ["tune", "demo"], ["demo"]]
    wheel.write_bytes(b"2")
    assert not lab.cells_of(part)[2]["kept"] and asked[-1] == ["doctor", "tune", "demo"]


def test_one_command_made_it_until_a_part_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[dict[str, Any]] = []
    monkeypatch.setattr(run, "EMULATED", tmp_path / "emulation.json")
    monkeypatch.setattr(run, "_keep", kept.append)
    run.EMULATED.write_text(json.dumps({"whole": {"seconds": 60, "warm": True}}))
    assert run._results()["whole"]["seconds"] == 60
    part = parts.PARTS[0]
    lab = SimpleNamespace(tried=lambda part: "1", cells_of=lambda part: [KEPT])
    run._try([part], lab, MACHINE, multiprocessing.Lock())
    assert "whole" not in kept[0] and kept[0][part.kind][part.name]["cells"] == [KEPT]


def test_every_cell_of_the_page_says_kept_or_broken() -> None:
    broken = {**KEPT, "check": "demo", "kept": False}
    told = {"cells": [KEPT, broken], "machine": MACHINE}
    text = page.page({"user": {"Debian 12": told}, "container": {}, "booted": {}}, NO_ROWS, [])
    assert (
        "| tune | as on x86-64 | 3 | **kept** |" in text
        and "| demo | as on x86-64 | 3 | **BROKEN** |" in text
    )
    assert "Not run yet." in text and "No figure of a real board" in text


def test_what_is_typed_in_the_root_is_the_readmes_line() -> None:
    assert supplies.install_line().startswith(
        "python3 -m venv ~/sharpzo && ~/sharpzo/bin/pip install sharpzo_edge-"
    )


@pytest.mark.parametrize("file", sorted(page.FIGURES.glob("*.json")), ids=lambda file: file.stem)
def test_a_plan_can_be_made_with_figures_that_were_sent(file: Path) -> None:
    figures = json.loads(file.read_text(encoding="utf-8"))
    bundle = SimpleNamespace(checksum=figures["bundle"], folder=file.parent)
    assert read_figures(file, bundle).query_rows > 0
