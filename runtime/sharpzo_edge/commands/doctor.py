"""Can this machine run it? Each check is a line; nothing here can crash the process that asks."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..demo import BUNDLE as SHIPPED
from ..errors import BundleError, SharpzoError, UsageError, cannot_read
from ..libraries import (
    NO_TELEMETRY,
    install_anew,
    is_about_memory,
    is_without_proc,
    not_as_installed,
    without_proc,
)
from ..machine import SYSTEM, WAYS_OUT, Machine, this_machine
from ..requests import DoctorRequest
from .board import pages_found, power_found, processor_found, storage_found

if TYPE_CHECKING:
    from ..clip.bundle import Bundle
    from .figures import Figures

OLDEST_PYTHON = (3, 11)
NEEDED_MIB = 128
IMPORT_SECONDS = 120
# The tune that is asked about: so many classes of two words or so, and 20 pictures of each.
N_CLASSES, NAME_TOKENS, N_PICTURES = 10, 6, 200
# A library, what is imported of it, and the version to try where another one cannot be.
LIBRARIES = (
    ("numpy", "numpy", "numpy"),
    ("onnxruntime", "onnxruntime", "onnxruntime==1.23.2"),
    ("Pillow", "PIL.Image", "pillow"),
    ("safetensors", "safetensors.numpy", "safetensors"),
)


@dataclass(frozen=True)
class Check:
    """name; whether it is well; what was found, and what to do where it is not."""

    name: str
    ok: bool
    found: str


@dataclass(frozen=True)
class DoctorResult:
    """checks: in the order in which a defect would show;  figures: of the bundle; None where not measured"""

    checks: tuple[Check, ...]
    figures: Figures | None = None

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        checks = {check.name: {"ok": check.ok, "found": check.found} for check in self.checks}
        measured = {} if self.figures is None else {"figures": self.figures.to_json()}
        return {"ok": self.ok, "checks": checks, **measured}


def doctor_request(request: DoctorRequest) -> DoctorResult:
    """All checks, and where all is well the figures of a bundle.

    Raises UsageError where figures are asked for and no bundle is named.
    """
    if request.bench and request.bundle is None:
        raise UsageError("--bench measures a bundle, and none is named. One is needed. Add --bundle FOLDER")
    bundle = None if request.bundle is None else Path(request.bundle)
    result = DoctorResult(tuple(doctor(bundle)))
    if not (request.bench and bundle and result.ok):
        return result
    from ..clip.bundle import Bundle
    from .figures import figures_of

    return replace(result, figures=figures_of(Bundle.open(bundle)))


def doctor(bundle: Path | None) -> list[Check]:
    """All checks, in the order in which a defect would show."""
    machine = this_machine()
    checks = [_bits(), _python()]
    if is_without_proc():
        checks.append(Check("/proc", False, str(without_proc())))
    checks += [_library(*each) for each in LIBRARIES]
    may_import = all(check.ok for check in checks)
    checks += [
        Check("processor", True, processor_found()),
        Check("pages", True, pages_found()),
        _memory(machine),
        Check("power", *power_found()),
    ]
    if not may_import:  # a bundle needs the libraries in this process
        return [*checks, Check("bundle", False, "not looked at, before all libraries are in order")]
    checks += _bundle(SHIPPED, machine, is_shipped=True)
    if bundle is not None:
        checks += _bundle(bundle, machine, is_shipped=False)
    return checks


def _bits() -> Check:
    ok = sys.maxsize > 2**32
    advice = "" if ok else ": onnxruntime has no 32-bit packages; install a 64-bit system"
    return Check("64-bit", ok, platform.machine() + advice)


def _python() -> Check:
    ok = sys.version_info >= OLDEST_PYTHON
    advice = "" if ok else f": {'.'.join(map(str, OLDEST_PYTHON))} or newer is needed"
    return Check("Python", ok, platform.python_version() + advice)


def _library(name: str, module: str, package: str) -> Check:
    """In a child process: some builds end with an illegal instruction on older ARM cores."""
    code = f"import {module}; print({module.partition('.')[0]}.__version__)"
    command = [sys.executable, "-P", "-c", code]  # -P: what lies in the working folder is not asked
    environment = os.environ | {NO_TELEMETRY: "1"}
    try:
        child = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="backslashreplace",  # it may say anything
            timeout=IMPORT_SECONDS,
            env=environment,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check(name, False, f"its import did not end: {error}")
    if child.returncode == 0:
        return Check(name, True, child.stdout.strip())
    if child.returncode == -signal.SIGILL:
        why = "its import dies with an illegal instruction on this processor"
    elif child.returncode < 0:
        number = -child.returncode
        by = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        why = f"its import dies with {by}"
    else:
        why = (child.stderr.strip().splitlines() or ["its import fails"])[-1]
    if is_about_memory(child.stderr) or child.returncode == -signal.SIGKILL:
        return Check(
            name, False, f"{why}: memory is short; stop other programs, or raise the limit on this program's"
        )
    if is_without_proc():
        return Check(name, False, f"{why}: see /proc above")
    return Check(name, False, f"{why}: install it anew, for example {install_anew(package)}")


def _memory(machine: Machine) -> Check:
    if machine.free_mib is None:
        return Check("free memory", True, "unknown on this system")
    ok = machine.free_mib >= NEEDED_MIB
    where = "" if machine.bound == SYSTEM else f" within {machine.bound}"
    advice = "" if ok else f": about {NEEDED_MIB} MiB are needed. {WAYS_OUT[machine.bound]}"
    return Check("free memory", ok, f"{machine.free_mib:,.0f} MiB{where}{advice}")


def _bundle(path: Path, machine: Machine, is_shipped: bool) -> list[Check]:
    from ..clip.bundle import Bundle

    try:
        bundle = Bundle.open(path)
        if is_shipped:
            return [_fits("demo fits", bundle, machine)]
        bundle.verify()
    except SharpzoError as error:
        told = not_as_installed(str(error)) if is_shipped and isinstance(error, BundleError) else error
        return [Check("bundle", False, str(told))]
    m = bundle.manifest
    pretrained = m.pretrained or "random weights"
    size = sum(file.size for file in m.files.values()) / 1e6
    found = f"{m.model} ({pretrained}), {size:.0f} MB, every checksum is right"
    return [Check("bundle", True, found), _storage(bundle), _fits("bundle fits", bundle, machine)]


def _storage(bundle: Bundle) -> Check:
    """Measured on the larger of the files that a streamed tower reads again and again."""
    m = bundle.manifest
    largest = max((m.text.data, m.image.data), key=lambda name: m.files[name].size)
    try:
        return Check("storage", True, storage_found(bundle.path(largest)))
    except OSError as error:
        return Check("storage", False, str(cannot_read(bundle.path(largest), error)))


def _fits(name: str, bundle: Bundle, machine: Machine) -> Check:
    from ..clip.sessions import onnxruntime_version
    from ..memory.budget import budget_of
    from ..memory.plan import Work, smallest_plan

    work = Work(name_lengths=(NAME_TOKENS,) * N_CLASSES, n_features=N_PICTURES, threads=machine.cores, dim=1)
    budget = budget_of(None, onnxruntime_version(), machine)
    least = smallest_plan(bundle.manifest, work, budget).peak_mib
    ok = least <= budget.given_mib
    found = f"a tune of {bundle.manifest.model} with {N_CLASSES} classes takes {least:.0f} MiB or more"
    if ok:
        return Check(name, True, found)
    given = f"this machine can give {budget.given_mib:,.0f} ({machine.bound})"
    return Check(name, False, f"{found}, and {given}. {WAYS_OUT[machine.bound]}, or take a smaller model")
