"""What each component says that it takes is at least what it allocates, and not much more."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from sharpzo_edge.clip.bundle import Bundle
from sharpzo_edge.clip.class_prompts import checked_token_ids, names_bytes, prompts_of
from sharpzo_edge.heads import fit as heads
from sharpzo_edge.heads.halves import accuracy_by_halves
from sharpzo_edge.heads.leave_one_out import Pictures
from sharpzo_edge.pictures.feature_file import FEATURES_IN_MEMORY, held_bytes
from sharpzo_edge.search import cmaes, gauss_newton, sketched_descent
from sharpzo_edge.search.gauss_newton import LinearModel, minimum_in_ball
from sharpzo_edge.search.losses import SCORING_BYTES, FeatureLoss, scores
from sharpzo_edge.search.sketched_descent import Sketch, SketchedDescent
from sharpzo_edge.tuning.objective import projection, projection_bytes
from sharpzo_edge.types import Floats, LabelledFeatures

K, E = 40, 96
SCALE = 20.0


def allocated(work: Callable[[], object]) -> int:
    """The most bytes that numpy and Python hold at one moment of some work, beside what was there."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def unit(*shape: int) -> Floats:
    rows = np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=-1, keepdims=True)
    return rows


def pictures(n: int) -> LabelledFeatures:
    return LabelledFeatures(unit(n, E), np.arange(n) % K)


@pytest.mark.parametrize("chunk_rows", [32, 256])
def test_names(bundle: Bundle, chunk_rows: int) -> None:
    words = ("red", "blue", "green", "white", "black", "small", "big", "old")
    names = [f"{a} {b}" for a in words for b in ("cat", "dog", "house", "car", "apple")]
    ids = checked_token_ids(bundle, names, 4)
    lengths = [len(tokens) for tokens in ids]
    prompts = prompts_of(bundle, names, ids, 4, chunk_rows)
    held = sum(chunk.embeddings().nbytes + chunk.mask.nbytes for chunk in prompts.chunks)
    assert held == names_bytes(bundle.manifest.text.width, lengths, 4, chunk_rows)


def test_projection() -> None:
    A = projection(np.random.SeedSequence(0), 300, 16, 1.0)
    assert A.nbytes == projection_bytes(300, 16)


def test_features() -> None:
    assert held_bytes(100, E) == unit(100, E).nbytes
    assert held_bytes(FEATURES_IN_MEMORY // (4 * E) + 1, E) == 0  # they stay on disk


@pytest.mark.parametrize("n", [10, 40_000])
def test_scoring(n: int) -> None:
    data, T = pictures(n), unit(2, K, E)
    assert allocated(lambda: scores(T, data, SCALE)) <= SCORING_BYTES


@pytest.mark.parametrize("dim", [96, 160])
def test_a_full_covariance(dim: int) -> None:
    settings = cmaes.Settings(dim=dim, population=200, rho=0.0)
    search = cmaes.SharpnessAwareCMAES.start(settings, np.zeros(dim), np.random.SeedSequence(0))
    small = 40 * settings.population * dim * 8  # candidates and their copies, which a plan has room for

    def generations() -> None:
        while search.state.generation < 12:
            search.tell([float(w @ w) for w in search.ask(64).points])

    found = allocated(generations)
    assert search.state.decomposed_at > 0
    assert found <= cmaes.peak_bytes(settings) + small
    assert cmaes.peak_bytes(cmaes.Settings(dim=dim, covariance="identity")) == 0


@pytest.mark.parametrize("n_columns", [8, 64])
def test_a_minimum_in_a_ball(n_columns: int) -> None:
    T = unit(K, E)
    columns = np.random.default_rng(1).standard_normal((n_columns, K, E)).astype(np.float16)
    loss = FeatureLoss(pictures(3_000), SCALE, 0.1)
    found = allocated(lambda: minimum_in_ball(LinearModel(loss, T, columns), 1.0, np.zeros(n_columns), 4))
    assert 0.2 * gauss_newton.peak_bytes(n_columns, K, E) < found <= gauss_newton.peak_bytes(n_columns, K, E)


@pytest.mark.parametrize(("rank", "kept_rounds"), [(8, 0), (16, 3)])
def test_a_sketch(rank: int, kept_rounds: int) -> None:
    dim = 120
    sketch = Sketch(rank, kept_rounds)
    weights = np.random.default_rng(2).standard_normal((dim, K * E)).astype(np.float32)

    def tower(points: np.ndarray) -> Floats:
        T = (1 + np.tanh(points.astype(np.float32) @ weights)).reshape(-1, K, E)
        return T / np.linalg.norm(T, axis=-1, keepdims=True)

    settings = sketched_descent.Settings(dim=dim, rank=rank, kept_rounds=kept_rounds)
    loss = FeatureLoss(pictures(200), SCALE, 0.1)
    w = np.zeros(dim)
    descent = SketchedDescent.start(settings, loss, w, tower(w[None])[0], np.random.SeedSequence(0))
    while descent.state.step < 5:
        answers = tower(descent.ask(rank).points)
        descent.tell(answers)
    while not len(descent.state.trials):  # the sketch of a round is complete
        descent.tell(tower(descent.ask(rank).points))
    held = descent.state.columns.nbytes + descent.state.directions.nbytes
    stated = sketched_descent.held_bytes(sketch, dim, K, E)
    assert held == stated
    answers = tower(descent.ask(8).points)
    found = allocated(lambda: descent.tell(answers))  # all trials are answered: a new round begins
    assert descent.state.step == 6
    assert found <= sketched_descent.peak_bytes(sketch, dim, K, E)


@pytest.mark.parametrize(
    ("n_classes", "embed_dim", "n"), [(40, 96, 2_000), (10, 400, 500), (500, 128, 2_000), (500, 512, 1_000)]
)
def test_a_head(n_classes: int, embed_dim: int, n: int) -> None:
    drawn = LabelledFeatures(unit(n, embed_dim), np.arange(n) % n_classes)
    on_pictures = Pictures(drawn, unit(n_classes, embed_dim), SCALE)

    def fit() -> None:
        found = heads.best_head(on_pictures)
        assert found is not None
        accuracy_by_halves(found.head, on_pictures)

    assert allocated(fit) <= heads.peak_bytes(n_classes, embed_dim, n)
