"""Debian's packages of another release or architecture, and roots made of them. Nothing on the host changes.

The host's own apt says where a mirror is. What is fetched is kept in the work folder, and used again.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from boards.emulate import Emulator

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
IN_ROOT = ("python3", "python3-venv", "ca-certificates")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DONE = "complete"  # a file in a folder that is complete


def run(*command: object, **options: object) -> str:
    """What a command says. Raises CalledProcessError when it fails."""
    done = subprocess.run([*map(str, command)], check=True, stdout=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload]
    return str(done.stdout)


def mirror() -> str:
    """The address of Debian's packages, as the host's apt has it."""
    said = run(
        "apt-get", "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)", "Created-By: Packages"
    )
    found = [line.rpartition("|")[2] for line in said.splitlines() if line.startswith("Debian|Debian|")]
    if not found:
        raise SystemExit("apt names no mirror of Debian here. It must have one. Type: apt-get update")
    return found[0]


def need(*packages: str) -> None:
    """Install those of the host's packages that are missing."""
    missing = [p for p in packages if "ok installed" not in _status(p)]
    if missing:
        run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing)


def _status(package: str) -> str:
    done = subprocess.run(["dpkg-query", "-W", "-f", "${Status}", package], capture_output=True, text=True)
    return done.stdout


@dataclass(frozen=True)
class Archive:
    """The packages of a release for an architecture; folder: of its lists and of what was fetched."""

    release: str
    architecture: str
    folder: Path

    @property
    def _options(self) -> list[str]:
        settings = {
            "APT::Architecture": self.architecture,
            "APT::Architectures": self.architecture,
            "APT::Sandbox::User": "root",
            "Dir::Etc::SourceList": self.folder / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::State": self.folder / "state",
            "Dir::State::status": self.folder / "status",
            "Dir::Cache": self.folder / "cache",
        }
        return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]

    def fetch(self, package: str) -> Path:
        """The package, unpacked into a folder of its own."""
        unpacked = self.folder / package
        if (unpacked / DONE).exists():
            return unpacked
        self._update()
        shutil.rmtree(unpacked, ignore_errors=True)
        unpacked.mkdir()
        run("apt-get", *self._options, "-qq", "download", package, cwd=unpacked)
        for file in unpacked.glob("*.deb"):
            run("dpkg-deb", "-x", file, unpacked)
            file.unlink()
        (unpacked / DONE).touch()
        return unpacked

    def dependencies(self, package: str, beginning: str) -> list[str]:
        """The names of a package's dependencies that begin so."""
        self._update()
        said = run("apt-cache", *self._options, "depends", "--important", package)
        names = [line.partition("Depends: ")[2].strip() for line in said.splitlines()]
        return [name for name in names if name.startswith(beginning)]

    def _update(self) -> None:
        if (self.folder / DONE).exists():
            return
        for part in ("state/lists/partial", "cache/archives/partial"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        (self.folder / "status").touch()
        source = f"deb [signed-by={KEYRING}] {mirror()} {self.release} main\n"
        (self.folder / "sources.list").write_text(source)
        run("apt-get", *self._options, "-qq", "update")
        (self.folder / DONE).touch()


def is_made(root: Path) -> bool:
    return (root / DONE).exists()


def make_root(
    release: str,
    folder: Path,
    emulator: Emulator,
    packages: Sequence[str] = IN_ROOT,
    architecture: str = "arm64",
) -> Path:
    """A small Debian in a folder, some 300 MB; made in minutes, once."""
    if is_made(folder):
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    included = [f"--include={','.join(packages)}"] if packages else []
    first = [f"--arch={architecture}", "--variant=minbase", "--foreign", f"--keyring={KEYRING}"]
    run("debootstrap", *first, *included, release, folder, mirror())
    environment = {"PATH": PATH, "container": "lxc"}  # it need not make devices
    second, log = ("/debootstrap/debootstrap", "--second-stage"), folder.with_suffix(".log")
    if emulator.run_within(folder, second, environment, log):
        raise SystemExit(f"debootstrap cannot finish {folder}: see {log}")
    (folder / DONE).touch()
    return folder
