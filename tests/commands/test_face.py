"""The library: its page's examples run, and it leaves the program that uses it alone."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import sharpzo_edge
from sharpzo_edge import requests
from sharpzo_edge.demo import BUNDLE, TASKS

ROOT = Path(sharpzo_edge.__file__).parents[2]
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
TRAIN = TASKS / "subgroups" / "train"

# A server that holds 300 MiB already, and tunes in a thread within a budget.
SERVER = """
import signal, sys, threading
import numpy as np
import sharpzo_edge
from sharpzo_edge.process_memory import peak_rss_mib, rss_mib

held = np.ones(300 << 17)
sharpzo_edge.tune  # imports numpy and onnxruntime
handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
before = rss_mib()
found = []
bundle, images, output, budget = sys.argv[1:]
work = lambda: found.append(
    sharpzo_edge.tune(bundle, images, output, memory_budget=budget, max_queries=60, change_point=1, threads=1)
)
thread = threading.Thread(target=work)
thread.start()
thread.join()
assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
print(found[0].plan["text"]["mode"], found[0].plan["peak_mib"], peak_rss_mib() - before)
"""


def test_the_pages_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for example in EXAMPLES:
        exec(compile(example, "docs/python.md", "exec"), names)
    printed = capsys.readouterr()
    assert len(EXAMPLES) > 6 and not printed.err
    for said in ("of the validation pictures are right", "Stopped. The run is saved", "cannot be read"):
        assert said in printed.out


def test_every_public_name_is_there_and_on_the_page() -> None:
    assert set(sharpzo_edge.__all__) <= set(dir(sharpzo_edge))
    for name in sharpzo_edge.__all__:
        assert getattr(sharpzo_edge, name).__doc__, name
    told = {"HeadResult", "Plan", "Prediction", "Preview", "PredictResult", "EvaluateResult", "TuneResult"}
    for name in {*sharpzo_edge.__all__} - told:
        assert name in PAGE, name
    with pytest.raises(AttributeError, match="no attribute 'Tower'"):
        sharpzo_edge.Tower  # noqa: B018


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (sharpzo_edge.tune, requests.TuneRequest),
        (sharpzo_edge.preview, requests.PreviewRequest),
        (sharpzo_edge.evaluate, requests.EvaluateRequest),
        (sharpzo_edge.predict, requests.PredictRequest),
    ],
)
def test_a_functions_arguments_are_its_requests_fields(function, kind) -> None:
    assert inspect.signature(function).parameters == inspect.signature(kind).parameters
    assert function.__name__ in ("tune", "preview", "evaluate", "predict")
    with pytest.raises(TypeError, match="unexpected keyword"):
        function(BUNDLE, TRAIN, "out", tempo=3)


def test_the_names_at_the_top_and_their_homes_agree() -> None:
    """For type checkers they are imported, for programs they are looked up: the same ones."""
    tree = ast.parse((ROOT / "runtime" / "sharpzo_edge" / "__init__.py").read_text(encoding="utf-8"))
    (guarded,) = [node for node in tree.body if isinstance(node, ast.If)]
    imported = {
        alias.name: node.module
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported == {name: sharpzo_edge._HOME_OF.get(name, "errors") for name in sharpzo_edge.__all__}
    assert typing.get_type_hints(requests.Call)  # they can be read at run time, too


def test_an_error_has_a_note_for_python(tmp_path: Path) -> None:
    """Its text is the command line's, and stays so."""
    with pytest.raises(sharpzo_edge.UsageError, match=r"^--max-queries 0 is too small") as refused:
        sharpzo_edge.tune(BUNDLE, TRAIN, tmp_path / "p", max_queries=0)
    (note,) = refused.value.__notes__
    assert "max_queries" in note and "restart=True" in note and "the same call again" in note


def test_eval_shows_no_accuracy_before_its_end() -> None:
    """Classes come one after the other: that of the first ones would mislead."""
    said: list[str] = []
    sharpzo_edge.evaluate(BUNDLE, TRAIN, on_progress=lambda progress: said.append(progress.text))
    counts = [int(found[1]) for text in said if (found := re.fullmatch(r"(\d+) of (\d+) pictures", text))]
    assert counts == sorted(counts) and len(counts) > 2 and "accuracy" not in " ".join(said)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks are read from /proc")
@pytest.mark.parametrize("budget", ["48MiB", "64MiB", "128MiB"])
def test_a_thread_of_a_server_adds_no_more_than_its_budget(budget: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SERVER, BUNDLE, TRAIN, tmp_path / "p", budget],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / "runtime")},
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr  # nothing is written to a terminal
    _, planned, added = done.stdout.split()
    assert float(added) <= float(planned) <= float(budget.removesuffix("MiB"))
