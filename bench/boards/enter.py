"""Commands in an arm64 root, on any processor, by qemu's user emulation.

Everything happens in namespaces of its own: a user namespace has its own binfmt handlers from Linux 6.7 on,
and a mount namespace its mounts. So nothing is left on the host, however this ends. Needs root: the files of
a Debian belong to many users.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("enter.sh")
SAME_USERS = "0 0 65536"  # they have the same numbers within and without
# It says that it is in its namespace, and waits for the users to be mapped there.
BEGIN = 'echo && read go && exec unshare --mount --pid --fork --kill-child sh "$@" >&2'


@dataclass(frozen=True)
class Entrance:
    """emulator: qemu-aarch64, static;  processor: its -cpu;  cpuinfo: shown as /proc/cpuinfo in the root"""

    emulator: Path
    processor: str = "cortex-a72"
    cpuinfo: Path = Path("/dev/null")


def run_within(
    root: Path, command: Sequence[str], entrance: Entrance, environment: Mapping[str, str], log: Path
) -> int:
    """Run a command in a root, with low priority, and this environment and no other. Returns its exit code.

    log: what it writes to both of its outputs is appended there
    """
    words = [str(SCRIPT), str(root), str(entrance.emulator), str(entrance.cpuinfo), *command]
    with open(log, "ab") as out:
        process = subprocess.Popen(
            ["nice", "-n", "5", "unshare", "--user", "sh", "-c", BEGIN, "sh", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=out,
            env={"QEMU_CPU": entrance.processor, **environment},
        )
        try:
            assert process.stdin and process.stdout
            process.stdout.readline()
            for kind in ("uid", "gid"):
                Path(f"/proc/{process.pid}/{kind}_map").write_text(f"{SAME_USERS}\n")
            process.communicate(b"go\n")
        finally:
            process.kill()  # and with it all that is in its namespaces
    return process.returncode
