"""Commands that may start arm64 programs on any processor, by qemu's user emulation.

Everything happens in namespaces of its own: a user namespace has its own binfmt handlers from Linux 6.7 on,
and a mount namespace its mounts. So nothing is left on the host, however this ends. Needs root: the files of
a Debian belong to many users.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

EMULATE, ENTER = (Path(__file__).with_name(f"{name}.sh") for name in ("emulate", "enter"))
SAME_USERS = "0 0 65536"  # they have the same numbers within and without
# It says that it is in its namespace, and waits for the users to be mapped there.
BEGIN = 'echo && read go && exec unshare --mount --pid --fork --kill-child sh "$@" >&2'


@dataclass(frozen=True)
class Emulator:
    """program: qemu-aarch64, static;  processor: its -cpu"""

    program: Path
    processor: str

    def run(self, command: Sequence[object], environment: Mapping[str, str], log: Path) -> int:
        """Run a command of the host, with low priority. Returns its exit code.

        environment: it gets no other;  log: what it writes to both of its outputs is appended there
        """
        words = [str(word) for word in (EMULATE, self.program, *command)]
        with open(log, "ab") as out:
            process = subprocess.Popen(
                ["nice", "-n", "5", "unshare", "--user", "sh", "-c", BEGIN, "sh", *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=out,
                env={"QEMU_CPU": self.processor, **environment},
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

    def run_within(
        self, root: Path, command: Sequence[object], environment: Mapping[str, str], log: Path
    ) -> int:
        """Run a command of a root, with this root as its own."""
        return self.run(("sh", ENTER, root, *command), environment, log)
