"""Pictures are encoded once, and what is kept is never taken for something else."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sharpzo_edge.clip.bundle import Bundle
from sharpzo_edge.clip.towers import ImageTower, plan_towers
from sharpzo_edge.demo import BUNDLE, DEFAULT_TASK, TASKS
from sharpzo_edge.errors import ImagesError, InterruptedRunError, NumericsError, SkippedPicturesError
from sharpzo_edge.memory.plan import Plan, TowerPlan, Work
from sharpzo_edge.pictures import features, few_shot
from sharpzo_edge.pictures.encode import ENCODED_FILE, stream_features
from sharpzo_edge.pictures.features import FEATURES_FILE, PICTURES_FILE, TrainingFeatures, training_features
from sharpzo_edge.pictures.few_shot import CROPS_FILE, Draw
from sharpzo_edge.pictures.folder import Skipped, read_folder
from sharpzo_edge.run.files import file_checksum, read_checked_json, write_checked_json
from sharpzo_edge.run.interrupt import Interrupt
from sharpzo_edge.run.journal import Journal
from sharpzo_edge.run.progress import Progress
from sharpzo_edge.run.workplace import Workplace

TRAIN = TASKS / DEFAULT_TASK / "train"
SHOTS, N_VAL = 2, 1
PLAN = plan_towers(Bundle.open(BUNDLE), Work(threads=1), "none")
PASSES = replace(PLAN, image=TowerPlan("packed", group=2, together=6))  # five passes for 30 pictures


class Power:
    """An interrupt that never comes, or at the n-th look."""

    def __init__(self, looks: float = float("inf")) -> None:
        self.looks = looks

    def raise_if_received(self, what_is_kept: str) -> None:
        self.looks -= 1
        if self.looks < 0:
            raise InterruptedRunError(what_is_kept, 15)


def encode(
    work: Path,
    seed: int = 0,
    interrupt: Power | Interrupt | None = None,
    n_views: int = 1,
    *,
    images: Path = TRAIN,
    plan: Plan = PLAN,
    shots: int = SHOTS,
    strict: bool = False,
) -> TrainingFeatures:
    return training_features(
        Bundle.open(BUNDLE),
        read_folder(images),
        Draw(shots, N_VAL, np.random.SeedSequence(seed), n_views, np.random.SeedSequence(7)),
        plan,
        1,
        Workplace(work, Progress(), interrupt or Power()),
        strict=strict,
    )


def test_views_follow_the_plain_shots_and_leave_them_and_validation_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    one, three = encode(tmp_path / "one"), encode(tmp_path, n_views=3)
    n = len(one.train)
    assert np.array_equal(three.train.labels, np.tile(one.train.labels, 3))
    # A pass of other pictures beside them may change the last bits.
    assert np.allclose(three.train.features[:n], one.train.features[:n], atol=1e-5)
    assert np.allclose(three.val.features[:], one.val.features[:], atol=1e-5)
    alike = (three.train.features[n:] * np.tile(one.train.features[:n], (2, 1))).sum(axis=1)
    assert alike.max() < 1 - 1e-6 and np.median(alike) > 0.5
    assert not np.array_equal(three.train.features[n : 2 * n], three.train.features[2 * n :])
    again = encode(tmp_path, n_views=3)
    assert np.array_equal(again.train.features[:], three.train.features[:])


def test_shots_and_validation_are_drawn_by_seed_and_disjoint(tmp_path: Path) -> None:
    found = encode(tmp_path)
    n_classes = len(read_folder(TRAIN).folders)
    assert len(found.train) == SHOTS * n_classes
    assert (np.bincount(found.train.labels) == SHOTS).all()
    assert np.abs(np.linalg.norm(found.train.features, axis=1) - 1).max() < 1e-5
    # No validation picture is one of the shots.
    assert (found.val.features @ found.train.features.T).max() < 1 - 1e-6
    assert not (tmp_path / CROPS_FILE).exists()


def test_what_was_encoded_is_used_again_without_a_look_at_the_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = encode(tmp_path)
    monkeypatch.setattr(few_shot, "read_crop", None)
    again = encode(tmp_path)
    assert np.array_equal(first.train.features, again.train.features)
    assert first.checksum == again.checksum


@pytest.mark.parametrize("looks", [0, 5, 30, 33, 36])
def test_an_interrupted_encoding_is_never_taken_for_another(looks: int, tmp_path: Path) -> None:
    """First seed 0; then seed 1 stops somewhere; then seed 0 again must be as at first."""
    first = encode(tmp_path)
    try:
        encode(tmp_path, seed=1, interrupt=Power(looks))
    except InterruptedRunError as stopped:
        assert "same command" in str(stopped)
    again = encode(tmp_path)
    assert np.array_equal(first.train.features, again.train.features)
    assert np.array_equal(first.val.labels, again.val.labels)


def test_a_kill_between_the_two_files_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = encode(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(features, "write_checked_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            encode(tmp_path, seed=1)
    assert np.array_equal(first.train.features, encode(tmp_path).train.features)


def same(one: TrainingFeatures, other: TrainingFeatures) -> bool:
    return np.array_equal(one.train.features, other.train.features) and np.array_equal(
        one.val.features, other.val.features
    )


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many pictures were read, and how many encoded, one by one or in a pass."""
    counts: Counter[str] = Counter()
    read_crop, image_features = few_shot.read_crop, ImageTower.image_features

    def reading(*arguments: Any) -> Any:
        counts["read"] += 1
        return read_crop(*arguments)

    def encoding(tower: ImageTower, batches: Iterable[np.ndarray]) -> np.ndarray:
        answer = image_features(tower, batches)
        counts["encoded"] += len(answer)
        return answer

    monkeypatch.setattr(few_shot, "read_crop", reading)
    monkeypatch.setattr(ImageTower, "image_features", encoding)
    return counts


