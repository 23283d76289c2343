"""Names of classes."""

from __future__ import annotations

from accuracy.harness.coop_layout import words_of


def test_classes_of_one_name_stay_apart() -> None:
    assert words_of(["Sea_Lake", "crane", "Crane"]) == ("Sea Lake", "crane", "another Crane")
