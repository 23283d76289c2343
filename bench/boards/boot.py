"""An arm64 kernel of Debian's, booted by qemu's system emulation, on a disk made of a root.

Its figures of memory are a real kernel's; its speed is the emulator's.
"""

from __future__ import annotations

import contextlib
import gzip
import lzma
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from boards.debian import Archive, run

HERE = Path(__file__).parent
# What the disk needs, each after those that it needs itself. A kernel may have some of them built in.
MODULES = ("virtio_blk", "crc16", "crc32c_generic", "libcrc32c", "mbcache", "jbd2", "ext4")
DISK_MIB = 1600
LONGEST_SECONDS = 1800  # some minutes, on a machine that does nothing else


@dataclass(frozen=True)
class Kernel:
    """image, modules: of a Debian package, unpacked"""

    image: Path
    modules: Path

    @classmethod
    def of(cls, archive: Archive, metapackage: str) -> Kernel:
        """From Linux 7 on, its image and its modules are packages of their own."""
        (package,) = archive.dependencies(metapackage, "linux-image-")
        parts = [
            name for part in ("binary", "modules") for name in archive.dependencies(package, f"linux-{part}-")
        ]
        unpacked = [archive.fetch(name) for name in parts or [package]]
        (image,) = (path for folder in unpacked for path in folder.rglob("vmlinuz*") if path.is_file())
        (modules,) = (path for folder in unpacked for path in folder.glob("usr/lib/modules/*/kernel"))
        return cls(image, modules)


@dataclass(frozen=True)
class Board:
    """What is emulated. processor: qemu's -cpu;  memory_mib: what the kernel gets"""

    processor: str
    cores: int
    memory_mib: int


def make_initrd(kernel: Kernel, busybox: Path, path: Path) -> Path:
    """The smallest one that goes over to the disk."""
    folder = path.with_suffix(".folder")
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("bin", "modules", "proc", "sys", "dev", "new"):
        (folder / name).mkdir(parents=True)
    (folder / "bin/busybox").write_bytes(busybox.read_bytes())
    (folder / "init").write_bytes((HERE / "first-init.sh").read_bytes())
    order = []
    for name in MODULES:
        for packed in kernel.modules.rglob(f"{name}.ko*"):
            data = packed.read_bytes()
            (folder / "modules" / f"{name}.ko").write_bytes(
                lzma.decompress(data) if packed.suffix == ".xz" else data
            )
            order.append(f"{name}.ko")
    (folder / "modules/order").write_text("\n".join(order))
    for file in (folder / "bin/busybox", folder / "init"):
        file.chmod(0o755)
    path.write_bytes(gzip.compress(b"".join(_newc(folder))))
    return path


def _newc(folder: Path) -> Iterator[bytes]:
    """A folder as an archive in cpio's newc format."""
    for number, path in enumerate(sorted(folder.rglob("*")), start=1):
        name, mode = path.relative_to(folder).as_posix(), path.stat().st_mode
        yield _entry(name, number, mode, b"" if stat.S_ISDIR(mode) else path.read_bytes())
    yield _entry("TRAILER!!!", 0, 0, b"")


def _entry(name: str, number: int, mode: int, data: bytes) -> bytes:
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return _padded(head) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def make_disk(root: Path, path: Path) -> Path:
    """An ext4 file system with the contents of a root."""
    path.unlink(missing_ok=True)
    run("mke2fs", "-q", "-t", "ext4", "-d", root, path, f"{DISK_MIB}M")
    return path


def boot(kernel: Kernel, initrd: Path, disk: Path, board: Board, log: Path) -> None:
    """Boot, do the job on the disk, and switch off. What the console says is appended to log."""
    drive = f"file={disk},format=raw,if=virtio,cache=unsafe"
    machine = ("-M", "virt,gic-version=3", "-cpu", board.processor, "-smp", board.cores)
    memory = ("-m", board.memory_mib, "-accel", "tcg,thread=multi")
    # A kernel that panics starts again, and no-reboot makes an end of that.
    files = ("-kernel", kernel.image, "-initrd", initrd, "-append", "console=ttyAMA0 quiet panic=-1")
    words = (*machine, *memory, *files, "-drive", drive, "-nographic", "-nic", "none", "-no-reboot")
    command = ["nice", "-n", "5", "qemu-system-aarch64", *map(str, words)]
    with open(log, "ab") as out, contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=LONGEST_SECONDS, check=False
        )


def put_script(name: str, folder: Path) -> None:
    """Copy one of the scripts that are beside this file."""
    target = folder / name
    shutil.copyfile(HERE / name, target)
    os.chmod(target, 0o755)
