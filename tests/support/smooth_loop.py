"""The loop over both stages on a small smooth objective, without any model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

import numpy as np

from sharpzo_edge.clip.class_prompts import ClassPrompts, NameChunk
from sharpzo_edge.seeds import seed_stream
from sharpzo_edge.tuning.loop import Loop, State, Update
from sharpzo_edge.tuning.methods import method_of
from sharpzo_edge.tuning.objective import Objective
from sharpzo_edge.tuning.settings import EdgeSettings, PaperSettings, TuneSettings
from sharpzo_edge.tuning.stopping import Limits
from sharpzo_edge.types import LabelledFeatures

K, E, M, D = 3, 8, 2, 5
BATCH = 3  # so few that a sketch takes several
SMALL = PaperSettings(
    preset="test",
    population=6,
    dim=7,
    sigma0=0.5,
    rho=0.05,
    projection_std=0.3,
    change_point=4,
    steps=30,
    prune_interval=10,
    eta=0.05,
)
EDGE = EdgeSettings(
    preset="test",
    population=6,
    dim=7,
    sigma0=0.4,
    rho=0.05,
    change_point=3,
    rank=4,
    tangents="fp32",
    queries=160,
)


DIFFERENCES = dataclasses.replace(EDGE, tangents="none")


class SmoothTower:
    """Class features that bend with the context: unit(tanh(context W_k)).

    asked: contexts and directions that it has answered
    """

    def __init__(self, breaks_beyond: float = float("inf")) -> None:
        self.broken = self.asked = 0
        self.breaks_beyond = breaks_beyond  # largest entry of a context that it survives
        self.weights = np.random.default_rng(0).standard_normal((K, M * D, E)).astype(np.float32)

    def class_features(self, context: np.ndarray, prompts: ClassPrompts) -> np.ndarray:
        self.asked += len(context)
        features = np.tanh(np.einsum("bi,kie->bke", context.reshape(len(context), -1), self.weights))
        features /= np.linalg.norm(features, axis=-1, keepdims=True)
        breaks = np.abs(context).max(axis=(1, 2)) > self.breaks_beyond
        self.broken += int(breaks.sum())
        features[breaks] = np.nan
        return features

    def class_feature_tangents(
        self, context: np.ndarray, directions: np.ndarray, prompts: ClassPrompts
    ) -> np.ndarray:
        self.asked += len(directions)
        x = np.tanh(np.einsum("i,kie->ke", context.ravel(), self.weights))
        length = np.linalg.norm(x, axis=-1, keepdims=True)
        T = x / length
        # One by one: the bits of a direction's answer do not depend on what shares its run.
        changes = [np.einsum("i,kie->ke", direction.ravel(), self.weights) for direction in directions]
        dx = (1 - x**2) * np.array(changes)
        return (dx - T * (T * dx).sum(axis=-1, keepdims=True)) / length

    def close(self) -> None:
        pass


def pictures(n: int, seed: int) -> LabelledFeatures:
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n, E)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return LabelledFeatures(features, rng.integers(0, K, n))


def make_loop(
    run_settings: TuneSettings = SMALL,
    max_queries: int | None = None,
    n_val: int = 0,
    tower: SmoothTower | None = None,
    state: State | None = None,
    on_update: Callable[[Update], None] | None = None,
) -> Loop:
    chunk = NameChunk(slice(0, K), *[np.zeros(0)] * 4)  # the tower asks for none of it
    p0 = np.full((M, D), 0.1, np.float32)
    run_settings = run_settings.for_context(p0.size)
    A = run_settings.projection(seed_stream(0, "projection"), p0)
    shots = pictures(30, 1)
    names = ClassPrompts(("a", "b", "c"), (chunk,))
    has_tangents = run_settings.tower_tangents is not None
    objective = Objective(tower or SmoothTower(), names, p0, A, shots, 10.0, BATCH, has_tangents)
    return Loop(
        method_of(run_settings, shots, objective.logit_scale),
        objective,
        pictures(n_val, 2),
        Limits(max_queries or run_settings.default_queries),
        partial(seed_stream, 0),
        state=state,
        on_update=on_update,
    )
