"""The accuracy bench's methods that need scikit-learn or torch, on features by formula."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("sklearn")
torch = pytest.importorskip("torch")

from accuracy.methods import coop, heads
from accuracy.methods.all_methods import METHODS
from accuracy.methods.method import Problem
from sharpzo_edge.search.losses import cross_entropies
from sharpzo_edge.types import LabelledFeatures

K, M, D, E = 3, 2, 5, 8
RNG = np.random.default_rng(0)
WEIGHTS = torch.from_numpy(RNG.standard_normal((K, M * D, E)).astype(np.float32))


class SmoothTower:
    """unit(tanh(context W_k)) in place of a text tower."""

    def classes(self, names, n_context):
        def features(context):
            rows = torch.tanh(torch.einsum("i,kie->ke", context.reshape(-1), WEIGHTS))
            return rows / rows.norm(dim=-1, keepdim=True)

        return features


class Manifest:
    logit_scale = 10.0


class Bundle:
    manifest = Manifest()


def drawn(n, n_classes=K):
    labels = np.repeat(np.arange(n_classes), n)
    X = 0.3 * RNG.standard_normal((len(labels), E)) + np.eye(E)[labels]
    return LabelledFeatures((X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32), labels)


def problem(n_classes=K):
    context = np.full((M, D), 0.1, np.float32)
    names = ("a", "b", "c")[:n_classes]
    return Problem(
        "test", Bundle(), None, 4, names, context, drawn(9, n_classes), drawn(4, n_classes), seed=0
    )


@pytest.mark.parametrize("name", ["coop_w", "coop_context"])
def test_coop_counts_a_query_a_step_and_learns(name, monkeypatch):
    monkeypatch.setattr(coop, "tower_of", lambda bundle: SmoothTower())
    settings = {**METHODS[name].grid[0], "steps": 200}
    few = problem()
    moments = list(METHODS[name].run(few, 1_000, settings))
    assert [m.queries for m in moments] == [*range(1, 202, 20)]
    assert moments[-1].train_loss < 0.7 * moments[0].train_loss
    short = list(METHODS[name].run(few, 30, settings))
    assert [m.queries for m in short] == [1, 21, 30]
    assert short[1].train_loss == pytest.approx(moments[1].train_loss)


def test_coop_ends_when_its_validation_loss_falls_no_more(monkeypatch):
    monkeypatch.setattr(coop, "tower_of", lambda bundle: SmoothTower())
    settings = METHODS["coop_w"].grid[0]
    few = problem()
    losses = [
        float(cross_entropies(m.logits(few.val.features[:]), few.val.labels).mean())
        for m in METHODS["coop_w"].run(few, 10_000, settings)
    ]
    assert int(np.argmin(losses)) * coop.LOOK_EVERY + coop.PATIENCE == (len(losses) - 1) * coop.LOOK_EVERY
    assert (len(losses) - 1) * coop.LOOK_EVERY < coop.STEPS


@pytest.mark.parametrize("n_classes", [2, 3])
def test_linear_probe_separates_what_is_separable_for_no_query(n_classes):
    few = problem(n_classes)
    (moment,) = METHODS["linear_probe"].run(few, 1, {})
    logits = moment.logits(few.train.features)
    assert moment.queries == 0 and logits.shape == (9 * n_classes, n_classes)
    assert (logits.argmax(axis=1) == few.train.labels).mean() > 0.9
    assert moment.train_loss < np.log(n_classes)


def test_linear_probe_is_fitted_to_validation_pictures_too(monkeypatch):
    monkeypatch.setattr(heads, "PROBE_STRENGTHS", (1.0,))  # nothing left to choose
    few = problem()
    other = dataclasses.replace(few, val=drawn(4))
    seen = few.train.features
    before, after = (next(METHODS["linear_probe"].run(p, 1, {})).logits(seen) for p in (few, other))
    assert np.abs(before - after).max() > 1e-3
