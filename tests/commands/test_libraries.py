"""A library that cannot be imported is named, with advice that needs none of them."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import sharpzo_edge
from sharpzo_edge.demo import BUNDLE, TASKS
from sharpzo_edge.libraries import not_imported

RUNTIME = Path(sharpzo_edge.__file__).parents[1]
LIBRARIES = {"typer": "typer", "numpy": "numpy", "onnxruntime": "onnxruntime", "PIL": "pillow"}
LIBRARIES["safetensors"] = "safetensors"
MISSING = 'raise ModuleNotFoundError("No module named {0!r}", name={0!r})'
SYSTEMS = "raise ImportError('libopenblas.so.0: cannot open shared object file: No such file or directory')"
BROKEN = {
    "missing": MISSING,
    "empty": "",
    "zeros": "\0" * 9,
    "another processor": "from . import wrong",  # wrong.so is none
    "a part of the system is missing": SYSTEMS,
    "numpy's way": "try:\n import none_such\nexcept ImportError as e:\n raise ImportError('A page') from e",
}
REFUSED = {
    "EIO": ("raise OSError(5, 'Input/output error', '/lib/x.py')", "/lib/x.py: Input/output error"),
    "EACCES": (
        "raise ImportError('x: cannot open: Permission denied', path='/lib/x.so')",
        "chmod a+rX /lib/x.so",
    ),
    "EMFILE": ("raise OSError(24, 'Too many open files', '/lib/x.py')", "ulimit -n"),
}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another environment, which has this one's libraries behind its own."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    (own,) = folder.glob("lib/python*/site-packages")
    (own / "others.pth").write_text(f"{RUNTIME}\n{sysconfig.get_path('purelib')}\n")
    return own


def put(folder: Path, name: str, code: str) -> Path:
    made = folder / name
    made.mkdir(exist_ok=True)
    (made / "__init__.py").write_text(code.format(name))
    (made / "wrong.so").write_bytes(b"no library")
    return made


def end_of(python: Path, here: Path, *words: object, **variables: str) -> tuple[str, dict[str, str]]:
    """The message of a command that must fail, and its JSON."""
    command = [python, "-m", "sharpzo_edge", *map(str, words), "--json"]
    environment = os.environ | {"PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"} | variables
    ended = subprocess.run(command, capture_output=True, text=True, cwd=here, env=environment, timeout=120)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr, ended.stderr
    return ended.stderr, json.loads(ended.stdout)["error"]


EVAL = ("eval", "--bundle", BUNDLE, "--images", TASKS / "subgroups" / "test", "--threads", 1)


def ended_with(environment: Path, library: str, code: str) -> str:
    """What eval says when one library has this code."""
    made = put(environment, library, code)
    try:
        told, error = end_of(environment.parents[2] / "bin" / "python", environment, *EVAL)
    finally:
        made.rename(environment / f"was-{len(list(environment.iterdir()))}")
    assert error["message"] in told
    assert "doctor" not in told and "defect" not in told
    return error["message"]


CASES = [(library, how) for library in LIBRARIES for how in BROKEN if how == "empty" or library == "numpy"]
CASES += [("typer", "missing"), ("typer", "zeros")]


@pytest.mark.parametrize(("library", "how"), CASES)
def test_a_broken_library_is_named_with_what_to_type(library: str, how: str, environment: Path) -> None:
    told = ended_with(environment, library, BROKEN[how])
    assert re.search(
        rf"^The library {library} cannot be imported: .+ Type: {environment.parents[2]}/bin/python -m pip "
        rf"install --force-reinstall '{LIBRARIES[library]}",
        told,
    )
    assert ("install your system's package" in told) == (BROKEN[how] == SYSTEMS)


@pytest.mark.parametrize("library", ["typer", "numpy"])
@pytest.mark.parametrize("how", REFUSED)
def test_a_refused_library_is_not_called_broken(library: str, how: str, environment: Path) -> None:
    code, says = REFUSED[how]
    told = ended_with(environment, library, code)
    assert told.startswith("Cannot read /lib/x.") and says in told and "pip" not in told


@pytest.mark.parametrize("library", ["typer", "numpy"])
def test_python_itself_may_lack_a_module(library: str, environment: Path) -> None:
    told = ended_with(environment, library, MISSING.format("_ctypes"))
    assert "is not complete: No module named '_ctypes'" in told and "--force-reinstall" not in told


@pytest.mark.parametrize("name", ["numpy", "random"])
def test_a_file_of_ones_own_in_a_librarys_place(name: str, tmp_path: Path) -> None:
    """Of a library, and of a module that numpy takes from Python when random numbers are drawn."""
    (tmp_path / f"{name}.py").write_text("")
    words = ("tune", "--bundle", BUNDLE, "--images", TASKS / "subgroups" / "train", "--output", "p")
    told, _ = end_of(Path(sys.executable), tmp_path, *words, PYTHONPATH=f"{tmp_path}:{RUNTIME}")
    assert f"{tmp_path}/{name}.py is imported in place of" in told and "Rename it" in told


def test_what_a_librarys_function_imports_is_named() -> None:
    """As torch's export does with onnxscript: our own line is no import."""
    try:
        importlib.import_module("none_such")
    except ImportError as error:
        assert str(not_imported(error)).startswith("The library none_such cannot be imported")


@pytest.mark.parametrize("name", ["printing.py", "cli.py", "wording.py"])
def test_a_damaged_file_of_ours_is_not_a_librarys_fault(name: str, tmp_path: Path) -> None:
    made = tmp_path / "sharpzo_edge"
    made.mkdir()
    for path in (RUNTIME / "sharpzo_edge").iterdir():
        (made / path.name).symlink_to(path)
    (made / name).unlink()
    (made / name).write_bytes(bytes(100))
    told, _ = end_of(Path(sys.executable), tmp_path, "inspect", BUNDLE)
    assert "A file of sharpzo-edge itself is not as it was installed: " in told and "wheel" in told
