"""The folder of pictures as the page changes it: names, moves, words, what is put aside.

The folder on disk is the truth. Nothing is remembered between two calls, so a change from outside is seen.
Nothing is ever deleted or replaced, no link is followed, and nothing leaves the folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from ..errors import ImagesError, SharpzoError, UsageError
from ..pictures.folder import NAMES_LIMIT_BYTES, Skipped, class_folders, class_listing, folder_name
from ..run.files import (
    DISK_FULL,
    OpenFile,
    make_folder,
    move_to_free,
    read_limited,
    remove,
    sync_folder,
    write_json,
)
from .names import class_folder_name, numbered, parts_of, shown, spelt

ASIDE = ".put-aside"  # passed over by every command, as its name begins with a dot
OWN = ".page"  # thumbnails, uploads on their way, the choices of the Tune tab
NAMES_FILE = "class-names.json"
MOST_NUMBERED = 100_000


class NotThereError(UsageError):
    """What a request names is no class and no picture of the folder, or is there no longer."""


@dataclass(frozen=True)
class ClassFolder:
    """folder: its name; words: what CLIP reads instead; pictures: how many files.

    is_link: the page leaves it alone;  changed: another one when pictures came or went
    """

    folder: str
    words: str
    pictures: int
    is_link: bool
    changed: str

    @property
    def word(self) -> str:
        return spelt(self.folder)

    @property
    def title(self) -> str:
        return shown(self.folder).replace("_", " ")

    @property
    def reads_as(self) -> str:
        """The name of the class in results."""
        return (self.words or self.folder.replace("_", " ")).strip()


@dataclass(frozen=True)
class Picture:
    """A file of a class or of what was put aside. word: its place (names.spelt); key: of its thumbnail."""

    word: str
    name: str
    key: str


@dataclass(frozen=True)
class Contents:
    """What the folder holds at this moment. aside: pictures put aside; said: what is passed over, and why."""

    classes: tuple[ClassFolder, ...]
    aside: int
    said: tuple[str, ...]


@dataclass(frozen=True)
class Labels:
    """root: the folder that holds the class folders; names_file: words of classes, or None for its own."""

    root: Path
    names_file: Path | None = None

    # What is there ---------------------------------------------------------------------------------

    def contents(self) -> Contents:
        """Raises ImagesError when the folder cannot be read."""
        passed_over, said, classes = Skipped(), [], []
        words = self.words()
        try:
            found, dead_links = class_folders(self.root, passed_over)
            for path in found:
                try:
                    name = folder_name(path)
                except ImagesError as error:
                    said.append(str(error))
                    continue
                n, changed = len(class_listing(path, passed_over)), str(path.stat().st_mtime_ns)
                classes.append(ClassFolder(name, words.get(name, ""), n, path.is_symlink(), changed))
        except OSError as error:
            raise refused("read", self.root, error) from error
        said += [f"{shown(name)} is a link that leads nowhere" for name in dead_links]
        aside = sum(1 for _ in self._aside())
        return Contents(tuple(classes), aside, (*said, *passed_over.lines("file")))

    def pictures(self, word: str, start: int, most: int) -> tuple[list[Picture], int]:
        """Some pictures of a class, from a number on, and how many it has. Raises NotThereError."""
        path = self._class_path(word)
        files = class_listing(path, Skipped())
        return list(_described(self.root, files[start : start + most])), len(files)

    def pictures_aside(self, start: int, most: int) -> tuple[list[Picture], int]:
        files = sorted(self._aside(), key=os.fsencode)
        return list(_described(self.root, files[start : start + most])), len(files)

    def find(self, word: str) -> Path:
        """The file that a word (names.spelt) names. Raises NotThereError: also for a link or a device."""
        try:
            parts = parts_of(word)
        except ValueError:
            raise _not_there(word) from None
        is_aside = len(parts) == 3 and parts[0] == ASIDE
        if not is_aside and (len(parts) != 2 or parts[0].startswith(".")):
            raise _not_there(word)
        folders = [self.root.joinpath(*parts[:i]) for i in range(1, len(parts))]
        path = self.root.joinpath(*parts)
        if path.name.startswith(".") or not all(map(_is_folder, folders)) or not _is_plain(path):
            raise _not_there(word)
        return path

    def _aside(self) -> Iterator[Path]:
        aside = self.root / ASIDE
        if _is_folder(aside):
            for folder in sorted(aside.iterdir()):
                if _is_folder(folder):
                    yield from class_listing(folder, Skipped())

    def _class_path(self, word: str) -> Path:
        try:
            (name,) = parts_of(word)
        except ValueError:
            raise _not_there(word) from None
        path = self.root / name
        if name.startswith(".") or not _is_folder(path):
            raise _not_there(word)
        return path

    # Classes ---------------------------------------------------------------------------------------

    def make_class(self, given: str) -> str:
        """Make a class folder; returns its word. Raises UsageError for a name that is none or is taken."""
        name = self._free_class_name(given)
        try:
            make_folder(self.root / name)
            sync_folder(self.root)
        except OSError as error:
            raise refused("make", self.root / name, error) from error
        return spelt(name)

    def rename_class(self, word: str, given: str) -> str:
        """Rename a class folder; its words go with it. Returns the new word."""
        path = self._class_path(word)
        name = self._free_class_name(given, but=path.name)
        if name == path.name:
            return word
        words = self.words()
        try:
            move_to_free(path, self.root / name)
            sync_folder(self.root)
        except OSError as error:
            raise refused("rename", path, error) from error
        if path.name in words:
            words[name] = words.pop(path.name)
            self._save_words(words)
        return spelt(name)

    def _free_class_name(self, given: str, but: str = "") -> str:
        """On a card, names that differ in capitals alone are one name."""
        name = class_folder_name(given)
        taken = {entry.name.casefold(): entry.name for entry in os.scandir(self.root) if entry.name != but}
        if name.casefold() in taken:
            raise UsageError(
                f"There is a {shown(taken[name.casefold()])} already. Every class needs a name of its own. "
                f"Type another name, or move the pictures there"
            )
        return name

    # Words -----------------------------------------------------------------------------------------

    @property
    def words_file(self) -> Path:
        return self.names_file or self.root / NAMES_FILE

    def words(self) -> dict[str, str]:
        """Folder name to words. Empty where there is no file, or it is none of ours: tune says why."""
        try:
            found = json.loads(read_limited(self.words_file, NAMES_LIMIT_BYTES))
        except (OSError, ValueError, RecursionError):
            return {}
        if not isinstance(found, dict) or not all(isinstance(each, str) for each in found.values()):
            return {}
        return found

    def set_words(self, word: str, given: str) -> None:
        """Give a class better words; without any, its folder's name counts again."""
        name = self._class_path(word).name
        words = self.words()
        if not words and self.words_file.exists():
            raise UsageError(
                f"{self.words_file} cannot be changed: it is no JSON object from folder name to words. "
                f"Correct it by hand, or move it away"
            )
        words.pop(name, None)
        if said := " ".join(given.split()):
            words[name] = said
        self._save_words(words)

    def tidy_words(self) -> None:
        """Forget words of folders that are not there: with them, tune would refuse the file."""
        words = self.words()
        kept = {name: said for name, said in words.items() if _is_folder(self.root / name)}
        if kept != words and self.names_file is None:
            self._save_words(kept)

    def _save_words(self, words: dict[str, str]) -> None:
        if words or self.names_file:
            write_json(self.words_file, words)
        else:
            remove(self.words_file)

    # Pictures --------------------------------------------------------------------------------------

    def move(self, words: Sequence[str], to: str) -> list[str]:
        """Move pictures to a class; returns their new words. Where a name is taken they get another one."""
        folder = self._class_path(to)
        with _synced() as changed:
            changed.add(folder)
            return [self._moved(self.find(word), folder) for word in words]

    def put_aside(self, words: Sequence[str]) -> list[str]:
        """Move pictures out of their classes, into a folder that no command looks into."""
        moved = []
        with _synced() as changed:
            for path in map(self.find, words):
                if path.parent.parent.name != ASIDE:
                    folder = self._make(self._make(self.root / ASIDE) / path.parent.name)
                    changed.add(folder)
                    moved.append(self._moved(path, folder))
        return moved

    def upload_place(self, to: str) -> tuple[Path, Path]:
        """The class folder for pictures that are sent, and the folder where they lie until they are whole."""
        folder = self._class_path(to)
        return folder, self.own_folder("uploads")

    def receive(self, whole: Path, folder: Path, name: str) -> str:
        """Move a picture that was sent, and is whole on disk, into its class. Returns its word."""
        with _synced() as changed:
            changed.add(folder)
            return self._into(whole, folder, name)

    def own_folder(self, name: str) -> Path:
        """A folder of the page's own files. Raises SharpzoError."""
        self._make(self.root / OWN)
        return self._make(self.own_path(name))

    def own_path(self, name: str) -> Path:
        return self.root / OWN / name

    def clear_uploads(self) -> None:
        """Remove what was on its way when the page ended."""
        for path in self.own_folder("uploads").iterdir():
            remove(path)

    def _make(self, folder: Path) -> Path:
        try:
            make_folder(folder)
        except OSError as error:
            raise refused("make", folder, error) from error
        if not _is_folder(folder):
            raise UsageError(
                f"{folder} is no folder of its own, but a link or a file. The page keeps files there. "
                f"Move it away. Try again then"
            )
        return folder

    def _moved(self, path: Path, folder: Path) -> str:
        if path.parent == folder:
            return spelt(*path.relative_to(self.root).parts)
        return self._into(path, folder, path.name)

    def _into(self, path: Path, folder: Path, name: str) -> str:
        """Rename into a folder, by the first name that is free there."""
        try:
            for number in count(1):
                new = folder / numbered(name, number)
                try:
                    move_to_free(path, new)
                    break
                except FileExistsError:
                    if number == MOST_NUMBERED:
                        raise
        except OSError as error:
            raise refused("move", path, error) from error
        return spelt(*new.relative_to(self.root).parts)


