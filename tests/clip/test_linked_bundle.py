"""A bundle whose files are links works as one of plain files; a dead link is called one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sharpzo_edge.clip.bundle import Bundle
from sharpzo_edge.clip.class_prompts import class_prompts, random_context
from sharpzo_edge.clip.linked_weights import with_data_at
from sharpzo_edge.clip.tower_plan import RESIDENT, ImagePlan, TextPlan, TowerPlan
from sharpzo_edge.clip.towers import ImageTower, TextTower
from sharpzo_edge.errors import BundleError

pytestmark = pytest.mark.oldest_onnxruntime


def to_one_folder(source: Path, folder: Path) -> None:
    """As stow makes them."""
    for path in source.iterdir():
        (folder / path.name).symlink_to(path)


def to_other_names(source: Path, folder: Path) -> None:
    """As a cache of models has them: all files in one folder, named by checksums."""
    (folder.parent / "blobs").mkdir()
    for number, path in enumerate(source.iterdir()):
        shutil.copy(path, folder.parent / "blobs" / f"{number:064x}")
        (folder / path.name).symlink_to(f"../blobs/{number:064x}")


def to_folders_of_their_own(source: Path, folder: Path) -> None:
    """As git-annex has them; here a link leads to a link."""
    for number, path in enumerate(source.iterdir()):
        place = folder.parent / f"object {number}"
        place.mkdir()
        shutil.copy(path, place / "é")
        (place / "link").symlink_to("é")
        (folder / path.name).symlink_to(f"../object {number}/link")


def weights_alone(source: Path, folder: Path) -> None:
    shutil.copytree(source, folder, dirs_exist_ok=True)
    for name in ("text.data", "image.data"):
        (folder / name).rename(folder.parent / f"large {name}")
        (folder / name).symlink_to(f"../large {name}")


def features(bundle: Bundle, tower: TowerPlan) -> tuple[np.ndarray, np.ndarray]:
    context = random_context(bundle, 4, np.random.default_rng(0))[None]
    prompts = class_prompts(bundle, ["cat", "dog"], 4)
    pixels = np.ones((1, 3, *bundle.manifest.preprocess.size), np.float32)
    with TextTower(bundle, TextPlan(tower, chunk_rows=256, threads=1)) as text:
        of_classes = text.class_features(context, prompts)
    with ImageTower(bundle, ImagePlan(tower, decoding_bytes=float("inf"), threads=1)) as image:
        return of_classes, image.image_features([pixels])


@pytest.mark.parametrize("mode", ["packed", "mapped", "streamed"])
@pytest.mark.parametrize("link", [to_one_folder, to_other_names, to_folders_of_their_own, weights_alone])
def test_a_bundle_of_links_is_as_good(
    link: Callable[[Path, Path], None], mode: str, bundle: Bundle, tmp_path: Path
) -> None:
    (tmp_path / "linked").mkdir()
    link(bundle.folder, tmp_path / "linked")
    (tmp_path / "again").symlink_to("linked")  # and the folder is a link, too
    linked = Bundle.open(tmp_path / "again")
    linked.verify()
    tower = RESIDENT if mode == "packed" else TowerPlan(mode, micro_batch=1, batch=1)  # type: ignore[arg-type]
    for found, expected in zip(features(linked, tower), features(bundle, tower), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_dead_link_is_called_one(bundle_copy) -> None:
    path = bundle_copy.folder / "image.data"
    path.unlink()
    path.symlink_to("/nowhere/at/all")
    with pytest.raises(BundleError, match=r"data is a link to /nowhere/at/all, which leads nowhere.*cp -rL"):
        bundle_copy.open()


@pytest.mark.parametrize("name", ["text.data", "image.data"])
def test_weights_that_shrink_are_noticed_before_they_are_mapped(name: str, bundle_copy) -> None:
    opened = bundle_copy.open()
    os.truncate(bundle_copy.folder / name, 1000)
    with pytest.raises(BundleError, match=f"{name} has 1000 bytes, not"):
        features(opened, RESIDENT)


@pytest.mark.parametrize("name", ["text.onnx", "image.onnx"])
def test_a_graph_changes_in_nothing_but_the_name(name: str, bundle: Bundle) -> None:
    graph, data = (bundle.folder / name).read_bytes(), name.replace("onnx", "data")
    longer = with_data_at(graph, data, "x" * 300)
    assert longer.count(b"x" * 300) == graph.count(data.encode()) > 10
    assert with_data_at(longer, "x" * 300, data) == graph == with_data_at(graph, "other", "x")


@pytest.mark.parametrize("end", [1, 100, 5000])
def test_what_is_no_graph_is_a_value_error(end: int, bundle: Bundle) -> None:
    with pytest.raises(ValueError):
        with_data_at((bundle.folder / "text.onnx").read_bytes()[:end], "text.data", "x")
