"""What parts are tried with: roots, emulators, packages, wheels, and what this machine says itself.

All but the last is kept in the work folder, and used again.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from boards.debian import Archive, is_made, make_root, run
from boards.emulate import Emulator
from boards.job import ANSWER, ANSWERS, DEMO, KEPT_ANSWERS, SMALL
from boards.parts import BOOKWORM, TRIXIE, Release
from shared.machine import ROOT
from sharpzo_edge import __version__
from sharpzo_edge.demo import BUNDLE, DEFAULT_TASK, TASKS

PICTURE = "test/clothing/1F454.png"
PLATFORMS = ("manylinux2014", *(f"manylinux_2_{glibc}" for glibc in (17, 24, 26, 27, 28)))
MACHINES = {"arm64": "aarch64", "amd64": "x86_64"}  # what wheels call Debian's architectures


@dataclass(frozen=True)
class Supplies:
    """work: the folder;  wheel: what is tried"""

    work: Path
    wheel: Path

    @property
    def are_there(self) -> bool:
        """Whether the roots were made before, which takes the most time."""
        slim = [self._slim(architecture) for architecture in MACHINES]
        return all(map(is_made, [self.work / BOOKWORM.name, self.work / TRIXIE.name, *slim]))

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
        run(sys.executable, Path(__file__).with_name(ANSWERS), "keep", self.work / KEPT_ANSWERS)
        return {
            "version": __version__,
            "install": install_line(),
            "zero_shot": said("eval", "--bundle", BUNDLE, "--images", task / "test")["accuracy"],
            "loss": tuned["train_loss"],
            "picture": PICTURE,
            "label": found["labels"][0],
            "demo": said(*DEMO)["by"],
        }

    def emulator(self, processor: str = "max") -> Emulator:
        host = self.archive(TRIXIE.name, run("dpkg", "--print-architecture").strip())
        return Emulator(host.fetch("qemu-user") / "usr/bin/qemu-aarch64", processor)

    def archive(self, release: str, architecture: str = "arm64") -> Archive:
        folder = self.work / f"{release}-{architecture}"
        folder.mkdir(exist_ok=True)
        return Archive(release, architecture, folder)

    def root(self, release: Release) -> Path:
        """An arm64 root with Python."""
        return make_root(release.name, self.work / release.name, self.emulator())

    def slim(self, release: Release, architecture: str) -> Path:
        """A root with nothing added."""
        return make_root(release.name, self._slim(architecture), self.emulator(), (), architecture)

    def wheels(self, python: str, architecture: str = "arm64", onnxruntime: str | None = None) -> Path:
        """The wheels of the package and of all that it needs: nothing is built. onnxruntime: it alone."""
        into = self.work / f"wheels-{python}-{architecture}-{onnxruntime or 'newest'}"
        if onnxruntime and into.exists():
            return into
        shutil.rmtree(into, ignore_errors=True)
        wanted = [f"onnxruntime=={onnxruntime}", "--no-deps"] if onnxruntime else [self.wheel]
        machine = MACHINES[architecture]
        platforms = [word for name in PLATFORMS for word in ("--platform", f"{name}_{machine}")]
        pip = (sys.executable, "-m", "pip", "download", "--quiet", "--only-binary", ":all:")
        version = ("--implementation", "cp", "--python-version", python)
        run(*pip, *platforms, *version, "--dest", into, *wanted)
        return into

    def _slim(self, architecture: str) -> Path:
        return self.work / f"slim-{architecture}"


def install_line() -> str:
    """What the README has people type."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if re.match(r"python3 -m venv ~", line))
