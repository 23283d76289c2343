"""Pictures are encoded once, and what is kept is never taken for something else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sharpzo_edge import features
from sharpzo_edge.bundle import Bundle
from sharpzo_edge.demo import BUNDLE, DEFAULT_TASK, TASKS
from sharpzo_edge.errors import InterruptedRunError
from sharpzo_edge.features import TrainingFeatures, Views, training_features
from sharpzo_edge.images import Skipped, read_folder
from sharpzo_edge.interrupt import Interrupt
from sharpzo_edge.memory import Work
from sharpzo_edge.progress import Progress
from sharpzo_edge.towers import plan_towers

TRAIN = TASKS / DEFAULT_TASK / "train"
SHOTS, N_VAL = 2, 1
PLAN = plan_towers(Bundle.open(BUNDLE), Work(threads=1), "none")


class Power:
    """An interrupt that never comes, or at the n-th look."""

    def __init__(self, looks: float = float("inf")) -> None:
        self.looks = looks

    def raise_if_received(self, what_is_kept: str) -> None:
        self.looks -= 1
        if self.looks < 0:
            raise InterruptedRunError(what_is_kept, 15)


def encode(
    work: Path, seed: int = 0, interrupt: Power | Interrupt | None = None, n_views: int = 1
) -> TrainingFeatures:
    return training_features(
        Bundle.open(BUNDLE),
        read_folder(TRAIN),
        SHOTS,
        N_VAL,
        np.random.SeedSequence(seed),
        work,
        Progress(),
        interrupt or Power(),
        PLAN,
        threads=1,
        views=Views(n_views, np.random.SeedSequence(7)),
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
    assert three.checksum != one.checksum
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
    assert not (tmp_path / features.CROPS_FILE).exists()


def test_what_was_encoded_is_used_again_without_a_look_at_the_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = encode(tmp_path)
    monkeypatch.setattr(features, "read_crop", None)
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
        patch.setattr(features, "write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            encode(tmp_path, seed=1)
    assert np.array_equal(first.train.features, encode(tmp_path).train.features)


def test_streaming_gives_the_same_features_and_passes_over_bad_files(tmp_path: Path) -> None:
    folder = read_folder(TRAIN)
    good = [paths[0] for paths in folder.files]
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    files = [good[0], bad, *good[1:], bad]
    skipped = Skipped()
    parts = list(features.stream_features(Bundle.open(BUNDLE), files, skipped, PLAN, threads=1))
    numbers = [n for batch, _ in parts for n in batch]
    assert numbers == [i for i, path in enumerate(files) if path is not bad]
    assert skipped.counts == {"not a picture": 2}
    one_by_one = [
        next(features.stream_features(Bundle.open(BUNDLE), [path], Skipped(), PLAN, threads=1))[1][0]
        for path in good[:3]
    ]
    assert np.abs(np.concatenate([f for _, f in parts])[:3] - np.stack(one_by_one)).max() < 2e-6
