"""A fleet in one process."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from sharpzo_edge.demo import BUNDLE, TASKS
from sharpzo_edge.fleet.board import Board
from sharpzo_edge.requests import MemberRequest
from sharpzo_edge.run.progress import Caller

TRAIN = TASKS / "subgroups" / "train"


def dealt(folder: Path, shares: Sequence[Sequence[int]]) -> list[Path]:
    """Folders of disjoint pictures, one a member: shares[i][k] of class k go to member i."""
    places = [folder / f"board-{i + 1}" for i in range(len(shares))]
    for k, of_class in enumerate(sorted(TRAIN.iterdir())):
        files = iter(sorted(of_class.iterdir()))
        for place, share in zip(places, shares, strict=True):
            (place / of_class.name).mkdir(parents=True)
            for _ in range(share[k]):
                shutil.copy(next(files), place / of_class.name)
    return places


class Fate(Protocol):
    def __call__(self, line: LocalLine, name: str, message: bytes) -> bool: ...

    def look(self, line: LocalLine) -> None: ...


class LocalLine:
    """Members in this process.

    fate: is told of each message, and says whether its member is lost; is told when it is looked who is there
    """

    def __init__(self, folders: Sequence[Path], fate: Fate | None = None):
        self.said: dict[str, list[str]] = {each.name: [] for each in folders}
        self.boards = {
            each.name: Board(
                MemberRequest(each, BUNDLE, "", threads=1),
                Caller((lambda news, said=self.said[each.name]: said.append(news.text),)),
            )
            for each in folders
        }
        self.there = set(self.boards)
        self.answers: list[bytes] = []
        self._waiting: list[tuple[str, bytes | None]] = []
        self._fate = fate

    def present(self) -> frozenset[str]:
        if self._fate:
            self._fate.look(self)
        return frozenset(self.there)

    def send(self, name: str, message: bytes) -> None:
        is_lost = self._fate is not None and self._fate(self, name, message)
        answer = None
        if name in self.there and not is_lost:
            answer = self.boards[name].answer(message)
            self.answers.append(answer)
        self._waiting.append((name, answer))

    def receive(self, seconds: float) -> list[tuple[str, bytes | None]]:
        found, self._waiting = self._waiting, []
        return found
