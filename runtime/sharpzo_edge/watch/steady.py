"""A change is reported when it lasts: after so many equal answers."""

from __future__ import annotations


class Steady:
    """The answer that holds, which single other answers do not change.

    state: it, or None before the first
    """

    def __init__(self, answers: int):
        """answers: equal ones in a row that make a change"""
        self.state: str | None = None
        self._answers = answers
        self._last: str | None = None
        self._row = 0

    def has_changed(self, answer: str) -> bool:
        """Take the next answer: does the state change with it?"""
        self._row = self._row + 1 if answer == self._last else 1
        self._last = answer
        if self._row < self._answers or answer == self.state:
            return False
        self.state = answer
        return True

    def forget_the_row(self) -> None:
        """After a gap: the answers before it count no longer."""
        self._last, self._row = None, 0
