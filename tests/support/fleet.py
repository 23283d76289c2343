"""A fleet in one process, and the run that all its pictures in one place would give."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from sharpzo_edge.clip.towers import TextTower
from sharpzo_edge.demo import BUNDLE, TASKS
from sharpzo_edge.fleet.board import Board
from sharpzo_edge.pictures.features import training_features
from sharpzo_edge.pictures.folder import class_words, read_folder
from sharpzo_edge.requests import FleetTuneRequest, MemberRequest
from sharpzo_edge.run.progress import Caller
from sharpzo_edge.search.gauss_newton import quadratic_model
from sharpzo_edge.search.losses import FeatureLoss
from sharpzo_edge.seeds import seed_stream
from sharpzo_edge.tuning.answers import Answers, compare
from sharpzo_edge.tuning.loop import Loop, Update
from sharpzo_edge.tuning.methods import method_by
from sharpzo_edge.tuning.objective import Objective
from sharpzo_edge.types import LabelledFeatures, joined

TRAIN = TASKS / "subgroups" / "train"


def dealt(folder: Path, shares: Sequence[Sequence[int]]) -> list[Path]:
    """Folders of disjoint pictures: shares[i][k] of class k go to member i, and every class has a folder."""
    places = [folder / f"board-{i + 1}" / "pictures" for i in range(len(shares))]
    for k, of_class in enumerate(sorted(TRAIN.iterdir())):
        files = iter(sorted(of_class.iterdir()))
        for place, share in zip(places, shares, strict=True):
            (place / of_class.name).mkdir(parents=True)
            for _ in range(share[k]):
                shutil.copy(next(files), place / of_class.name)
    return places


class LocalLine:
    """Members in this process. `before` is told the name before each message, and may make it be lost."""

    def __init__(self, folders: Sequence[Path], before: Callable[[str, LocalLine], bool] | None = None):
        self.boards = {
            each.parent.name: Board(MemberRequest(each, BUNDLE, "", threads=1), Caller()) for each in folders
        }
        self.there = set(self.boards)
        self.sent: list[tuple[str, bytes]] = []
        self.answers: list[bytes] = []
        self._waiting: list[tuple[str, bytes | None]] = []
        self._before = before

    def present(self) -> frozenset[str]:
        return frozenset(self.there)

    def send(self, name: str, message: bytes) -> None:
        self.sent.append((name, message))
        is_lost = name not in self.there or (self._before is not None and self._before(name, self))
        answer = None if is_lost else self.boards[name].answer(message)
        if answer is not None:
            self.answers.append(answer)
        self._waiting.append((name, answer))

    def receive(self, seconds: float) -> list[tuple[str, bytes | None]]:
        found, self._waiting = self._waiting, []
        return found


def pooled(line: LocalLine, on_update: Callable[[Update], None], request: FleetTuneRequest) -> tuple[Loop, Answers]:
    """The product's own loop on the pictures that a fleet's members have drawn, in one place."""
    sessions = [board._session for board in line.boards.values()]
    assert all(sessions)
    ready, scale = sessions[0].ready, sessions[0].pictures.logit_scale

    def together(parts: Sequence[LabelledFeatures]) -> LabelledFeatures:
        features = np.concatenate([part.features[:] for part in parts])
        return LabelledFeatures(features, np.concatenate([part.labels for part in parts]))

    train = together([each.pictures.train for each in sessions])
    val = together([each.pictures.val for each in sessions])
    A = ready.settings.projection(seed_stream(request.seed, "projection"), ready.context)
    with TextTower(ready.bundle, ready.plan.text) as tower:
        objective = Objective(
            tower, ready.prompts, ready.context, A, train, scale, 64, ready.plan.text.tangents is not None
        )
        method = method_by(ready.settings, partial(FeatureLoss, train, scale), quadratic_model)
        limits = dataclasses.replace(ready.limits, max_queries=request.max_queries or ready.limits.max_queries)
        seeds = partial(seed_stream, request.seed)
        loop = Loop(method, objective, val, limits, seeds, on_update=on_update)
        best = loop.run().best
    T = best.class_features if best.w.any() else None
    words = loop.state.opening.class_features
    drawn = joined(train, val)
    heads = [compare(kind, drawn, len(train), words, T, scale) for kind in ("ridge", "gda")]
    return loop, max(heads, key=lambda a: (a.head.accuracy, -float(a.head.losses.mean())))