TWICE = 2  # the first picture, to see that the tower repeats itself


@pytest.mark.parametrize("looks", [7, 29, 31, 34])
def test_no_picture_is_read_or_encoded_again_after_an_interruption(
    looks: int, tmp_path: Path, counted: Counter[str]
) -> None:
    (tmp_path / "whole").mkdir()
    whole = encode(tmp_path / "whole", plan=PASSES)
    assert counted == {"read": 30, "encoded": 30 + TWICE}
    counted.clear()
    with pytest.raises(InterruptedRunError, match=r"\d+( of 30)? pictures are (read|encoded), and kept"):
        encode(tmp_path, interrupt=Power(looks), plan=PASSES)
    again = encode(tmp_path, plan=PASSES)
    assert counted == {"read": 30, "encoded": 30 + TWICE}
    assert same(again, whole) and again.checksum == whole.checksum


@pytest.mark.parametrize("damage", ["cut", "flip", "zeros"])
@pytest.mark.parametrize("name", [CROPS_FILE, ENCODED_FILE])
def test_a_torn_journal_costs_its_end_and_nothing_else(
    name: str, damage: str, tmp_path: Path, counted: Counter[str]
) -> None:
    (tmp_path / "whole").mkdir()
    whole = encode(tmp_path / "whole", plan=PASSES)
    with pytest.raises(InterruptedRunError):
        encode(tmp_path, interrupt=Power(33), plan=PASSES)
    data = bytearray((tmp_path / name).read_bytes())
    middle = 2 * len(data) // 3
    if damage == "cut":
        del data[middle:]
    elif damage == "flip":
        data[middle] ^= 1
    else:
        data[middle:] = bytes(len(data) - middle)
    (tmp_path / name).write_bytes(data)
    counted.clear()
    assert same(encode(tmp_path, plan=PASSES), whole)
    assert 0 < counted["read"] + counted["encoded"] < 30 + 30


def test_a_journal_of_another_command_or_other_pictures_is_not_used(
    tmp_path: Path, counted: Counter[str]
) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(TRAIN, photos)
    for change in ("seed", "plan", "picture"):
        with pytest.raises(InterruptedRunError):
            encode(tmp_path, interrupt=Power(33), plan=PASSES, images=photos)
        counted.clear()
        if change == "picture":
            os.utime(next(photos.glob("*/*.png")), ns=(1, 1))
        encode(tmp_path, seed=int(change == "seed"), plan=PLAN if change == "plan" else PASSES, images=photos)
        assert (counted["read"], counted["encoded"]) == (0 if change == "plan" else 30, 30 + TWICE)


