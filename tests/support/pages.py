"""A report's HTML, taken apart: its elements, its figures and what a person reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any


@dataclass
class Figure:
    """value: as the file has it, for programs;  text: as it is shown"""

    value: str
    text: str = ""


@dataclass
class Page(HTMLParser):
    """elements: (tag, attributes) of each;  figures: by their place in the report's JSON"""

    html: str
    elements: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    figures: dict[str, Figure] = field(default_factory=dict)
    text: str = ""
    _open: Figure | None = None

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.elements.append((tag, found))
        if tag == "data":
            key = str(found["data-figure"])
            assert key not in self.figures, f"{key} is there twice"
            self._open = self.figures[key] = Figure(str(found["value"]))

    def handle_endtag(self, tag: str) -> None:
        if tag == "data":
            self._open = None

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._open:
            self._open.text += data


def flat(value: Any, place: str = "") -> dict[str, Any]:
    """The leaves of parsed JSON by their places. In a list, what has a `key` or `use` is named by it."""
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = {_name(each, i): each for i, each in enumerate(value)}.items()
    else:
        return {place: value}
    leaves = {}
    for name, each in items:
        leaves |= flat(each, f"{place}.{name}" if place else str(name))
    return leaves


def _name(value: Any, number: int) -> str:
    if isinstance(value, dict):
        return str(value.get("use", value.get("key", number)))
    return str(number)
