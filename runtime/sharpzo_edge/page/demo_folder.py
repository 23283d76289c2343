"""The demo's pictures in a folder of the user's, so that nothing is labelled inside the installed package."""

from __future__ import annotations

import os
from pathlib import Path

from ..demo import BUNDLE, DEFAULT_TASK, TASKS
from ..run.files import OpenFile, cannot, make_folder, move_to_free, sync_folder
from .choices import Choices

FOLDER = Path("sharpzo-demo")
TO_LABEL, TO_TRY = "pictures", "to-try"
LICENCES = "ATTRIBUTION.md"


def copy_demo() -> tuple[Path, Path, Choices]:
    """Bundle, pictures, and what to choose at first. What is in ./sharpzo-demo already stays as it is.

    Raises SharpzoError.
    """
    if not FOLDER.exists():
        beside = FOLDER.with_name(f".{FOLDER.name}.part")
        try:
            make_folder(beside)
            task = TASKS / DEFAULT_TASK
            _copy(task / "train", beside / TO_LABEL)
            _copy(task / "test", beside / TO_TRY)
            _copy(task / LICENCES, beside / LICENCES)
            move_to_free(beside, FOLDER)
            sync_folder(FOLDER.resolve().parent)
        except OSError as error:
            raise cannot("make", FOLDER.resolve(), error) from error
    return BUNDLE, FOLDER / TO_LABEL, Choices(preset="demo")


def _copy(path: Path, new: Path) -> None:
    """A file, or a folder with all that is in it. What an earlier copy left there is written anew."""
    if path.is_dir():
        make_folder(new)
        for each in path.iterdir():
            _copy(each, new / each.name)
    else:
        with OpenFile(new, os.O_WRONLY | os.O_TRUNC) as file:
            file.write(path.read_bytes())