@contextlib.contextmanager
def _synced() -> Iterator[set[Path]]:
    """A set for folders that are changed: at the end, however it comes, that is safe from a power cut."""
    changed: set[Path] = set()
    try:
        yield changed
    finally:
        for folder in changed:
            try:
                sync_folder(folder)
            except OSError as error:
                raise refused("write", folder, error) from error


def key_of(path: Path) -> str:
    """By what a thumbnail is known: it stays when a picture is moved or renamed, and not when it changes."""
    found = path.lstat()
    return f"{found.st_ino:x}-{found.st_size:x}-{found.st_mtime_ns:x}"


def open_new(path: Path) -> OpenFile:
    """A file that was not there. Raises OSError."""
    return OpenFile(path, os.O_WRONLY | os.O_EXCL)


def _described(root: Path, files: Sequence[Path]) -> Iterator[Picture]:
    for path in files:
        word = spelt(*path.relative_to(root).parts)
        try:
            key = key_of(path)
        except OSError:  # it has just gone
            continue
        yield Picture(word, shown(path.name), key)


def _is_folder(path: Path) -> bool:
    """A folder itself, and not a link to one."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except (OSError, ValueError):
        return False


def _is_plain(path: Path) -> bool:
    """A plain file, and no link, device or pipe."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (OSError, ValueError):
        return False


def _not_there(word: str) -> NotThereError:
    return NotThereError(
        f"There is no {word[:200]!r} here. The page knows plain files in class folders, and follows no link. "
        f"It may have been moved: load the page again"
    )


def refused(verb: str, path: Path, error: OSError) -> SharpzoError:
    """What the disk did not do: to read, make, rename, move or write."""
    advice = "Free some space" if error.errno in DISK_FULL else "Check the disk or card, and its permissions"
    return SharpzoError(
        f"Cannot {verb} {shown(str(path))}: {error.strerror or error}. The folder must be there, be writable "
        f"and have room. Nothing is lost: what was there before is where it was. {advice}. Try again then"
    )
