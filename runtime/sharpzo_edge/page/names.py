"""Names that come from a browser: what may name a class folder, a picture, and a place in the folder.

A disk of pictures may be a card or a stick with Windows' rules, so these count everywhere.
"""

from __future__ import annotations

import os
import unicodedata
from urllib.parse import quote, unquote_to_bytes

from ..errors import UsageError
from ..pictures.folder import SYSTEM_FOLDERS
from ..wording import UNPRINTABLE, printable

FORBIDDEN = frozenset('/\\<>:"|?*')
DEVICES = frozenset(
    ("con", "prn", "aux", "nul", *(f"{kind}{i}" for kind in ("com", "lpt") for i in range(10)))
)
LONGEST_CLASS_BYTES = 100
LONGEST_STEM_BYTES = 80
NO_NAME = "picture"


def class_folder_name(given: str) -> str:
    """The folder's name for a class that somebody typed: spaces become underscores, which read as spaces.

    Raises UsageError for what is no name on every disk.
    """
    name = "_".join(unicodedata.normalize("NFC", given).split())
    problem = _problem_of(name)
    if not problem and len(name.encode(errors="replace")) > LONGEST_CLASS_BYTES:
        problem = f"has more than {LONGEST_CLASS_BYTES} bytes"
    if problem:
        raise UsageError(
            f"The class name {given[:LONGEST_CLASS_BYTES]!r} cannot name a folder: it {problem}. Letters, "
            f"digits, spaces, hyphens and underscores are allowed. Type another one, such as: hot dog"
        )
    return name


def _problem_of(name: str) -> str:
    if not name:
        return "is empty"
    if FORBIDDEN & set(name) or UNPRINTABLE.search(name):
        return "holds a character that a file system or a terminal acts on"
    if name.startswith(".") or name.endswith("."):
        return "begins or ends with a dot"
    if name in SYSTEM_FOLDERS or name.split(".")[0].lower() in DEVICES:
        return "belongs to the system"
    try:
        name.encode()
    except UnicodeEncodeError:
        return "is no text"
    return ""


def picture_name(given: str, ending: str) -> str:
    """The name for a picture that was sent: nothing of the sender's that could be a path, a device or hidden.

    ending: by what the file is, and not by what it is called, such as ".jpg"
    """
    last = unicodedata.normalize("NFC", given).replace("\\", "/").rpartition("/")[2]
    stem = os.path.splitext(last)[0]
    stem = UNPRINTABLE.sub("", "".join("_" if c in FORBIDDEN else c for c in stem)).strip(" .")
    stem = stem.encode(errors="ignore")[:LONGEST_STEM_BYTES].decode(errors="ignore").rstrip(" .")
    if stem.split(".")[0].lower() in DEVICES:
        stem = f"_{stem}"
    return f"{stem or NO_NAME}{ending}"


def numbered(name: str, number: int) -> str:
    """The same name, for another picture.

    >>> numbered("a.jpg", 1), numbered("a.jpg", 2)
    ('a.jpg', 'a-2.jpg')
    """
    stem, ending = os.path.splitext(name)
    return name if number == 1 else f"{stem}-{number}{ending}"


def spelt(*parts: str) -> str:
    """The places of a picture in the folder as one word of ASCII, whatever the bytes of their names."""
    return "/".join(quote(os.fsencode(part), safe="") for part in parts)


def parts_of(word: str) -> tuple[str, ...]:
    """What `spelt` was told. Raises ValueError for what can be no place in the folder."""
    parts = tuple(os.fsdecode(unquote_to_bytes(part)) for part in word.split("/"))
    for part in parts:
        if part in ("", ".", "..") or "/" in part or "\0" in part:
            raise ValueError(word)
    return parts


def shown(name: str) -> str:
    """A name as text for people: bytes that are no text, and marks that turn the writing, as escapes."""
    return printable(os.fsencode(name).decode(errors="backslashreplace"))
