"""Can this machine run it? Each check is a line; nothing here can crash the process that asks."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ..clip.bundle import Bundle
from ..errors import SharpzoError
from ..process_memory import available_mib

OLDEST_PYTHON = (3, 11)
NEEDED_MIB = 128
IMPORT_SECONDS = 120


@dataclass(frozen=True)
class Check:
    """name; whether it is well; what was found, and what to do where it is not."""

    name: str
    ok: bool
    found: str


def doctor(bundle: Path | None) -> list[Check]:
    """All checks, in the order in which a defect would show."""
    checks = [_bits(), _python(), _onnxruntime(), _memory()]
    if bundle is not None:
        checks += _bundle(bundle)
    return checks


def _bits() -> Check:
    ok = sys.maxsize > 2**32
    advice = "" if ok else ": onnxruntime has no 32-bit packages; install a 64-bit system"
    return Check("64-bit", ok, platform.machine() + advice)


def _python() -> Check:
    ok = sys.version_info >= OLDEST_PYTHON
    advice = "" if ok else f": {'.'.join(map(str, OLDEST_PYTHON))} or newer is needed"
    return Check("Python", ok, platform.python_version() + advice)


def _onnxruntime() -> Check:
    """In a child process: some builds end with an illegal instruction on older ARM cores."""
    code = "import onnxruntime; print(onnxruntime.__version__)"
    command = [sys.executable, "-P", "-c", code]  # -P: what lies in the working folder is not asked
    environment = os.environ | {"ORT_DISABLE_TELEMETRY": "1"}
    try:
        child = subprocess.run(
            command, capture_output=True, text=True, timeout=IMPORT_SECONDS, env=environment
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("onnxruntime", False, f"its import did not end: {error}")
    if child.returncode == 0:
        return Check("onnxruntime", True, child.stdout.strip())
    if child.returncode == -signal.SIGILL:
        why = "its import dies with an illegal instruction on this processor"
    elif child.returncode < 0:
        number = -child.returncode
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        why = f"its import dies with {name}"
    else:
        why = (child.stderr.strip().splitlines() or ["its import fails"])[-1]
    return Check(
        "onnxruntime", False, f"{why}: try another version, for example pip install 'onnxruntime==1.23.2'"
    )


def _memory() -> Check:
    available = available_mib()
    if available is None:
        return Check("free memory", True, "unknown on this system")
    ok = available >= NEEDED_MIB
    advice = "" if ok else f": about {NEEDED_MIB} MiB are needed; stop other programs"
    return Check("free memory", ok, f"{available:.0f} MiB{advice}")


def _bundle(path: Path) -> list[Check]:
    try:
        bundle = Bundle.open(path)
        bundle.verify()
    except SharpzoError as error:
        return [Check("bundle", False, str(error))]
    m = bundle.manifest
    pretrained = m.pretrained or "random weights"
    size = sum(file.size for file in m.files.values()) / 1e6
    return [Check("bundle", True, f"{m.model} ({pretrained}), {size:.0f} MB, every checksum is right")]
