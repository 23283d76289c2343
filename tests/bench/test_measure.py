"""How the accuracy bench judges a run."""

from __future__ import annotations

import json

import numpy as np
import pytest

from accuracy.harness.measure import TestSet, accuracy, headline, summary, timed
from accuracy.methods.method import Moment
from sharpzo_edge.types import LabelledFeatures
from support.accuracy import moment


def test_the_headline_is_by_validation_and_never_by_the_test() -> None:
    """The lowest validation loss; of equal ones the highest accuracy, and of these the earliest."""
    moments = [moment(1, 2.0, 0.4, 0.9), moment(2, 1.0, 0.6), {**moment(3, 1.5, 0.6), "val_accuracy": 0.7}]
    assert headline(moments)["queries"] == 3
    assert headline([*moments, {**moments[2], "queries": 4}])["queries"] == 3  # equal in both: the earlier
    assert headline([{**m, "val_loss": None} for m in moments])["queries"] == 3


def test_a_summary_has_budgets_and_a_thin_curve() -> None:
    """A curve of few points, the headline among them."""
    moments = [moment(10 * i + 1, 1.0, 0.9 if i == 457 else 0.5) for i in range(3_000)]
    found = summary(moments)
    assert found["best"]["queries"] == 4_571 and found["last"]["queries"] == found["queries"] == 29_991
    assert found["at"]["2000"]["queries"] == 1 and found["at"]["8000"]["queries"] == 4_571
    queries = found["curve"]["queries"]
    assert {1, 4_571, 29_991} <= set(queries) and len(queries) <= 200
    assert len(json.dumps(found)) < 15_000


def test_accuracy_is_among_the_classes_of_the_split() -> None:
    logits = np.array([[3, 2, 1], [1, 3, 2]], np.float32)
    pictures = LabelledFeatures(np.eye(2, dtype=np.float32), np.array([1, 2]))
    it = Moment(1, 0.0, lambda features: features @ logits)
    assert accuracy(it, pictures) == 0.0
    assert accuracy(it, pictures, TestSet(pictures, (1, 2)).among) == 0.5


def test_a_methods_seconds_leave_out_what_its_reader_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 100, 10))  # ten seconds between any two looks at it
    monkeypatch.setattr("accuracy.harness.measure.time.process_time", lambda: float(next(clock)))
    moments = [Moment(i, 0.0, lambda f: f, own) for i, own in ((1, None), (2, None), (3, 0.25))]
    assert [seconds for _, seconds in timed(iter(moments))] == [10.0, 20.0, 0.25]
