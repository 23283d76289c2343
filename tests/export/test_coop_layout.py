"""The accuracy bench on the paper's data sets, as tiny folders in CoOp's layout, with a random RN50."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("open_clip")

from accuracy.harness import run
from accuracy.harness.coop_layout import (
    DATA_SETS,
    FGVC,
    IMAGENET,
    LISTED,
    SHIFTS,
    TEMPLATES,
    V2,
    coop_tasks,
)
from accuracy.report import page

NAMES = ("Annual_Crop", "river")
N_TRAIN, N_VAL, N_TEST = 3, 1, 2
TUNED = ("imagenet", "fgvc", "eurosat")
RNG = np.random.default_rng(0)


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (32, 32, 3), np.uint8)).save(path)


def write_data_sets(root: Path) -> None:
    parts = {"train": N_TRAIN, "val": N_VAL, "test": N_TEST}
    for folder, pictures, listing in LISTED.values():
        lists = {
            part: [[f"{part}/{k}-{i}.jpg", k, name] for k, name in enumerate(NAMES) for i in range(n)]
            for part, n in parts.items()
        }
        for name, _, _ in (item for part in lists.values() for item in part):
            picture(root / folder / pictures / name)
        (root / folder / listing).write_text(json.dumps(lists))

    number, lines = 0, {}
    for part, n in parts.items():
        lines[part] = ""
        for variant in ("A340-300", "Cessna 172"):
            for _ in range(n):
                number += 1
                picture(root / FGVC / "images" / f"{number:07}.jpg")
                lines[part] += f"{number:07} {variant}\n"
        (root / FGVC / f"images_variant_{part}.txt").write_text(lines[part])
    (root / FGVC / "variants.txt").write_text("A340-300\nCessna 172\n")

    folders = {"n01440764": "tench", "n01443537": "goldfish"}
    listing = "".join(f"{folder} {name}\n" for folder, name in folders.items())
    places = {"images/train": N_TRAIN, "images/val": N_TEST}
    for place, n in places.items():
        for folder in folders:
            for i in range(n):
                picture(root / IMAGENET / place / folder / f"{i}.JPEG")
    (root / IMAGENET / "classnames.txt").write_text(listing)
    for style, place in SHIFTS.items():
        some = list(folders)[1:] if style in "ar" else ["0", "1"] if place == V2 else list(folders)
        for folder in some:
            picture(root / place / folder / "0.jpg")
        (root / place / "README.txt").write_text("ImageNet-A and -R bring one")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("coop")
    write_data_sets(root)
    return root


def test_every_layout_is_read(data: Path) -> None:
    tasks = {task.name: task for task in coop_tasks(data)}
    assert tuple(tasks) == DATA_SETS
    for name, task in tasks.items():
        assert [len(files) for files in task.train] == [N_TRAIN] * 2, name
        assert [len(files) for files in task.splits["test"].files] == [N_TEST] * 2, name
        assert (task.val is None) == (name == "imagenet")
        assert task.template == TEMPLATES[name]
        pictures = [*task.train, *(files for split in task.splits.values() for files in split.files)]
        assert all(path.is_file() for files in pictures for path in files), name
    assert tasks["eurosat"].class_names == ("Annual Crop", "river")
    assert tasks["fgvc"].class_names == ("A340-300", "Cessna 172")
    imagenet = tasks["imagenet"]
    assert imagenet.class_names == ("tench", "goldfish")
    assert {style: split.among for style, split in imagenet.splits.items()} == {
        "test": None,
        "v2": None,
        "sketch": None,
        "a": (1,),
        "r": (1,),
    }


@pytest.fixture(scope="module")
def rn50(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from sharpzo_export.write_bundle import export

    folder = tmp_path_factory.mktemp("rn50") / "bundle"
    export("RN50", "none", folder)
    return folder


def test_the_same_commands_run_all_data_sets_end_to_end(data: Path, rn50: Path, tmp_path: Path) -> None:
    place = ["--bundle", str(rn50), "--coop", str(data), "--work", str(tmp_path / "work")]
    results = ["--results", str(tmp_path / "results"), "--jobs", "2"]
    assert run.main(["choose", *place, *results, "--max-queries", "60", "--only", "method=cma"]) == 0
    short = ["--max-queries", "60", "--only", "shots=1", "seed=0"]
    assert run.main(["run", *place, *results, *short, "method=zero_shot"]) == 0
    assert run.main(["run", *place, *results, *short, "method=cma", f"task={','.join(TUNED)}"]) == 0
    for name in DATA_SETS:
        for method in ("zero_shot", "cma") if name in TUNED else ("zero_shot",):
            found = json.loads((tmp_path / "results" / name / f"{method}-1-0.json").read_text())
            assert 0 <= found["test_accuracy"] <= 1 and found["queries"] <= 60
            assert set(found["shift_accuracy"]) == (set(SHIFTS) if name == "imagenet" else set())
    shown = tmp_path / "page.md"
    assert page.main(["--results", str(tmp_path / "results"), "--page", str(shown)]) == 0
    assert all(name in shown.read_text() for name in DATA_SETS)
