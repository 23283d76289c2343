"""A folder of labelled pictures: which classes it has, their words, and their files."""

from __future__ import annotations

import contextlib
import json
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

from ..errors import ImagesError, SkippedPicturesError, cannot_read, is_absent
from ..run.files import read_limited
from ..run.folder import is_work_folder
from ..wording import counted
from .listing import Listing

NAMES_LIMIT_BYTES = 4 << 20  # of a file of class names
MOST_NAMED = 5  # folders in one message
# What systems, cameras and labelling tools leave beside pictures. Names that begin with a dot are hidden.
SYSTEM_FOLDERS = (
    *("__MACOSX", "lost+found", "System Volume Information", "$RECYCLE.BIN", "RECYCLER", "FOUND.000"),
    *("@eaDir", "#recycle", "#snapshot", "@Recycle", "@Recently-Snapshot", "LOST.DIR"),
)
SYSTEM_FILES = ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "zbthumbnail.info", "picasa.ini")
SIDECAR_ENDINGS = (
    ".json",
    ".xml",
    ".csv",
    ".xmp",
    ".aae",
    ".thm",
    ".yaml",
    ".yml",
    ".db",
    ".ini",
    ".md",
    ".safetensors",
)
SPLIT_NAMES = {"train", "training", "valid", "validation", "val", "dev", "test", "testing"}
DATA_NAMES = {"images", "labels", "annotations", "masks", "jpegimages", "imagesets"}
BESIDE_CLASSES = "beside the class folders, and in none"


@dataclass(frozen=True)
class LabelledFolder:
    """The classes of a folder and their files.

    folders:     (K,) sorted names of the class folders; names: (K,) the words for them
    files:       (K,) sorted paths of each, `root` included
    dead_links:  names of links in place of class folders that lead nowhere, or in a circle
    passed_over: lines for the user, of files that are no pictures by their names or places
    """

    root: Path
    folders: tuple[str, ...]
    names: tuple[str, ...]
    files: tuple[Listing, ...]
    dead_links: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()

    @property
    def listing_bytes(self) -> int:
        """What the names of the files take."""
        return sum(listing.n_bytes for listing in self.files)

    @property
    def listing_peak_bytes(self) -> int:
        """The most that they took while they were listed, one class after the other."""
        return self.listing_bytes + max((listing.making_bytes for listing in self.files), default=0)

    def skipped_lines(self) -> list[str]:
        """What was passed over in place of class folders."""
        n = len(self.dead_links)
        example = f"(for example {self.root / self.dead_links[0]})" if n else ""
        return [f"skipped {counted(n, 'class folder')}: a link that leads nowhere {example}"] * (n > 0)


@dataclass(frozen=True)
class FileNames(Sequence[str]):
    """Names of files below a folder's root, by their numbers among all. Each is made when it is asked for."""

    folder: LabelledFolder
    numbers: Sequence[int]

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[str]: ...
    def __getitem__(self, i: int | slice) -> str | Sequence[str]:
        if isinstance(i, slice):
            return FileNames(self.folder, self.numbers[i])
        number = self.numbers[i]
        for listing in self.folder.files:
            if number < len(listing):
                return str(listing[number].relative_to(self.folder.root))
            number -= len(listing)
        raise IndexError(i)


