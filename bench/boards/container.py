"""The image of docs/board/Containerfile, built and entered by buildah, for arm64 and x86-64.

No registry is asked: what stands for the image that it begins with is a root made by debootstrap.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from boards.debian import PATH
from boards.emulate import Emulator
from shared.machine import ROOT

CONTAINERFILE = ROOT / "docs" / "board" / "Containerfile"
BEGINS_WITH = "debian:trixie-slim"
BASE = f"FROM scratch\nCOPY . /\nENV PATH={PATH}\n"
# pip takes the wheels that were fetched. The image has neither these nor this file.
PIP_CONF = "[global]\nno-index = true\nfind-links = /wheels\n"


@dataclass(frozen=True)
class Builder:
    """folder: of its images and containers; whoever made it removes it;  log: what buildah says"""

    folder: Path
    architecture: str
    emulator: Emulator
    log: Path

    def build(self, base: Path, wheel: Path, wheels: Path) -> int:
        """The image of the Containerfile, on a root. Returns the exit code."""
        context = self.folder / "context"
        (context / "dist").mkdir(parents=True)
        shutil.copy(wheel, context / "dist")
        (context / "base").write_text(BASE)
        (context / "pip.conf").write_text(PIP_CONF)
        pip = ("--volume", f"{wheels}:/wheels:ro", "--volume", f"{context / 'pip.conf'}:/etc/pip.conf:ro")
        image = (*pip, "--file", CONTAINERFILE, "--tag", "sharpzo-edge", context)
        return self._bud("--file", context / "base", "--tag", BEGINS_WITH, base) or self._bud(*image)

    def run(self, command: tuple[str, ...], folder: Path) -> int:
        """Run a command in a container of the image, with a folder as /job. Returns the exit code."""
        name, processor = "tried", ("--env", f"QEMU_CPU={self.emulator.processor}")
        volume = ("--volume", f"{folder}:/job:ro")
        return self._buildah("from", "--pull-never", "--name", name, "sharpzo-edge") or self._buildah(
            "run", "--isolation", "chroot", *processor, *volume, name, "--", *command
        )

    def _bud(self, *words: object) -> int:
        options = ("--isolation", "chroot", "--arch", self.architecture, "--pull-never", "--layers=false")
        return self._buildah("bud", *options, *words)

    def _buildah(self, *words: object) -> int:
        store = ("--root", self.folder / "store", "--runroot", self.folder / "run", "--storage-driver", "vfs")
        environment = {"PATH": PATH, "HOME": str(self.folder), "TMPDIR": str(self.folder)}
        return self.emulator.run(("buildah", *store, *words), environment, self.log)
