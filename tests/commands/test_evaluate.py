"""`eval` counts what is called none of the classes, as `predict` calls it."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sharpzo_edge import ImagesError, SkippedPicturesError, TunedPrompt, UsageError, evaluate, predict, tune
from sharpzo_edge.demo import BUNDLE, TASKS
from sharpzo_edge.printing import evaluate_lines
from sharpzo_edge.tuning.tuned_prompt import save_prompt

TASK = TASKS / "subgroups"
STRANGERS = ("animal_mammal", "sport")  # classes of the task that the prompt was never shown


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train and test without two classes, whose pictures are the strangers, each class in a folder within."""
    root = tmp_path_factory.mktemp("evaluate")
    for part in ("train", "test"):
        shutil.copytree(TASK / part, root / part, ignore=shutil.ignore_patterns(*STRANGERS))
    for name in STRANGERS:
        shutil.copytree(TASK / "test" / name, root / "strangers" / name)
    return root


@pytest.fixture(scope="module")
def prompt(folder: Path) -> Path:
    path = folder / "prompt.safetensors"
    tune(BUNDLE, folder / "train", path, preset="head", val=0)
    return path


@pytest.mark.parametrize("asked", [{}, {"none": 0.2}, {"none": 0.2, "use": "words"}])
def test_eval_counts_what_predict_calls_none(folder: Path, prompt: Path, asked: dict[str, Any]) -> None:
    strangers = folder / "strangers"
    found = evaluate(BUNDLE, folder / "test", prompt=prompt, strangers=strangers, **asked)
    without = evaluate(BUNDLE, folder / "test", prompt=prompt, **asked)
    assert found.none and without.none
    counted = ((folder / "test", found.none.called_none), (strangers, found.none.strangers))
    for pictures, share in counted:
        answers = predict([pictures], BUNDLE, prompt, **asked)
        assert share == np.mean([answer.none for answer in answers.predictions])
        assert found.none.threshold == answers.threshold
    assert found.none.share == asked.get("none", 0.05) and 0 < found.none.called_none < found.none.strangers
    assert found.none.n_strangers == len(answers.predictions) == len(list(strangers.rglob("*.png")))
    assert without == dataclasses.replace(
        found, none=dataclasses.replace(found.none, strangers=None, n_strangers=0)
    )
    assert any(
        f"% of {found.none.n_strangers} strangers, with --none" in line
        for line in evaluate_lines(found, False)
    )


def test_without_a_threshold_nothing_is_counted(folder: Path, prompt: Path) -> None:
    whole = TunedPrompt.open(prompt)
    older = folder / "older.safetensors"
    about = {name: value for name, value in whole.about.items() if name != "known"}
    save_prompt(older, dataclasses.replace(whole, about=about))
    names = tuple(whole.class_names)
    for given, why in (
        ({"prompt": older}, "older.safetensors calls nothing none .* an older version"),
        ({"prompt": prompt, "classes": names}, "--classes names others"),
        ({}, "there is no prompt.* add --prompt"),
    ):
        result = evaluate(BUNDLE, folder / "test", **given)
        assert result.none is None and not any("none of" in line for line in evaluate_lines(result, False))
        with pytest.raises(UsageError, match=f"--strangers .*{why}"):
            evaluate(BUNDLE, folder / "test", strangers=folder / "strangers", **given)
        with pytest.raises(UsageError, match=r"--none 0\.1 has no "):
            evaluate(BUNDLE, folder / "test", none=0.1, **given)


def test_a_stranger_that_cannot_be_read_is_told(folder: Path, prompt: Path, tmp_path: Path) -> None:
    known, said = folder / "test", []
    with pytest.raises(ImagesError, match="There is no picture in"):
        evaluate(BUNDLE, known, prompt=prompt, strangers=tmp_path)
    (tmp_path / "torn.png").write_bytes(b"no picture")
    with pytest.raises(ImagesError, match=r"No picture of 1 .*torn.png: not a picture"):
        evaluate(BUNDLE, known, prompt=prompt, strangers=tmp_path)
    shutil.copy(next((folder / "strangers").rglob("*.png")), tmp_path)
    result = evaluate(
        BUNDLE, known, prompt=prompt, strangers=tmp_path, on_progress=lambda p: said.append(p.text)
    )
    assert result.none and result.none.n_strangers == 1
    assert any(line.startswith("skipped 1 picture: not a picture") for line in said)
    with pytest.raises(SkippedPicturesError, match=r"torn.png"):
        evaluate(BUNDLE, known, prompt=prompt, strangers=tmp_path, strict=True)
