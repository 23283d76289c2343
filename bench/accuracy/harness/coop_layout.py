"""The paper's eleven data sets and four shifts, from folders as CoOp's DATASETS.md lays them out.

    split_zhou_NAME.json                   {"train": [[picture, label, class name], …], "val": …, "test": …}
    images_variant_{train,val,test}.txt    FGVC's lists: a picture's number and its variant; variants.txt
    classnames.txt                         ImageNet's: a folder's name and its class's

ImageNet has no validation list of its own: its val/ is the test set, as in CoOp, and validation pictures are
drawn from train/ beyond the shots.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from .tasks import Files, Split, Task

# By the paper's names: the folder, where in it pictures lie, and the list of its splits.
LISTED = {
    "caltech": ("caltech-101", "101_ObjectCategories", "split_zhou_Caltech101.json"),
    "pets": ("oxford_pets", "images", "split_zhou_OxfordPets.json"),
    "cars": ("stanford_cars", "", "split_zhou_StanfordCars.json"),
    "flowers": ("oxford_flowers", "jpg", "split_zhou_OxfordFlowers.json"),
    "food": ("food-101", "images", "split_zhou_Food101.json"),
    "sun": ("sun397", "SUN397", "split_zhou_SUN397.json"),
    "dtd": ("dtd", "images", "split_zhou_DescribableTextures.json"),
    "eurosat": ("eurosat", "2750", "split_zhou_EuroSAT.json"),
    "ucf": ("ucf101", "UCF-101-midframes", "split_zhou_UCF101.json"),
}
FGVC, IMAGENET = "fgvc_aircraft", "imagenet"
DATA_SETS = ("imagenet", "pets", "flowers", "fgvc", "dtd", "eurosat", "cars", "food", "sun", "caltech", "ucf")

# Shifts of ImageNet: where their class folders lie. V2 numbers them; A and R have 200 of the classes.
V2 = "imagenetv2/imagenetv2-matched-frequency-format-val"
SHIFTS = {
    "v2": V2,
    "sketch": "imagenet-sketch/images",
    "a": "imagenet-adversarial/imagenet-a",
    "r": "imagenet-rendition/imagenet-r",
}

# For methods that tune no prompt: zero-shot and BlackVIP. All tuning starts from one context for every data
# set, the bundle's "a photo of a", in the paper too.
TEMPLATES = {
    "imagenet": "a photo of a {}.",
    "pets": "a photo of a {}, a type of pet.",
    "flowers": "a photo of a {}, a type of flower.",
    "fgvc": "a photo of a {}, a type of aircraft.",
    "dtd": "{} texture.",
    "eurosat": "a centered satellite photo of {}.",
    "cars": "a photo of a {}.",
    "food": "a photo of {}, a type of food.",
    "sun": "a photo of a {}.",
    "caltech": "a photo of a {}.",
    "ucf": "a photo of a person doing {}.",
}


def coop_tasks(root: Path) -> list[Task]:
    """Those of the paper's data sets whose folder is in `root`."""
    found = []
    for name in DATA_SETS:
        folder = LISTED[name][0] if name in LISTED else {"fgvc": FGVC, "imagenet": IMAGENET}[name]
        if (root / folder).is_dir():
            found.append(replace(_task(name, root), template=TEMPLATES[name]))
    return found


def _task(name: str, root: Path) -> Task:
    if name == "imagenet":
        return _imagenet(root)
    if name == "fgvc":
        return _fgvc(root / FGVC)
    folder, pictures, listing = LISTED[name]
    return _listed(name, root / folder / pictures, root / folder / listing)


def _listed(name: str, pictures: Path, listing: Path) -> Task:
    lists = json.loads(listing.read_text(encoding="utf-8"))
    names = {int(label): words for part in lists.values() for _, label, words in part}
    if sorted(names) != list(range(len(names))):
        raise SystemExit(f"{listing} has labels {sorted(names)[:5]}… They must be 0, 1, 2 and so on")

    def files(part: str) -> Files:
        pairs = ((int(label), pictures / path.lstrip("/")) for path, label, _ in lists[part])
        return _by_class(pairs, len(names))

    class_names = words_of(names[k] for k in range(len(names)))
    return Task(name, class_names, files("train"), {"test": Split(files("test"))}, files("val"))


def _fgvc(root: Path) -> Task:
    variants = (root / "variants.txt").read_text(encoding="utf-8").split("\n")
    variants = [line.strip() for line in variants if line.strip()]
    number = {variant: k for k, variant in enumerate(variants)}

    def files(part: str) -> Files:
        lines = (root / f"images_variant_{part}.txt").read_text(encoding="utf-8").split("\n")
        pairs = (line.strip().split(" ", 1) for line in lines if line.strip())
        return _by_class(((number[v], root / "images" / f"{i}.jpg") for i, v in pairs), len(variants))

    return Task("fgvc", words_of(variants), files("train"), {"test": Split(files("test"))}, files("val"))


def _imagenet(root: Path) -> Task:
    listing = (root / IMAGENET / "classnames.txt").read_text(encoding="utf-8").split("\n")
    lines = [line.strip().split(" ", 1) for line in listing if line.strip()]
    folders = [folder for folder, _ in lines]
    images = root / IMAGENET / "images"
    splits = {"test": Split(_in_folders(images / "val", folders))}
    for style, place in SHIFTS.items():
        if (root / place).is_dir():
            numbers = [str(k) for k in range(len(folders))]
            files = _in_folders(root / place, numbers if place == V2 else folders)
            present = tuple(k for k, of_class in enumerate(files) if of_class)
            splits[style] = Split(files, present if len(present) < len(folders) else None)
    return Task("imagenet", words_of(n for _, n in lines), _in_folders(images / "train", folders), splits)


def _by_class(pairs: Iterable[tuple[int, Path]], n: int) -> Files:
    """(class, picture) in any order -> the pictures of each class, sorted."""
    files: list[list[Path]] = [[] for _ in range(n)]
    for k, path in pairs:
        files[k].append(path)
    return tuple(tuple(sorted(of_class)) for of_class in files)


def _in_folders(root: Path, folders: list[str]) -> Files:
    """The pictures in each of these folders; none where there is no such folder."""
    return tuple(
        tuple(sorted(p for p in (root / f).glob("*") if p.is_file() and p.name[0] != ".")) for f in folders
    )


def words_of(names: Iterable[str]) -> tuple[str, ...]:
    """Underscores read as spaces. Two classes of one name (ImageNet has them) would be the same prompt, so
    the second one becomes "another …".
    """
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        words = " ".join(name.replace("_", " ").split())
        found.append("another " * seen[words.lower()] + words)
        seen[words.lower()] += 1
    return tuple(found)
