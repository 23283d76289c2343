"""The black box by hand: the projection, contexts, queries, and numbers that are none."""

import numpy as np
import pytest

from sharpzo_edge.clip.class_prompts import class_prompts, context_from_words
from sharpzo_edge.clip.tower_plan import RESIDENT, TextPlan
from sharpzo_edge.clip.towers import TextTower
from sharpzo_edge.search.ask_tell import Centre
from sharpzo_edge.search.losses import scores
from sharpzo_edge.tuning.objective import LabelledFeatures, Objective, projection

RNG = np.random.default_rng(0)
SCALE = 16.3


def unit(*shape):
    x = RNG.standard_normal(shape)
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


class FakeTower:
    """Class features (B, K, E) that depend on the context by a known formula."""

    def __init__(self, n_classes=3, width=5, answer=None):
        self.answer = answer
        self.seen = []
        self.turn = np.random.default_rng(1).standard_normal((n_classes, width, 6)).astype(np.float32)

    def class_features(self, context, prompts):
        self.seen.append(context)
        if self.answer is not None:
            return np.full((len(context), 3, 5), self.answer, np.float32)
        return np.einsum("keg,bg->bke", self.turn, context.reshape(len(context), -1)[:, :6])

    def close(self):
        pass

    def class_feature_tangents(self, context, directions, prompts):
        return self.class_features(directions, prompts)  # it is linear


def objective(tower, A=None, p0=None, has_tangents=False):
    p0 = unit(2, 3) if p0 is None else p0
    A = projection(np.random.SeedSequence(1), p0.size, 4, 1.0) if A is None else A
    pictures = LabelledFeatures(unit(7, 5), np.array([0, 1, 2, 0, 1, 2, 0]))
    return Objective(tower, None, p0, A, pictures, SCALE, batch=3, has_tangents=has_tangents)


def test_the_projection_comes_from_its_seed_and_has_its_std():
    first, again = (projection(np.random.SeedSequence(7), 768, 512, 0.2) for _ in range(2))
    assert first.shape == (768, 512) and first.dtype == np.float32
    assert first.tobytes() == again.tobytes()
    # 393,216 draws: the standard error of the std is 0.11 %, of the mean 3e-4.
    assert first.std() == pytest.approx(0.2, rel=0.01)
    assert abs(first.mean()) < 2e-3
    other = projection(np.random.SeedSequence(8), 768, 512, 0.2)
    assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.02


def test_contexts_are_p0_plus_a_w():
    p0 = np.arange(6, dtype=np.float32).reshape(2, 3)
    A = np.zeros((6, 4), np.float32)
    A[0, 0], A[2, 1], A[5, 3] = 1, 10, 100  # entries (0, 0), (0, 2) and (1, 2) of the context
    found = objective(FakeTower(), A, p0).contexts(np.array([[0, 0, 0, 0], [1, 2, 3, 4]], float))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[[0, 1, 2], [3, 4, 5]], [[1, 1, 22], [3, 4, 405]]])


def test_one_number_as_projection_is_that_times_the_identity():
    p0, points = unit(2, 3), RNG.standard_normal((4, 6))
    alone = objective(FakeTower(), np.array(0.3, np.float32), p0).contexts(points)
    matrix = objective(FakeTower(), 0.3 * np.eye(6, dtype=np.float32), p0).contexts(points)
    assert alone.dtype == np.float32 and alone.shape == (4, 2, 3)
    np.testing.assert_array_equal(alone, matrix)


def test_losses_are_those_of_each_point_alone():
    box = objective(FakeTower())
    points = RNG.standard_normal((5, 4))
    together = box.losses(points)
    assert together.shape == (5,) and together.dtype == np.float64
    for point, loss in zip(points, together, strict=True):
        features = box.class_features(point[None])[0]
        assert loss == pytest.approx(scores(features[None], box.pictures, SCALE)[0].loss, rel=1e-5)
    assert len(set(together)) == 5


def test_every_point_is_one_query():
    tower = FakeTower()
    box = objective(tower)
    assert box.queries == 0
    box.losses(np.zeros((3, 4)))
    box.class_features(np.zeros((2, 4)))
    box.contexts(np.zeros((9, 4)))  # the network sees nothing of these
    assert box.queries == 5 == sum(len(context) for context in tower.seen)


@pytest.mark.parametrize(("has_tangents", "primal"), [(True, 1), (False, 0)])
def test_a_direction_is_one_query_a_new_centre_one_more(has_tangents, primal):
    box = objective(FakeTower(), has_tangents=has_tangents)
    w = RNG.standard_normal(4)
    T = box.class_features(w[np.newaxis])[0]
    directions = RNG.standard_normal((3, 4))
    found = [box.tangents(Centre(w, T, is_new=i == 0), directions[i : i + 1]) for i in range(3)]
    assert box.queries == 1 + 3 + primal and box.primal_queries == primal
    linear = box.class_features(w + directions) - T
    np.testing.assert_allclose(np.concatenate(found), linear, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("answer", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_give_a_loss_that_is_not(answer):
    """The optimisers decide: stage 1 ranks such a candidate last, a finite difference is an error."""
    losses = objective(FakeTower(answer=answer)).losses(np.ones((2, 4)))
    assert losses.shape == (2,) and not np.isfinite(losses).any()


def test_the_real_tower_answers_as_the_formula_says(bundle):
    """Loss at w through the objective = loss of the context put together by hand."""
    names = ["cat", "hot dog", "flag"]
    p0 = context_from_words(bundle, "a photo of a")
    prompts = class_prompts(bundle, names, len(p0))
    A = projection(np.random.SeedSequence(0), p0.size, 16, 0.05)
    pictures = LabelledFeatures(unit(9, bundle.manifest.embed_dim), np.arange(9) % 3)
    w = np.random.default_rng(3).standard_normal(16)
    with TextTower(bundle, TextPlan(RESIDENT, 256, 1)) as tower:
        box = Objective(tower, prompts, p0, A, pictures, bundle.manifest.logit_scale, batch=2)
        at_zero, at_w = box.losses(np.stack([np.zeros(16), w]))
        context = p0 + (A.astype(np.float64) @ w).reshape(p0.shape).astype(np.float32)
        by_hand = [
            scores(tower.class_features(c[None], prompts), pictures, bundle.manifest.logit_scale)[0].loss
            for c in (p0, context)
        ]
    np.testing.assert_allclose([at_zero, at_w], by_hand, atol=1e-5)
    assert abs(at_zero - at_w) > 1e-3
