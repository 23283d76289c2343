"""The demo model's recipe where it decides: who belongs to a task, which step is skipped, what is shipped."""

import shutil

import numpy as np
import pytest

pytest.importorskip("resvg_py")

from demo_model.emoji import Emoji, design_of
from demo_model.prepare import step
from demo_model.ship import ShipError, ship
from demo_model.tasks import SHOTS, TASKS, Task, TaskError, choose
from sharpzo_edge.clip.bundle import Bundle
from sharpzo_edge.demo import DEFAULT_TASK


def emoji(code, *keywords):
    return Emoji(code, f"label {code}", keywords, "animal-bug", "animals-nature", code)


def pictures(same=()):
    """hexcode -> (64, 64, 4) noise; those of `same` are one picture."""
    seeds = {code: 99 for code in same}

    def picture(each):
        rng = np.random.default_rng(seeds.get(each.hexcode, int(each.hexcode)))
        return rng.integers(0, 256, (64, 64, 4), dtype=np.uint8) | np.array([0, 0, 0, 255], np.uint8)

    return picture


def task(**sizes):
    sizes = {"least_known": 1, "least_held_out": 1, "most_tested": 9} | sizes
    return Task("words", "", ("cat", "dog"), lambda e: list(e.keywords), **sizes)


CATS = [emoji(f"1{i}", "cat", "pet") for i in range(4)]
DOGS = [emoji(f"2{i}", "dog") for i in range(4)]
BOTH = [emoji(f"3{i}", "dog", "cat") for i in range(2)]
HELD = {"10", "11", "20", "30"}


def codes(classes):
    return {name: {e.hexcode for e in found} for name, found in classes.items()}


def test_held_out_emoji_are_tested_on():
    """An emoji of two classes is left out."""
    train, test = choose(task(), [*BOTH, *CATS, *DOGS], HELD, pictures())
    assert codes(train) == {"cat": {"12", "13"}, "dog": {"21", "22", "23"}}
    assert codes(test) == {"cat": {"10", "11"}, "dog": {"20"}}


def test_a_training_picture_like_a_test_picture_is_left_out():
    train, _ = choose(task(), [*CATS, *DOGS], HELD, pictures(same=("20", "22")))
    assert codes(train)["dog"] == {"21", "23"}


def test_a_class_that_is_too_small_is_named_with_its_numbers():
    with pytest.raises(TaskError, match=r"'cat': \(2, 2\).*3 known"):
        choose(task(least_known=3), [*CATS, *DOGS], HELD, pictures())


def test_the_first_task_is_the_demos_and_has_whole_shots():
    assert TASKS[0].name == DEFAULT_TASK
    assert TASKS[0].least_known == SHOTS
    assert all(len(set(t.classes)) == len(t.classes) for t in TASKS)


@pytest.mark.parametrize(
    ("code", "design"),
    [("1F469-200D-1F373", "1F9D1-1F373"), ("1F6B6-200D-27A1-FE0F", "1F6B6"), ("1F934", "1FAC5")],
)
def test_variants_share_a_design(code, design):
    assert design_of(code) == design


def test_a_step_is_skipped_when_its_result_is_there(tmp_path, capsys):
    result = tmp_path / "result"
    step(result, "make it", result.touch)
    step(result, "make it", lambda: pytest.fail("it was there"))
    assert capsys.readouterr().out == f"make it ...\nmake it: {result} is there\n"


@pytest.fixture
def work(exported, tmp_path):
    """A work folder as the recipe leaves it."""
    folder = tmp_path / "work"
    shutil.copytree(exported("gelu").bundle.folder, folder / "bundle")
    (folder / "model").mkdir()
    (folder / "model" / "ATTRIBUTION.md").write_text("# What it was trained on\n\nPictures.\n")
    for split in ("train", "test", "test_line_art"):
        (folder / "tasks" / DEFAULT_TASK / split / "cat").mkdir(parents=True)
        (folder / "tasks" / DEFAULT_TASK / split / "cat" / "1.png").write_bytes(b"png")
    return folder


def test_what_was_shipped_is_replaced_and_shifted_styles_stay(work, tmp_path):
    demo = tmp_path / "demo"
    (demo / "tasks" / "old" / "train").mkdir(parents=True)
    (demo / "bundle").mkdir()
    (demo / "bundle" / "old.data").write_bytes(b"old")
    ship(work, demo)
    assert sorted(p.name for p in demo.iterdir()) == ["ATTRIBUTION.md", "bundle", "tasks"]
    Bundle.open(demo / "bundle").verify()
    assert not (demo / "bundle" / "old.data").exists()
    files = sorted(p.relative_to(demo / "tasks").as_posix() for p in (demo / "tasks").rglob("*.*"))
    kept = ("ATTRIBUTION.md", "test/cat/1.png", "train/cat/1.png")
    assert files == [f"{DEFAULT_TASK}/{name}" for name in kept]
    assert "CC BY-SA" not in (demo / "tasks" / DEFAULT_TASK / "ATTRIBUTION.md").read_text()
    assert "## What it was trained on\n\nPictures." in (demo / "ATTRIBUTION.md").read_text()


def test_an_unfinished_recipe_is_not_shipped(work, tmp_path):
    shutil.rmtree(work / "bundle")
    with pytest.raises(ShipError, match="make demo-model"):
        ship(work, tmp_path / "demo")
    assert not (tmp_path / "demo").exists()
