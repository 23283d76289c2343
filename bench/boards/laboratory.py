"""How one part is tried: its root, its job, its emulator, and what the job's checks said."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shutil
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from boards.boot import Kernel, boot, make_disk, make_initrd, put_script
from boards.container import CONTAINERFILE, Builder
from boards.debian import PATH, need, run
from boards.job import ANSWERS, KEPT_ANSWERS, MARK, Cell, Job
from boards.parts import BOOKWORM, IMAGE, KERNELS, TRIXIE, Booted, Container, Part, User
from boards.supplies import Supplies

HERE = Path(__file__).parent
HOME = Path("/root")  # of whoever is root, in a system
OLDEST = "1.23.2"


@dataclass(frozen=True)
class Laboratory:
    supplies: Supplies

    @property
    def work(self) -> Path:
        return self.supplies.work

    def prepare(self) -> None:
        """Make all that parts share. After that, parts of other kinds can be tried at the same time."""
        need("debootstrap", "buildah", "qemu-system-arm", "e2fsprogs")
        _ = self.supplies.reference, self._boot_root

    def tried(self, part: Part) -> str:
        """A checksum of all that decides the part's cells: the wheel, and how it is tried."""
        found = hashlib.sha256(self.supplies.wheel.read_bytes() + repr(part).encode())
        code = {*HERE.glob("*.py"), *HERE.glob("*.sh"), CONTAINERFILE}
        for file in sorted(code - {HERE / "run.py", HERE / "page.py"}):
            found.update(file.read_bytes())
        return found.hexdigest()[:16]

    def cells_of(self, part: Part) -> list[dict[str, Any]]:
        """What every check of a part found. Those that were kept before, on this wheel, are not run again.

        A cell is in the log as soon as it is known: a part that is stopped goes on after its last one.
        """
        log = self.work / f"{part.kind}-{self.tried(part)}.log"
        before = cells_in(log)
        wanted = [name for name in part.checks if name not in before or not before[name]["kept"]]
        if wanted and isinstance(part, User):
            self._emulate(part, wanted, log)
        elif wanted and isinstance(part, Container):
            self._contain(part, log)
        elif wanted and isinstance(part, Booted):
            self._boot(part, wanted, log)
        cells = cells_in(log)
        silent = {"kept": False, "found": "it ended without a word", "seconds": 0.0}
        return [cells.get(name, {"check": name, **silent}) for name in part.checks]

    def _emulate(self, part: User, checks: list[str], log: Path) -> None:
        """Checks in a root, by user emulation. The first of all, which installs, gets a fresh root."""
        release = part.release
        root = self.supplies.root(release)
        if part.checks[0] in checks:
            _make_home_fresh(root)
            shutil.copy(self.supplies.wheel, _inside(root, HOME))
            shutil.rmtree(root / "wheels", ignore_errors=True)
            shutil.copytree(self.supplies.wheels(release.python), root / "wheels")
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
        _put_job(_inside(root, HOME), Job(checks, command, package, self.supplies.reference, {}))
        shutil.copy(self.work / KEPT_ANSWERS, _inside(root, HOME))
        job = ("python3", HOME / "job.py", HOME / "job.json")
        self.supplies.emulator(part.processor).run_within(root, job, environment, log)

    def _contain(self, part: Container, log: Path) -> None:
        """Build an image, and do the other checks in it. All of it anew: its layers are not kept."""
        folder = self.work / "container"
        shutil.rmtree(folder, ignore_errors=True)
        builder = Builder(folder, part.architecture, self.supplies.emulator(part.processor), log)
        base = self.supplies.slim(part.release, part.architecture)
        wheels = self.supplies.wheels(part.release.python, part.architecture)
        started = time.monotonic()
        failed = builder.build(base, self.supplies.wheel, wheels)
        found = f"buildah ended with exit code {failed}" if failed else "built"
        cell = Cell(IMAGE, not failed, found, round(time.monotonic() - started, 1))
        with open(log, "a") as out:
            out.write(f"{MARK}{json.dumps(dataclasses.asdict(cell))}\n")
        if not failed:
            inside = [name for name in part.checks if name != IMAGE]
            (folder / "job").mkdir()
            _put_job(folder / "job", Job(inside, ["sharpzo-edge"], "", self.supplies.reference, {}))
            builder.run(("python3", "/job/job.py", "/job/job.json"), folder / "job")
        shutil.rmtree(folder)

    def _boot(self, part: Booted, checks: list[str], log: Path) -> None:
        """Checks on a booted kernel. The wheels are unpacked there, and not installed."""
        root, newest, oldest = self._boot_root
        python = ["env", f"PYTHONPATH={newest}", "python3", "-m", "sharpzo_edge"]
        floors = {"newest": newest, OLDEST: f"{oldest}:{newest}"}
        job = Job(checks, python, f"{newest}/sharpzo_edge", {"pages": part.pages}, floors)
        _put_job(_inside(root, HOME), job)
        kernel = Kernel.of(self.supplies.archive(part.release), KERNELS[part.pages])
        busybox = self.supplies.archive(TRIXIE.name).fetch("busybox-static")
        initrd = make_initrd(kernel, busybox / "usr/bin/busybox", self.work / "initrd.gz")
        disk = make_disk(root, self.work / "disk.img")
        boot(kernel, initrd, disk, part.board, log)
        disk.unlink()

    @cached_property
    def _boot_root(self) -> tuple[Path, str, str]:
        """The root of booted kernels, and the folders there of the wheels with each onnxruntime."""
        root = self.work / "booted"  # a copy: a folder of its own for what is written into it
        shutil.rmtree(root, ignore_errors=True)
        run("cp", "-a", "--reflink=auto", self.supplies.root(BOOKWORM), root)
        _make_home_fresh(root)
        shutil.rmtree(root / "wheels", ignore_errors=True)
        put_script("second-init.sh", _inside(root, HOME))
        return root, self._unpacked(root), self._unpacked(root, OLDEST)

    def _unpacked(self, root: Path, onnxruntime: str | None = None) -> str:
        """The same wheels, unpacked in the root of booted kernels; the folder there."""
        folder = f"/opt/{onnxruntime or 'newest'}"
        shutil.rmtree(_inside(root, folder), ignore_errors=True)
        for wheel in self.supplies.wheels(BOOKWORM.python, onnxruntime=onnxruntime).glob("*.whl"):
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


def _put_job(folder: Path, job: Job) -> None:
    for script in ("job.py", ANSWERS):
        put_script(script, folder)
    (folder / "job.json").write_text(json.dumps(dataclasses.asdict(job)))
