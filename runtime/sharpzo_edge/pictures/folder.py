"""A folder of labelled pictures: which classes it has, their words, and their files."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import ImagesError, SkippedPicturesError
from ..run.files import read_limited

NAMES_LIMIT_BYTES = 4 << 20  # of a file of class names


@dataclass(frozen=True)
class LabelledFolder:
    """The classes of a folder and their files.

    folders: (K,) sorted names of the class folders; names: (K,) the words for them;
    files: (K,) sorted paths of each, `root` included;
    dead_links: names of links in place of class folders that lead nowhere, or in a circle.
    """

    root: Path
    folders: tuple[str, ...]
    names: tuple[str, ...]
    files: tuple[tuple[Path, ...], ...]
    dead_links: tuple[str, ...] = ()

    def skipped_lines(self) -> list[str]:
        """What was passed over in place of class folders."""
        n = len(self.dead_links)
        example = f"(for example {self.root / self.dead_links[0]})" if n else ""
        return [f"skipped {n} class folder{'s'[: n > 1]}: a link that leads nowhere {example}"] * (n > 0)


@dataclass
class Skipped:
    """Pictures that were passed over: reason -> how many, and one of them as an example."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, path: Path, reason: str) -> None:
        self.counts[reason] += 1
        self.examples.setdefault(reason, str(path))

    def lines(self) -> list[str]:
        return [
            f"skipped {n} picture{'s'[: n > 1]}: {reason} (for example {self.examples[reason]})"
            for reason, n in sorted(self.counts.items())
        ]


def skipped_pictures(lines: Sequence[str]) -> SkippedPicturesError:
    """The error of --strict."""
    return SkippedPicturesError(
        f"Pictures cannot be read: {'; '.join(lines)}. With --strict every one must be readable. "
        f"Mend or remove them, or leave out --strict"
    )


def read_folder(root: Path, class_names_file: Path | None = None, fewest: int = 2) -> LabelledFolder:
    """List `root`: every folder in it is a class, every plain file in that folder a picture.

    Underscores in a folder's name read as spaces, unless `class_names_file` (a JSON object from
    folder name to words) says better. Hidden files are passed over, dead links counted. Raises
    ImagesError for a folder that is missing or unreadable, for fewer than `fewest` classes, and for two
    classes of one name.
    """
    try:
        seen = sorted(p for p in root.iterdir() if p.name[0] != ".")
        folders = [p.name for p in seen if p.is_dir()]
        dead_links = tuple(p.name for p in seen if p.is_symlink() and not p.exists())
        files = [
            tuple(p for p in sorted((root / f).iterdir()) if _may_be_picture(p) and p.name[0] != ".")
            for f in folders
        ]
    except OSError as error:
        raise ImagesError(
            f"The pictures' folder {error.filename or root} cannot be read ({error.strerror}). "
            f"It must be a folder that holds one folder a class. Check the path after --images"
        ) from error
    if len(folders) < fewest:
        raise ImagesError(
            f"{root} holds {len(folders)} class folder{'s'[: len(folders) != 1]}. It needs at least "
            f"{fewest}, one folder a class, such as {root}/cat/1.jpg and {root}/dog/1.jpg. "
            f"Check the path after --images"
        )
    for folder in folders:
        if folder != os.fsencode(folder).decode(errors="replace"):
            raise ImagesError(
                f"The name of the class folder {os.fsencode(root / folder)!r} is not UTF-8. A class needs a "
                f"name that is text. Rename the folder"
            )
    words = _read_class_names(class_names_file, folders) if class_names_file else {}
    names = [words.get(f, f.replace("_", " ")).strip() for f in folders]
    for name, count in Counter(names).items():
        if not name or count > 1:
            same = [f for f, n in zip(folders, names, strict=True) if n == name]
            raise ImagesError(
                f"The class folders {same} of {root} read as the name {name!r}. Every class needs a "
                f"name of its own. Rename a folder, or give names with --class-names FILE"
            )
    return LabelledFolder(root, tuple(folders), tuple(names), tuple(files), dead_links)


def _may_be_picture(path: Path) -> bool:
    """A plain file, or a link that leads nowhere: that one is counted among the skipped."""
    return path.is_file() or (path.is_symlink() and not path.exists())


def _read_class_names(path: Path, folders: list[str]) -> dict[str, str]:
    try:
        words = json.loads(read_limited(path, NAMES_LIMIT_BYTES))
        if not isinstance(words, dict) or not all(isinstance(v, str) for v in words.values()):
            raise ValueError("it is not an object of strings")
    except (OSError, ValueError, RecursionError) as error:
        raise ImagesError(
            f"The class names file {path} cannot be used: {error}. It must hold a JSON object from "
            f'folder name to words, such as {{"{folders[0]}": "some better words"}}. Correct it, or leave '
            f"out --class-names"
        ) from error
    if unknown := sorted(set(words) - set(folders)):
        raise ImagesError(
            f"The class names file {path} names folders that are not there: {unknown[:5]}. "
            f"The folders are {folders[:5]}… Correct the names in it"
        )
    return words