@dataclass
class Skipped:
    """Pictures that were passed over: reason -> how many, and one of them as an example."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, path: Path, reason: str) -> None:
        self.counts[reason] += 1
        self.examples.setdefault(reason, str(path))

    def lines(self, what: str = "picture") -> list[str]:
        return [
            f"skipped {counted(n, what)}: {reason} (for example {self.examples[reason]})"
            for reason, n in sorted(self.counts.items())
        ]


def skipped_pictures(lines: Sequence[str]) -> SkippedPicturesError:
    """The error of --strict."""
    return SkippedPicturesError(
        f"Pictures cannot be read: {'; '.join(lines)}. With --strict every one must be readable. "
        f"Mend or remove them, or leave out --strict"
    )


def read_folder(root: Path, class_names_file: Path | None = None, fewest: int = 2) -> LabelledFolder:
    """List `root`: every folder in it is a class, every plain file in that folder may be a picture.

    Underscores in a folder's name read as spaces, unless `class_names_file` (a JSON object from folder name
    to words) says better. What systems and programs leave beside pictures is passed over and counted.
    Raises ImagesError for a folder that is missing, for fewer than `fewest` classes, for the layouts of other
    tools (with the path to pass instead), and for two classes of one name; SharpzoError for a folder that the
    system does not let be listed.
    """
    passed_over = Skipped()
    found, dead_links = class_folders(root, passed_over)
    files = tuple(class_listing(path, passed_over) for path in found)
    if not found and passed_over.counts[BESIDE_CLASSES]:
        raise ImagesError(
            f"{root} holds files, and no class folder. A class is a folder with its pictures in it, such as "
            f"{root}/cat/1.jpg and {root}/dog/1.jpg. Make a folder for each class, and move the files there"
        )
    if found:
        _refuse_other_layouts(root, found)
    if found and not any(files) and (deeper := [f for f in found if class_folders(f, Skipped())[0]]):
        also = f", or: --images {deeper[1]}" if len(deeper) > 1 else ""
        raise ImagesError(
            f"{root} holds {counted(len(found), 'folder')}, and the class folders are further down, in "
            f"{deeper[0]}. --images takes the folder that holds the class folders. "
            f"Type: --images {deeper[0]}{also}"
        )
    if len(found) < fewest:
        raise ImagesError(
            f"{root} holds {counted(len(found), 'class folder')}. It needs at least "
            f"{fewest}, one folder a class, such as {root}/cat/1.jpg and {root}/dog/1.jpg. "
            f"Check the path after --images"
        )
    folders = [folder_name(path) for path in found]
    names = class_words(root, folders, class_names_file)
    lines = tuple(passed_over.lines("file"))
    return LabelledFolder(root, tuple(folders), tuple(names), files, dead_links, lines)


def class_words(root: Path, folders: Sequence[str], class_names_file: Path | None = None) -> list[str]:
    """The words for class folders; see read_folder. Raises ImagesError for two classes of one name."""
    words = _read_class_names(class_names_file, folders) if class_names_file else {}
    names = [words.get(f, f.replace("_", " ")).strip() for f in folders]
    alike = [unicodedata.normalize("NFC", name) for name in names]
    for name, count in Counter(alike).items():
        if not name or count > 1:
            same = [f for f, n in zip(folders, alike, strict=True) if n == name]
            raise ImagesError(
                f"The class folders {same} of {root} read as the name {name!r}. Every class needs a "
                f"name of its own. Rename a folder, or give names with --class-names FILE"
            )
    return names


@contextlib.contextmanager
def _entries(folder: Path) -> Iterator[Iterator[os.DirEntry[str]]]:
    """What a folder holds. Raises ImagesError when there is none, SharpzoError when it is refused."""
    try:
        with os.scandir(folder) as entries:
            yield entries
    except OSError as error:  # of the folder, or of what an entry leads to
        path = Path(error.filename or folder)
        if not is_absent(error):
            raise cannot_read(path, error) from error
        raise ImagesError(
            f"The pictures' folder {path} cannot be read ({error.strerror}). It must be a folder that holds "
            f"one folder a class. Check the path after --images"
        ) from error


def class_folders(root: Path, passed_over: Skipped) -> tuple[list[Path], tuple[str, ...]]:
    """The folders that are classes, sorted, and the names of dead links."""
    found, dead_links = [], []
    with _entries(root) as entries:
        for entry in entries:
            path = root / entry.name
            if entry.name.startswith(".") or entry.name in SYSTEM_FOLDERS:
                continue
            kind = _kind(entry)
            if kind == "folder":
                if not is_work_folder(path):  # an output may lie beside its class folders
                    found.append(path)
            elif kind == "dead link":
                dead_links.append(entry.name)
            elif not is_sidecar(entry.name):
                passed_over.add(path, BESIDE_CLASSES)
    return sorted(found, key=os.fsencode), tuple(sorted(dead_links, key=os.fsencode))


def class_listing(folder: Path, passed_over: Skipped) -> Listing:
    """Files that may be pictures: plain ones, and dead links, which are counted as unreadable later."""
    files, folders = _listed(folder, passed_over)
    for each in folders:
        passed_over.add(each, "a folder in a class folder, which is not looked into")
    return files


def files_below(folder: Path, passed_over: Skipped, within: frozenset[str] = frozenset()) -> Iterator[Path]:
    """The same, of a folder and then of the folders in it.

    within: where it already is, so that a link in a circle has an end
    """
    place = os.path.realpath(folder)
    if place in within:
        return
    files, folders = _listed(folder, passed_over)
    yield from files
    for each in folders:
        yield from files_below(each, passed_over, within | {place})


def _listed(folder: Path, passed_over: Skipped) -> tuple[Listing, list[Path]]:
    """Files that may be pictures, and folders, sorted."""
    names, folders = [], []
    with _entries(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            try:
                kind = _kind(entry)
            except OSError:
                kind = "file"  # reading it will say why
            if (
                kind == "folder"
                and entry.name not in SYSTEM_FOLDERS
                and not is_work_folder(folder / entry.name)
            ):
                folders.append(folder / entry.name)
            elif kind in ("file", "dead link") and is_sidecar(entry.name):
                passed_over.add(folder / entry.name, "no picture by its name")
            elif kind in ("file", "dead link"):
                names.append(os.fsencode(entry.name))
            elif kind == "other":
                passed_over.add(folder / entry.name, "a device, a pipe or a socket")
    return Listing(folder, names), sorted(folders, key=os.fsencode)


def _kind(entry: os.DirEntry[str]) -> str:
    """file, folder, dead link (also one that leads in a circle), or other. Raises OSError."""
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
        entry.stat()
    except OSError as error:
        if not is_absent(error):
            raise
        return "dead link"
    return "other"


def is_sidecar(name: str) -> bool:
    """Whether a file is what systems, cameras and labelling tools write beside pictures."""
    return name.lower() in SYSTEM_FILES or os.path.splitext(name)[1].lower() in SIDECAR_ENDINGS


def _refuse_other_layouts(root: Path, found: list[Path]) -> None:
    """Raises ImagesError where the folders are splits or kinds of data, as other tools export them."""
    names = {path.name.lower() for path in found}
    if names <= SPLIT_NAMES:
        train = next((path for path in found if path.name.lower().startswith("train")), found[0])
        with _entries(train) as entries:
            has_classes = any(_kind(e) == "folder" and e.name not in SYSTEM_FOLDERS for e in entries)
        if has_classes:
            test = next((path for path in found if path.name.lower().startswith("test")), None)
            measure = f", and measure with eval --images {test}" if test else ""
            raise ImagesError(
                f"{root} holds parts of a data set ({', '.join(sorted(names))}), and not classes. --images "
                f"takes the folder that holds the class folders. Tune with --images {train}{measure}"
            )
        raise ImagesError(
            f"{root} holds parts of a data set ({', '.join(sorted(names))}) whose pictures are not in class "
            f"folders. A class is a folder with its pictures in it. Make {train}/cat, {train}/dog and so on, "
            f"and type: --images {train}"
        )
    if names <= DATA_NAMES:
        raise ImagesError(
            f"{root} holds kinds of data ({', '.join(sorted(names))}), and not classes: boxes or masks, as "
            f"tools for detection write them. A class is a folder with its pictures in it. Make {root}/cat "
            f"and so on, and check the path after --images"
        )


def folder_name(path: Path) -> str:
    """The name of a class folder. Raises ImagesError unless it is UTF-8, whatever the locale."""
    try:
        return os.fsencode(path.name).decode()
    except UnicodeDecodeError:
        raise ImagesError(
            f"The name of the class folder {os.fsencode(path)!r} is not UTF-8. A class needs a "
            f"name that is text. Rename the folder"
        ) from None


def _read_class_names(path: Path, folders: Sequence[str]) -> dict[str, str]:
    try:
        words = json.loads(read_limited(path, NAMES_LIMIT_BYTES))
        if not isinstance(words, dict) or not all(isinstance(v, str) for v in words.values()):
            raise ValueError("it is not an object of strings")
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, OSError) and not is_absent(error):
            raise cannot_read(path, error) from error
        raise ImagesError(
            f"The class names file {path} cannot be used: {error}. It must hold a JSON object from "
            f'folder name to words, such as {{"{folders[0]}": "some better words"}}. Correct it, or leave '
            f"out --class-names"
        ) from error
    if unknown := sorted(set(words) - set(folders)):
        raise ImagesError(
            f"The class names file {path} names folders that are not there: {_some(unknown)}. "
            f"The folders are {_some(folders)}. Correct the names in it"
        )
    return words


def _some(names: Sequence[str]) -> str:
    """The first of these names, for a message."""
    return f"{', '.join(map(repr, names[:MOST_NAMED]))}{', …' * (len(names) > MOST_NAMED)}"
