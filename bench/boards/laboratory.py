"""How one part is tried: its root, its job, its emulator, and what the job's checks said."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from boards.boot import Kernel, boot, make_disk, make_initrd, put_script
from boards.debian import PATH, Archive, make_root, need, run
from boards.enter import Entrance, run_within
from boards.job import ANSWER, ANSWERS, HOME, KEPT_ANSWERS, MARK, SMALL, Job
from boards.parts import BOOKWORM, KERNELS, TRIXIE, Booted, Release, User
from shared.machine import ROOT
from sharpzo_edge import __version__
from sharpzo_edge.demo import BUNDLE, DEFAULT_TASK, TASKS

HERE = Path(__file__).parent
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


@dataclass(frozen=True)
class Laboratory:
    """work: the folder of packages, roots, disks;  wheel: what is tried"""

    work: Path
    wheel: Path

    def tried(self, part: User | Booted) -> str:
        """A checksum of all that decides the part's cells: the wheel, and how it is tried."""
        found = hashlib.sha256(self.wheel.read_bytes() + repr(part).encode())
        for file in sorted({*HERE.glob("*.py"), *HERE.glob("*.sh")} - {HERE / "run.py", HERE / "page.py"}):
            found.update(file.read_bytes())
        return found.hexdigest()[:16]

    def cells_of(self, part: User | Booted) -> list[dict[str, Any]]:
        """What every check of a part found. Those that were kept before, on this wheel, are not run again.

        A cell is in the log as soon as it is known: a part that is stopped goes on after its last one.
        """
        log = self.work / f"{part.kind}-{self.tried(part)}.log"
        before = cells_in(log)
        wanted = [name for name in part.checks if name not in before or not before[name]["kept"]]
        if wanted and isinstance(part, User):
            self._emulate(part, wanted, log)
        elif wanted and isinstance(part, Booted):
            self._boot(part, wanted, log)
        cells = cells_in(log)
        silent = {"kept": False, "found": "it ended without a word", "seconds": 0.0}
        return [cells.get(name, {"check": name, **silent}) for name in part.checks]

    @cached_property
    def reference(self) -> dict[str, Any]:
        """What the same commands say on this machine, and the line that the README has people type."""
        command = [sys.executable, "-m", "sharpzo_edge"]

        def said(*words: object) -> dict[str, Any]:
            return dict(json.loads(run(*command, *words, *ANSWER, stderr=subprocess.DEVNULL)))

        task, prompt = TASKS / DEFAULT_TASK, self.work / "reference"
        tuning = ("tune", "--bundle", BUNDLE, "--images", task / "train", "--output", prompt, "--restart")
        tuned = said(*tuning, *SMALL)
        (found,) = said("predict", "--bundle", BUNDLE, "--prompt", prompt, task / PICTURE)["predictions"]
        run(sys.executable, HERE / ANSWERS, "keep", self.work / KEPT_ANSWERS)
        return {
            "version": __version__,
            "install": install_line(),
            "zero_shot": said("eval", "--bundle", BUNDLE, "--images", task / "test")["accuracy"],
            "loss": tuned["train_loss"],
            "picture": PICTURE,
            "label": found["labels"][0],
            "demo": said("demo", "--seed", "0")["by"],
        }

    def _emulate(self, part: User, checks: list[str], log: Path) -> None:
        """Checks in a root, by user emulation. The first of all, which installs, gets a fresh root."""
        release = part.release
        root = make_root(release.name, self.work / release.name, self._entrance())
        if part.checks[0] in checks:
            _make_home_fresh(root)
            shutil.copy(self.wheel, _inside(root, HOME))
            shutil.rmtree(root / "wheels", ignore_errors=True)
            shutil.copytree(self._wheels(release), root / "wheels")
        environment = {
            "HOME": str(HOME),
            "PATH": PATH,
            "LANG": "C.UTF-8",
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": "/wheels",
        }
        environment_folder = HOME / "sharpzo"
        package = f"{environment_folder}/lib/python{release.python}/site-packages/sharpzo_edge"
        command = [f"{environment_folder}/bin/sharpzo-edge"]
        _put_job(root, Job(checks, command, package, self.reference, {}))
        shutil.copy(self.work / KEPT_ANSWERS, _inside(root, HOME))
        job = ("python3", str(HOME / "job.py"), str(HOME / "job.json"))
        run_within(root, job, self._entrance(part.processor), environment, log)

    def _boot(self, part: Booted, checks: list[str], log: Path) -> None:
        """Checks on a booted kernel. The wheels are unpacked there, and not installed."""
        need("qemu-system-arm", "e2fsprogs")
        root, newest, oldest = self._boot_root
        python = ["env", f"PYTHONPATH={newest}", "python3", "-m", "sharpzo_edge"]
        floors = {"newest": newest, OLDEST: f"{oldest}:{newest}"}
        _put_job(root, Job(checks, python, f"{newest}/sharpzo_edge", {"pages": part.pages}, floors))
        archive = self._archive(part.release, "arm64")
        kernel = Kernel.of(archive, KERNELS[part.pages])
        (busybox,) = self._archive(TRIXIE.name, "arm64").fetch("busybox-static").glob("**/bin/busybox")
        initrd = make_initrd(kernel, busybox, self.work / "initrd.gz")
        disk = make_disk(root, self.work / "disk.img")
        boot(kernel, initrd, disk, part.board, log)
        disk.unlink()

    @cached_property
    def _boot_root(self) -> tuple[Path, str, str]:
        """The root of booted kernels, and the folders there of the wheels with each onnxruntime."""
        root = self.work / "booted"  # a copy: a folder of its own for what is written into it
        shutil.rmtree(root, ignore_errors=True)
        made = make_root(BOOKWORM.name, self.work / BOOKWORM.name, self._entrance())
        run("cp", "-a", "--reflink=auto", made, root)
        _make_home_fresh(root)
        shutil.rmtree(root / "wheels", ignore_errors=True)
        put_script(root, "second-init.sh")
        return root, self._unpacked(root, BOOKWORM), self._unpacked(root, BOOKWORM, OLDEST)

    def _archive(self, release: str, architecture: str) -> Archive:
        folder = self.work / f"{release}-{architecture}"
        folder.mkdir(exist_ok=True)
        return Archive(release, architecture, folder)

    def _entrance(self, processor: str = "max") -> Entrance:
        host = self._archive(TRIXIE.name, run("dpkg", "--print-architecture").strip())
        return Entrance(host.fetch("qemu-user") / "usr/bin/qemu-aarch64", processor)

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

    def _unpacked(self, root: Path, release: Release, onnxruntime: str | None = None) -> str:
        """The same wheels, unpacked in a root; the folder there."""
        folder = f"/opt/{onnxruntime or 'newest'}"
        shutil.rmtree(_inside(root, folder), ignore_errors=True)
        for wheel in self._wheels(release, onnxruntime).glob("*.whl"):
            shutil.unpack_archive(wheel, _inside(root, folder), "zip")
        return folder


def cells_in(log: Path) -> dict[str, dict[str, Any]]:
    """The cells that checks printed, by name, the last of each. Other words may stand before one."""
    cells = {}
    for line in log.read_bytes().splitlines() if log.exists() else []:
        with contextlib.suppress(ValueError):  # nothing, or what was cut off
            cell = json.loads(line.rpartition(MARK.encode())[2])
            cells[cell["check"]] = cell
    return cells


def _inside(root: Path, path: str | Path) -> Path:
    """Where a path of a root is on this machine."""
    return root / Path(path).relative_to("/")


def _make_home_fresh(root: Path) -> None:
    """Make the home folder what it is on a new board."""
    home = _inside(root, HOME)
    shutil.rmtree(home)
    home.mkdir(mode=0o700)


def _put_job(root: Path, job: Job) -> None:
    for script in ("job.py", ANSWERS):
        put_script(root, script)
    _inside(root, HOME / "job.json").write_text(json.dumps(dataclasses.asdict(job)))


def install_line() -> str:
    """What the README has people type."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if re.match(r"python3 -m venv ~", line))
