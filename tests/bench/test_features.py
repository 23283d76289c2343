"""The accuracy bench draws the shots that the product draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from accuracy.harness.features import pool
from accuracy.harness.tasks import folder_task
from sharpzo_edge.clip.bundle import Bundle
from sharpzo_edge.demo import BUNDLE, DEFAULT_TASK, TASKS
from sharpzo_edge.memory.budget import budget_of
from sharpzo_edge.memory.plan import plan_images
from sharpzo_edge.pictures.features import training_features
from sharpzo_edge.pictures.few_shot import FewShot
from sharpzo_edge.pictures.folder import read_folder
from sharpzo_edge.run.files import read_checked_json
from sharpzo_edge.run.folder import WorkFolder
from sharpzo_edge.run.progress import Caller
from sharpzo_edge.seeds import seed_stream


def test_shots_are_those_that_the_product_draws(tmp_path: Path) -> None:
    bundle, shots, n_val, seed = Bundle.open(BUNDLE), 2, 1, 1
    found = folder_task("demo", TASKS / DEFAULT_TASK)
    theirs = training_features(
        bundle,
        read_folder(TASKS / DEFAULT_TASK / "train"),
        FewShot(shots, n_val, seed_stream(seed, "split"), 1, seed_stream(seed, "views")),
        plan_images(bundle.manifest, 1, budget_of(None, "")),
        WorkFolder(tmp_path),
        Caller(),
    )
    drawn = pool(bundle, found, seed, tmp_path / "cache")
    for ours, product in zip(drawn.draw(shots, n_val), (theirs.train, theirs.val), strict=True):
        assert (ours.labels == product.labels).all()
        np.testing.assert_allclose(ours.features[:], product.features[:], atol=1e-5)
    listed = read_checked_json(tmp_path / "pictures.json")["drawn"]
    for is_val, ours in enumerate(drawn.draw_files(shots, n_val)):
        of_part = zip(listed["files"], listed["is_val"], strict=True)
        files = [Path(name).name for name, val in of_part if val == is_val]
        assert [path.name for of_class in ours for path in of_class] == files
    again = pool(bundle, found, seed, tmp_path / "cache").draw(shots, n_val)[0]
    assert again.features[:].tobytes() == drawn.draw(shots, n_val)[0].features[:].tobytes()
