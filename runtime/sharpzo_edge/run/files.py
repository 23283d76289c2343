"""Files that survive a power cut. No other file of the device side changes the disk.

Every change is one call of `os` as this module knows it: whoever puts something else in its place sees all
changes in their order, and may let any of them fail. Only `move_to_free` asks the C library, for a rename
that `os` has not.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..errors import OUT_OF, SharpzoError, cannot_read, is_absent
from .reading import plain

BESIDE_SUFFIX = ".part"
CHECKPOINT_SECONDS = 30.0  # the most work that a power cut takes, unless the user says otherwise
JSON_LIMIT_BYTES = 16 << 20
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
BUSY_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.4)  # before a rename that the system calls busy is tried again
RENAME_NOREPLACE = 1  # Linux's renameat2
AT_FDCWD = -100  # Linux's "below the working folder"
WITHOUT_NOREPLACE = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)  # of renameat2, on some file systems
NOT_FOR_FOLDERS = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF)  # of fsync, on some file systems


class OpenFile:
    """A file that is being written. Every method raises OSError as the system gives it."""

    def __init__(self, path: Path, flags: int):
        self.descriptor = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)

    def write(self, data: bytes | memoryview) -> int:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self.descriptor, rest) :]
        return len(data)

    def sync(self) -> None:
        os.fsync(self.descriptor)

    def truncate(self, size: int) -> None:
        os.ftruncate(self.descriptor, size)

    def close(self) -> None:
        os.close(self.descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextlib.contextmanager
def replacing(path: Path, is_lasting: bool = True) -> Iterator[OpenFile]:
    """Open a file beside `path`; when the block ends well, `path` is replaced by it at once.

    Whoever reads `path` sees the old bytes or the new ones, never a part. When the block raises,
    the file beside is removed and `path` is as it was. One process at a time may replace a path.
    is_lasting: False for what can be made again: it is not flushed, and a power cut may leave it torn
    Raises SharpzoError when the disk does not take it.
    """
    path, beside = _place_of(path)
    try:
        with OpenFile(beside, os.O_WRONLY | os.O_TRUNC) as file:
            yield file
            if is_lasting:
                file.sync()
        _rename(beside, path)
        if is_lasting:
            sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        if isinstance(error, OSError):
            raise cannot("write", path, error) from error
        raise


def _rename(path: Path, new: Path) -> None:
    """Rename a file. While the system calls it busy, try again, for about a second. Raises OSError."""
    for seconds in BUSY_SECONDS:
        try:
            return os.replace(path, new)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
        time.sleep(seconds)
    os.replace(path, new)


def move_to_free(path: Path, new: Path) -> None:
    """Rename a file or a folder to a name that nothing has, in one step. Both are on one disk.

    Raises FileExistsError when something has the name, and OSError. Where the system has no such rename, a
    look comes first; only there another program might take the name in between.
    """
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        rename = None
    if rename is not None:
        names = os.fsencode(path), os.fsencode(new)
        if rename(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_NOREPLACE) == 0:
            return
        number = ctypes.get_errno()
        if number not in WITHOUT_NOREPLACE:
            raise OSError(number, os.strerror(number), os.fspath(path), None, os.fspath(new))
    if os.path.lexists(new):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(new))
    os.replace(path, new)


def _place_of(path: Path) -> tuple[Path, Path]:
    """The file that is replaced, which is what a link leads to and not the link; and the one beside it."""
    if os.path.islink(path):
        path = Path(os.path.realpath(path))
    name = f".{path.name}{BESIDE_SUFFIX}"
    if len(os.fsencode(name)) > longest_name(path.parent):
        name = f".{checksum(os.fsencode(path.name))[:16]}{BESIDE_SUFFIX}"
    return path, path.with_name(name)


def longest_name(folder: Path) -> int:
    """Bytes of the longest name in a folder, as far as the system tells."""
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (OSError, ValueError):
        return 255


def try_to_replace(path: Path) -> None:
    """Make the file beside `path`, and remove it: what would refuse `replacing` then refuses now.

    Raises SharpzoError.
    """
    _, beside = _place_of(path)
    with _as_ours("write", path):
        OpenFile(beside, os.O_WRONLY | os.O_TRUNC).close()
        os.unlink(beside)


class Appended:
    """A file that only grows. What was there when `sync` returned survives a power cut.

    keep: how many of its bytes stay when it is opened; None: all.
    Raises SharpzoError when the disk does not take it; the end of the file may then be torn.
    """

    def __init__(self, path: Path, keep: int | None = None):
        self._path = path
        with _as_ours("write", path):
            self._file = OpenFile(path, os.O_RDWR | os.O_APPEND)
            if keep is not None:
                self._file.truncate(keep)
        self._is_in_folder = False

    def append(self, data: bytes) -> None:
        with _as_ours("write", self._path):
            self._file.write(data)

    def truncate(self, size: int) -> None:
        with _as_ours("write", self._path):
            self._file.truncate(size)

    def read(self, start: int, length: int) -> bytes:
        with _as_ours("read", self._path):
            return os.pread(self._file.descriptor, length, start)

    def sync(self) -> None:
        with _as_ours("write", self._path):
            self._file.sync()
            if not self._is_in_folder:
                sync_folder(self._path.parent)
                self._is_in_folder = True

    def close(self) -> None:
        self._file.close()


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries: a rename is only then safe from a power cut.

    Some file systems cannot do that to a folder. What they have is then as safe as they make it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NOT_FOR_FOLDERS:
            raise
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder unless it is there; the one above it must be. Raises OSError."""
    if not folder.is_dir():
        try:
            os.mkdir(folder)
        except FileExistsError:
            if not folder.is_dir():
                raise


