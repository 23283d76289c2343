"""Try the wheel on emulated arm64 machines, and write docs/boards.md.

    python -m boards.run [--parts user booted] [--work build/boards] [--wheel dist/…whl]

user:   qemu's user emulation in roots of Debian 12 and 13: is it installed, are its answers x86-64's?
booted: Debian's arm64 kernels with 4 and 16 KiB pages: does it keep its budget, by a real kernel's figures?

Needs root, Debian's packages and PyPI; installs debootstrap and qemu-system-arm where they are missing.
Everything else stays in the work folder, and is used again. Parts that are not run keep their results.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boards.boot import Board, Kernel, boot, make_disk, make_initrd, put_script
from boards.debian import PATH, Archive, make_root, need, run
from boards.enter import Entrance, run_within
from boards.job import ANSWER, MARK, SMALL, Job
from boards.page import EMULATED, PAGE, written
from shared.machine import ROOT, describe_machine
from shared.pages import keep_results, read_results
from sharpzo_edge import __version__
from sharpzo_edge.demo import BUNDLE, DEFAULT_TASK, TASKS
from sharpzo_edge.memory.budget import FLOORS_ON_EARLIER_KERNELS

USER_CHECKS = ("install", "doctor", "zero-shot", "tune", "predict", "demo")
BOOTED_CHECKS = (
    *("floor", "smallest budget", "huge pages always", "huge pages madvise", "huge pages never"),
    *("memory limit", "kill and resume"),
)
FEW_CHECKS = ("huge pages always", "memory limit")
PICTURE = "test/clothing/1F454.png"
PLATFORMS = (
    "manylinux2014",
    "manylinux_2_17",
    "manylinux_2_24",
    "manylinux_2_26",
    "manylinux_2_27",
    "manylinux_2_28",
)
OLDEST = "1.23.2"
MEASURED = {"newest": "1.32", OLDEST: "1.23"}  # whose floor plans reckon with (memory/budget.py)


@dataclass(frozen=True)
class Release:
    """A release of Debian, and its Python."""

    name: str
    number: int
    python: str


RELEASES = (Release("bookworm", 12, "3.11"), Release("trixie", 13, "3.13"))
# Kernels by their packages, and what stands for which board: a Zero 2 W, and a Pi 5 with little memory.
KERNELS = {4: "linux-image-arm64", 16: "linux-image-arm64-16k"}
BOARDS = {
    (4, 420): Board("cortex-a53", 4, 420),
    (4, 1024): Board("cortex-a76", 4, 1024),
    (16, 420): Board("cortex-a76", 4, 420),
    (16, 1024): Board("cortex-a76", 4, 1024),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=("user", "booted"), default=("user", "booted"))
    parser.add_argument("--releases", nargs="+", type=int, default=[12, 13], help="of Debian, for user")
    parser.add_argument("--pages", nargs="+", type=int, default=[4, 16], help="KiB, for booted")
    parser.add_argument("--memory", nargs="+", type=int, default=[420, 1024], help="MiB, for booted")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "boards")
    wheel = ROOT / "dist" / f"sharpzo_edge-{__version__}-py3-none-any.whl"
    parser.add_argument("--wheel", type=Path, default=wheel, help="what make dist made")
    given = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit(
            "This makes roots whose files belong to many users. It must be root. Type: sudo make test-arm"
        )
    if not given.wheel.exists():
        raise SystemExit(f"There is no {given.wheel}. It must be there. Type: make dist")
    given.work.mkdir(parents=True, exist_ok=True)
    results = read_results(EMULATED) if EMULATED.exists() else {"user": {}, "booted": {}}
    lab = Laboratory(given.work.resolve(), given.wheel.resolve(), describe_machine())
    for release in (each for each in RELEASES if each.number in given.releases and "user" in given.parts):
        results["user"][f"Debian {release.number}, Python {release.python}"] = lab.emulate(release)
        _keep(results)
    for (pages, memory), board in BOARDS.items():
        if "booted" in given.parts and pages in given.pages and memory in given.memory:
            checks = BOOTED_CHECKS if memory == min(m for _, m in BOARDS) else FEW_CHECKS
            name = f"pages of {pages} KiB, {memory} MiB, {board.processor}"
            results["booted"][name] = lab.boot(pages, board, checks)
            _keep(results)
    broken = [
        c
        for cells in (*results["user"].values(), *results["booted"].values())
        for c in cells["cells"]
        if not c["kept"]
    ]
    for cell in broken:
        print(f"BROKEN: {cell['check']}: {cell['found']}")
    raise SystemExit(1 if broken else 0)


def _keep(results: dict[str, Any]) -> None:
    keep_results(results, EMULATED)
    PAGE.write_text(written(), encoding="utf-8")


@dataclass(frozen=True)
class Laboratory:
    """work: the folder of packages, roots, disks;  wheel: what is tried;  machine: at the beginning"""

    work: Path
    wheel: Path
    machine: dict[str, Any]

    def reference(self) -> dict[str, Any]:
        """What the same commands say on this machine, and the line that the README has people type."""
        command = [sys.executable, "-m", "sharpzo_edge"]

        def said(*words: object) -> dict[str, Any]:
            return dict(json.loads(run(*command, *words, *ANSWER, stderr=subprocess.DEVNULL)))

        task, prompt = TASKS / DEFAULT_TASK, self.work / "reference"
        tuning = ("tune", "--bundle", BUNDLE, "--images", task / "train", "--output", prompt, "--restart")
        tuned = said(*tuning, *SMALL)
        (found,) = said("predict", "--bundle", BUNDLE, "--prompt", prompt, task / PICTURE)["predictions"]
        return {
            "version": __version__,
            "install": install_line(),
            "zero_shot": said("eval", "--bundle", BUNDLE, "--images", task / "test")["accuracy"],
            "loss": tuned["train_loss"],
            "picture": PICTURE,
            "label": found["labels"][0],
            "demo": said("demo", "--seed", "0")["by"],
        }

    def emulate(self, release: Release) -> dict[str, Any]:
        """The wheel in a fresh root, with user emulation."""
        root = self._root(release)
        self._make_fresh(root)
        shutil.copy(self.wheel, root / "root")
        shutil.rmtree(root / "wheels", ignore_errors=True)
        shutil.copytree(self._wheels(release), root / "wheels")
        environment = {
            "HOME": "/root",
            "PATH": PATH,
            "LANG": "C.UTF-8",
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": "/wheels",
        }
        package = f"/root/sharpzo/lib/python{release.python}/site-packages/sharpzo_edge"
        command = ["/root/sharpzo/bin/sharpzo-edge"]
        self._put_job(root, Job([*USER_CHECKS], command, package, self.reference(), {}))
        ended = run_within(root, ("python3", "/root/job.py", "/root/job.json"), self._entrance(), environment)
        (self.work / f"user-{release.name}.log").write_text(ended.said)
        return self._told(ended.said.splitlines(), USER_CHECKS)

    def boot(self, pages: int, board: Board, checks: Sequence[str]) -> dict[str, Any]:
        """The wheel, unpacked beside arm64's wheels of what it needs, on a booted kernel."""
        need("qemu-system-arm", "e2fsprogs")
        release = RELEASES[0]
        root = self.work / "booted"  # a copy: a folder of its own for what is written into it
        shutil.rmtree(root, ignore_errors=True)
        run("cp", "-a", "--reflink=auto", self._root(release), root)
        self._make_fresh(root)
        shutil.rmtree(root / "wheels", ignore_errors=True)
        newest, oldest = (self._unpacked(root, release, version) for version in (None, OLDEST))
        python = ["env", f"PYTHONPATH={newest}", "python3", "-m", "sharpzo_edge"]
        floors = {"newest": newest, OLDEST: f"{oldest}:{newest}"}
        rows = {name: FLOORS_ON_EARLIER_KERNELS[version, "aarch64"] for name, version in MEASURED.items()}
        known = {"floors": {name: dataclasses.asdict(row) for name, row in rows.items()}}
        self._put_job(root, Job([*checks], python, f"{newest}/sharpzo_edge", known, floors))
        put_script(root, "second-init.sh")
        archive = self._archive("arm64")
        kernel = Kernel.of(archive, KERNELS[pages])
        (busybox,) = archive.fetch("busybox-static").glob("**/bin/busybox")
        initrd = make_initrd(kernel, busybox, self.work / f"initrd-{pages}.gz")
        name = f"{pages}-{board.memory_mib}"
        disk = make_disk(root, self.work / f"disk-{name}.img")
        lines = boot(kernel, initrd, disk, board, self.work / f"booted-{name}.log")
        disk.unlink()
        return self._told(lines, checks)

    def _archive(self, architecture: str) -> Archive:
        folder = self.work / f"trixie-{architecture}"
        folder.mkdir(exist_ok=True)
        return Archive("trixie", architecture, folder)

    def _entrance(self) -> Entrance:
        host = run("dpkg", "--print-architecture").strip()
        return Entrance(self._archive(host).fetch("qemu-user") / "usr/bin/qemu-aarch64")

    def _root(self, release: Release) -> Path:
        return make_root(release.name, self.work / release.name, self._entrance())

    def _make_fresh(self, root: Path) -> None:
        """Make the home folder what it is on a new board."""
        shutil.rmtree(root / "root")
        (root / "root").mkdir(mode=0o700)

    def _wheels(self, release: Release, onnxruntime: str | None = None) -> Path:
        """arm64's wheels of the package and of all that it needs: nothing is built. onnxruntime: it alone."""
        into = self.work / f"wheels-{release.python}-{onnxruntime or 'newest'}"
        if onnxruntime and into.exists():
            return into
        shutil.rmtree(into, ignore_errors=True)
        wanted = [f"onnxruntime=={onnxruntime}", "--no-deps"] if onnxruntime else [self.wheel]
        platforms = [word for name in PLATFORMS for word in ("--platform", f"{name}_aarch64")]
        pip = (sys.executable, "-m", "pip", "download", "--quiet", "--only-binary", ":all:")
        python = ("--implementation", "cp", "--python-version", release.python)
        run(*pip, *platforms, *python, "--dest", into, *wanted)
        return into

    def _unpacked(self, root: Path, release: Release, onnxruntime: str | None) -> str:
        """The same wheels, unpacked in a root; the folder there."""
        folder = f"/opt/{onnxruntime or 'newest'}"
        shutil.rmtree(root / folder[1:], ignore_errors=True)
        for wheel in self._wheels(release, onnxruntime).glob("*.whl"):
            shutil.unpack_archive(wheel, root / folder[1:], "zip")
        return folder

    def _put_job(self, root: Path, job: Job) -> None:
        put_script(root, "job.py")
        (root / "root/job.json").write_text(json.dumps(dataclasses.asdict(job)))

    def _told(self, lines: Sequence[str], checks: Sequence[str]) -> dict[str, Any]:
        """The cells that were printed, and one for each check that ended without a word."""
        cells = [json.loads(line.removeprefix(MARK)) for line in lines if line.startswith(MARK)]
        told = {cell["check"] for cell in cells}
        silent = [name for name in checks if name not in told]
        cells += [
            {"check": c, "kept": False, "found": "it ended without a word", "seconds": 0.0} for c in silent
        ]
        return {"cells": cells, "machine": self.machine}


def install_line() -> str:
    """What the README has people type."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if re.match(r"python3 -m venv ~", line))


if __name__ == "__main__":
    main()
