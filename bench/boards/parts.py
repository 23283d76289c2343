"""What is tried: releases of Debian by user emulation, an image, and boards that are booted."""

from __future__ import annotations

from dataclasses import dataclass

from boards.boot import Board

USER_CHECKS = ("install", "doctor", "zero-shot", "answers", "tune", "predict", "demo")
IMAGE = "image"
CONTAINER_CHECKS = (IMAGE, "doctor", "demo")
BOOTED_CHECKS = (
    *("kernel", "floor", "smallest budget", "huge pages always", "huge pages madvise", "huge pages never"),
    *("memory limit", "kill and resume"),
)
FEW_CHECKS = ("kernel", "huge pages always", "memory limit", "kill and resume")
NEWEST_CHECKS = ("kernel", "floor", "smallest budget", "huge pages always", "memory limit")


@dataclass(frozen=True)
class Release:
    """A release of Debian, and its Python."""

    name: str
    number: int
    python: str


BOOKWORM, TRIXIE = Release("bookworm", 12, "3.11"), Release("trixie", 13, "3.13")
BACKPORTS = "trixie-backports"
KERNELS = {4: "linux-image-arm64", 16: "linux-image-arm64-16k"}  # by KiB of a page: Debian's packages


@dataclass(frozen=True)
class User:
    """A release to try by user emulation."""

    release: Release
    processor: str
    checks: tuple[str, ...] = USER_CHECKS
    kind = "user"

    @property
    def name(self) -> str:
        return f"Debian {self.release.number}, Python {self.release.python}, {self.processor}"


@dataclass(frozen=True)
class Container:
    """An architecture to build the image of docs/board for, on Debian 13."""

    architecture: str
    processor: str = "cortex-a76"
    release: Release = TRIXIE
    checks: tuple[str, ...] = CONTAINER_CHECKS
    kind = "container"

    @property
    def name(self) -> str:
        return f"{self.architecture}, Debian {self.release.number}"


@dataclass(frozen=True)
class Booted:
    """A board to boot. release: of Debian, whose kernel it gets;  pages: in KiB"""

    release: str
    pages: int
    board: Board
    checks: tuple[str, ...]
    kind = "booted"

    @property
    def name(self) -> str:
        newest = "newest kernel, " if self.release == BACKPORTS else ""
        return f"{newest}pages of {self.pages} KiB, {self.board.memory_mib} MiB, {self.board.processor}"


Part = User | Container | Booted
KINDS = tuple(part.kind for part in (User, Container, Booted))
PARTS: tuple[Part, ...] = (
    # The processor of a Raspberry Pi 5, which has dot products of int8 numbers: emulated, it is the fastest.
    User(BOOKWORM, "cortex-a76"),
    User(TRIXIE, "cortex-a76"),
    Container("arm64"),
    Container("amd64"),
    # A Zero 2 W, whose processor has none, a 5 with little memory, and the kernel that is to come.
    Booted(TRIXIE.name, 4, Board("cortex-a53", 4, 420), BOOTED_CHECKS),
    Booted(TRIXIE.name, 16, Board("cortex-a76", 4, 420), BOOTED_CHECKS),
    Booted(TRIXIE.name, 4, Board("cortex-a76", 4, 1024), FEW_CHECKS),
    Booted(TRIXIE.name, 16, Board("cortex-a76", 4, 1024), FEW_CHECKS),
    Booted(BACKPORTS, 4, Board("cortex-a53", 4, 420), NEWEST_CHECKS),
    Booted(BACKPORTS, 16, Board("cortex-a76", 4, 420), NEWEST_CHECKS),
)
