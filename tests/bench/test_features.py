"""The accuracy bench draws the shots that the product draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sharpzo_edge.run.workplace import Workplace

from accuracy.features import pool
from accuracy.tasks import folder_task
from sharpzo_edge.clip.bundle import Bundle
from sharpzo_edge.clip.towers import plan_towers
from sharpzo_edge.demo import BUNDLE, DEFAULT_TASK, TASKS
from sharpzo_edge.memory.plan import Work
from sharpzo_edge.pictures.features import training_features
from sharpzo_edge.pictures.few_shot import Draw
from sharpzo_edge.pictures.folder import read_folder
from sharpzo_edge.run.files import read_checked_json
from sharpzo_edge.run.interrupt import Interrupt
from sharpzo_edge.run.progress import Progress
from sharpzo_edge.seeds import stream


def test_shots_are_those_that_the_product_draws(tmp_path: Path) -> None:
    bundle, shots, n_val, seed = Bundle.open(BUNDLE), 2, 1, 1
    found = folder_task("demo", TASKS / DEFAULT_TASK)
    theirs = training_features(
        bundle,
        read_folder(TASKS / DEFAULT_TASK / "train"),
        Draw(shots, n_val, stream(seed, "split"), 1, stream(seed, "views")),
        plan_towers(bundle, Work(threads=1), "none"),
        1,
        Workplace(tmp_path, Progress(), Interrupt()),
    )
    drawn = pool(bundle, found, seed, tmp_path / "cache")
    for ours, product in zip(drawn.draw(shots, n_val), (theirs.train, theirs.val), strict=True):
        assert (ours.labels == product.labels).all()
        np.testing.assert_allclose(ours.features[:], product.features[:], atol=1e-5)
    listed = read_checked_json(tmp_path / "pictures.json")["drawn"]
    files = [Path(name).name for name, val in zip(listed["files"], listed["is_val"], strict=True) if not val]
    assert [path.name for of_class in drawn.draw_files(shots, n_val)[0] for path in of_class] == files
    again = pool(bundle, found, seed, tmp_path / "cache").draw(shots, n_val)[0]
    assert again.features[:].tobytes() == drawn.draw(shots, n_val)[0].features[:].tobytes()