def remove(path: Path) -> None:
    """Remove a file, if there is one. Raises SharpzoError."""
    with _as_ours("remove", path), contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def write_json(path: Path, value: Any) -> None:
    with replacing(path) as file:
        file.write(canonical_json(value))


def write_checked_json(path: Path, value: Any) -> None:
    """Write a JSON value and its checksum."""
    write_json(path, {"value": value, "checksum": checksum(canonical_json(value))})


def is_there(path: Path) -> bool:
    """Whether a file or folder exists. Raises SharpzoError when the system does not say."""
    try:
        os.stat(path)
    except OSError as error:
        if is_absent(error):
            return False
        raise cannot("read", path, error) from error
    return True


def read_limited(path: Path, most_bytes: int) -> bytes:
    """A file of at most so many bytes. Raises OSError, ValueError for a longer one."""
    with open(path, "rb", opener=plain) as file:
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise ValueError(f"it has more than {most_bytes:,} bytes")
    return data


def read_checked_json(path: Path) -> Any:
    """What `write_checked_json` wrote; None when there is no file, or a damaged one.

    Raises SharpzoError when the system does not let it be read: that says nothing of what is in it.
    """
    try:
        parts = json.loads(read_limited(path, JSON_LIMIT_BYTES))
        return parts["value"] if parts["checksum"] == checksum(canonical_json(parts["value"])) else None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise cannot("read", path, error) from error
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def canonical_json(value: Any) -> bytes:
    """The one spelling of a JSON value: keys sorted, no spaces, UTF-8, no NaN."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def checksum(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


def json_checksum(*values: Any) -> str:
    """Of JSON values: another one when any of them is another."""
    return checksum(canonical_json(list(values)))


def file_checksum(path: Path) -> str | None:
    """Of a file's bytes; None when there is no file. Raises SharpzoError when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise cannot("read", path, error) from error


def cannot(verb: str, path: Path, error: OSError) -> SharpzoError:
    """What the system refused: to write, read, remove or lock a file, or to make a folder."""
    if verb == "read":
        return cannot_read(path, error)
    if error.errno in OUT_OF:
        return SharpzoError(
            f"Cannot {verb} {path}: {error.strerror}. A limit on this program or this machine must leave "
            f"room for it. Type the same command again {OUT_OF[error.errno]}"
        )
    if error.errno == errno.EBUSY:
        return SharpzoError(
            f"Cannot {verb} {path}: {error.strerror}. Another program, such as a virus scanner, or the file "
            f"system holds it. It must be free. Type the same command again in a moment, or choose another "
            f"place with --output"
        )
    advice = {
        **dict.fromkeys(DISK_FULL, "Free some space, or choose"),
        errno.EFBIG: "Raise the limit on a file's size (ulimit -f), or choose",
        errno.EIO: "Check the disk, and type the same command again, or choose",  # it may work the next time
    }.get(error.errno or 0, "Check the folder, or choose")
    return SharpzoError(
        f"Cannot {verb} {path}: {error.strerror or error}. The folder must exist, be writable and "
        f"have room left, on a disk in order. {advice} another place with --output"
    )


@contextlib.contextmanager
def _as_ours(verb: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise cannot(verb, path, error) from error
