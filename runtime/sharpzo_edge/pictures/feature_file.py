"""Image features on disk: a .npy file of float32, written once and read in blocks."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from ..errors import SharpzoError
from ..run.files import cannot, replacing
from ..run.journal import Journal
from ..run.npy import npy_offset
from ..types import Floats

FEATURES_IN_MEMORY = 4 << 20  # bytes; larger sets of image features stay on disk


def held_bytes(n_features: int, embed_dim: int) -> int:
    """What image features take in memory: 0 when they stay on disk."""
    n_bytes = 4 * n_features * embed_dim
    return n_bytes if n_bytes <= FEATURES_IN_MEMORY else 0


class OpenForReading:
    """A file that stays open as long as this object is held, even when its name is given to another."""

    def __init__(self, path: Path):
        """Raises OSError."""
        self.path = path
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, n_bytes: int, place: int) -> bytes:
        """Raises SharpzoError when the disk does not give them, or the file has become shorter."""
        try:
            data = os.pread(self.descriptor, n_bytes, place)
        except OSError as error:
            raise cannot("read", self.path, error) from error
        if len(data) < n_bytes:
            raise SharpzoError(
                f"{self.path} ends before byte {place + n_bytes:,}. It must stay as tune wrote it while "
                f"the run goes on. Type the same command again, and change nothing in that folder"
            )
        return data

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


@dataclass(frozen=True)
class FeatureFile:
    """Rows of the file, read where they are asked for and never mapped. A read may raise SharpzoError."""

    file: OpenForReading
    offset: int
    n_rows: int
    embed_dim: int

    @classmethod
    def open(cls, path: Path, n_rows: int, embed_dim: int) -> Self:
        """Raises SharpzoError when it cannot be read, and ValueError for a file of another form or size."""
        try:
            held = OpenForReading(path)
            with os.fdopen(os.dup(held.descriptor), "rb") as file:
                return cls(held, npy_offset(file, np.float32, (n_rows, embed_dim)), n_rows, embed_dim)
        except OSError as error:
            raise cannot("read", path, error) from error

    @property
    def row_bytes(self) -> int:
        return 4 * self.embed_dim

    def __getitem__(self, rows: slice) -> Floats:
        first, end, _ = rows.indices(self.n_rows)
        place, n_bytes = self.offset + first * self.row_bytes, max(0, end - first) * self.row_bytes
        return np.frombuffer(self.file.read(n_bytes, place), "<f4").reshape(-1, self.embed_dim)

    def part(self, start: int, end: int) -> Self:
        """Rows start..end-1, still on disk."""
        return replace(self, offset=self.offset + start * self.row_bytes, n_rows=end - start)


@dataclass(frozen=True)
class FeatureRow:
    """One row of a file, still on disk."""

    file: FeatureFile
    number: int

    def read(self) -> Floats:
        """(E,) Raises SharpzoError."""
        row: Floats = self.file[self.number : self.number + 1][0]
        return row


def write_features(path: Path, encoded: Journal, shape: tuple[int, int]) -> None:
    """Records of rows, one after another, as a .npy file. Raises SharpzoError when the disk is full."""
    with replacing(path) as out:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(out, header)
        for number in range(len(encoded)):
            out.write(encoded[number])
