"""The pictures of a report that may be labelled wrongly: where they lie now, and where they may belong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .labels import ClassFolder, Labels, NotThereError
from .names import spelt


@dataclass(frozen=True)
class ToLookAt:
    """A picture of a report.

    word: its place (names.spelt), or "" when it is there no longer: it was moved since
    label, answer: class names;  to: the word of the answer's class, or "" when there is none
    is_doubtful: whether it looks least like its label
    """

    word: str
    name: str
    label: str
    answer: str
    to: str
    score: float | None
    is_doubtful: bool


def to_look_at(
    pictures: Sequence[Mapping[str, Any]],
    doubtful: Sequence[str],
    classes: Sequence[ClassFolder],
    labels: Labels,
) -> list[ToLookAt]:
    """The pictures of a report, as the folder is now. pictures: of report.data.Picture, as JSON."""
    by_name = {each.reads_as: each.word for each in classes}
    return [
        ToLookAt(
            _place_of(picture["image"], labels),
            picture["image"],
            picture["label"],
            picture["answer"],
            by_name.get(picture["answer"], ""),
            picture["score"],
            picture["image"] in doubtful,
        )
        for picture in pictures
    ]


def _place_of(image: str, labels: Labels) -> str:
    word = spelt(*image.split("/"))
    try:
        labels.find(word)
    except NotThereError:
        return ""
    return word