@pytest.mark.parametrize("name", [FEATURES_FILE, PICTURES_FILE])
def test_damaged_features_are_made_again(name: str, tmp_path: Path, counted: Counter[str]) -> None:
    first = encode(tmp_path)
    data = bytearray((tmp_path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / name).write_bytes(data)
    counted.clear()
    assert same(encode(tmp_path), first) and counted["encoded"] == 30 + TWICE


def test_a_tower_that_does_not_repeat_itself_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_features = ImageTower.image_features
    noise = np.random.default_rng(0)
    monkeypatch.setattr(
        ImageTower,
        "image_features",
        lambda *given: image_features(*given) + np.float32(1e-6) * noise.standard_normal(),
    )
    with pytest.raises(NumericsError, match=r"differently.*bit for bit\. Try --threads 1"):
        encode(tmp_path)


def test_strict_makes_a_skipped_picture_an_error_again_and_again(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(TRAIN, photos)
    for folder in photos.iterdir():
        (folder / "!.jpg").write_bytes(b"no picture")
        (folder / "loop.png").symlink_to("loop.png")
    with pytest.raises(SkippedPicturesError, match=r"skipped \d+ pictures: not a picture.*--strict"):
        encode(tmp_path, images=photos, shots=100, strict=True)
    encode(tmp_path, images=photos, shots=100)
    with pytest.raises(SkippedPicturesError, match="skipped 10 pictures: "):
        encode(tmp_path, images=photos, shots=100, strict=True)


def test_thousands_of_files_that_are_no_pictures_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(TRAIN, photos)
    for i in range(3000):
        (photos / "alphanum" / f"{i} δοκιμή 試験.txt").touch()
    found = encode(tmp_path, images=photos, shots=100)
    assert "skipped 3000 pictures: not a picture" in capsys.readouterr().err
    assert len(found.train) == len(list(TRAIN.glob("*/*.png")))


def test_a_class_without_a_picture_is_named(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(TRAIN, photos)
    (photos / "empty").mkdir()
    with pytest.raises(ImagesError, match=r"photos/empty has no picture that can be read \(0 files\)"):
        encode(tmp_path, images=photos)


def test_streaming_gives_the_same_features_and_passes_over_bad_files(tmp_path: Path) -> None:
    folder = read_folder(TRAIN)
    good = [paths[0] for paths in folder.files]
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    files = [good[0], bad, *good[1:], bad]
    skipped = Skipped()
    parts = list(stream_features(Bundle.open(BUNDLE), files, skipped, PLAN, threads=1))
    numbers = [n for batch, _ in parts for n in batch]
    assert numbers == [i for i, path in enumerate(files) if path is not bad]
    assert skipped.counts == {"not a picture": 2}
    one_by_one = [
        next(stream_features(Bundle.open(BUNDLE), [path], Skipped(), PLAN, threads=1))[1][0]
        for path in good[:3]
    ]
    assert np.abs(np.concatenate([f for _, f in parts])[:3] - np.stack(one_by_one)).max() < 2e-6


@pytest.mark.parametrize(
    "forged",
    [
        lambda drawn: drawn | {"labels": [0] * len(drawn["labels"])},
        lambda drawn: drawn | {"labels": [2**70, *drawn["labels"][1:]]},
        lambda drawn: drawn | {"labels": drawn["labels"][1:]},
        lambda drawn: drawn | {"is_val": [True] * len(drawn["is_val"])},
        lambda drawn: drawn | {"files": [[]] * len(drawn["files"])},
        lambda drawn: drawn | {"said": "a word"},
        lambda drawn: {name: each[:-1] for name, each in drawn.items()},
        lambda drawn: {},
        lambda drawn: None,
    ],
)
def test_what_was_drawn_is_not_believed_for_a_right_checksum(
    forged: Callable[[dict], object], tmp_path: Path
) -> None:
    first = encode(tmp_path)
    kept = read_checked_json(tmp_path / PICTURES_FILE)
    write_checked_json(tmp_path / PICTURES_FILE, kept | {"drawn": forged(kept["drawn"])})
    again = encode(tmp_path)
    assert np.array_equal(first.train.features, again.train.features)
    assert np.array_equal(first.val.labels, again.val.labels) and first.checksum == again.checksum
    assert read_checked_json(tmp_path / PICTURES_FILE) == kept


def test_features_of_another_shape_are_not_believed_either(tmp_path: Path) -> None:
    first = encode(tmp_path)
    kept = read_checked_json(tmp_path / PICTURES_FILE)
    for array in (first.train.features[:, :-1], first.train.features[:].astype(np.float64)):
        np.save(tmp_path / FEATURES_FILE, array)
        other = kept | {"features": file_checksum(tmp_path / FEATURES_FILE)}
        write_checked_json(tmp_path / PICTURES_FILE, other)
        assert np.array_equal(first.train.features, encode(tmp_path).train.features)


def test_records_of_another_form_are_cut_off_whatever_their_seal(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    for number, record in enumerate((b"four", b"fore", b"fi", b"last")):
        with Journal(path, "a" * 64, 9, 30) as journal:
            assert len(journal) == number
            journal.append(record)
    with Journal(path, "a" * 64, 9, 30, lambda _, record: len(record) == 4) as journal:
        assert [journal[i] for i in range(len(journal))] == [b"four", b"fore"]


def test_dead_links_among_the_classes_are_said_and_strict_refuses_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(TRAIN, tmp_path / "images")
    (tmp_path / "images" / "circle").symlink_to("circle")
    (tmp_path / "work").mkdir()
    encode(tmp_path / "work", images=tmp_path / "images")
    assert "skipped 1 class folder: a link that leads nowhere" in capsys.readouterr().err
    with pytest.raises(SkippedPicturesError, match="circle"):
        encode(tmp_path / "work", images=tmp_path / "images", strict=True)
