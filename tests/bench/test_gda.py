"""The GDA row of the accuracy bench is what the command does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from accuracy.harness import one_run, runs
from accuracy.harness.jobs import QUERIES, Job
from accuracy.harness.tasks import folder_task
from sharpzo_edge.clip.bundle import Bundle
from sharpzo_edge.demo import BUNDLE, DEFAULT_TASK, TASKS


def tuned_with_gda(output: Path, shots: int) -> dict[str, Any]:
    """What `tune --head gda --max-queries 1` prints, on the shipped task."""
    command = [sys.executable, "-m", "sharpzo_edge", "tune", "--bundle", BUNDLE, "--images"]
    command += [TASKS / DEFAULT_TASK / "train", "--output", output, "--head", "gda", "--json"]
    command += ["--max-queries", "1", "--shots", str(shots), "--memory-budget", "none"]
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    printed: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, env=paths).stdout)
    return printed


def test_the_gda_row_is_what_the_command_gives_and_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = folder_task("subgroups", TASKS / DEFAULT_TASK)
    monkeypatch.setattr(one_run, "opened", lambda place: (Bundle.open(BUNDLE), {"subgroups": found}))
    place = one_run.Place(BUNDLE, tmp_path, None, tmp_path)
    ours = one_run.run_job(place, Job("gda", "subgroups", 4, 0, QUERIES), {})
    theirs = tuned_with_gda(tmp_path / "prompt.safetensors", shots=4)["head"]
    assert theirs["weight"] > 0
    assert ours["val_accuracy"] == pytest.approx(theirs["val_accuracy"], abs=1e-5)
    assert ours["val_loss"] == pytest.approx(theirs["val_loss"], abs=1e-4)
    refused = one_run.run_job(place, Job("gda", "subgroups", 1, 0, QUERIES), {})
    error = tuned_with_gda(tmp_path / "none.safetensors", shots=1)["error"]
    assert refused == {runs.REFUSED: error["message"]} and "no two of one class differ" in error["message"]
