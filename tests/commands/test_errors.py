"""Every message has four parts, every way to fail has its exit code, and --json says it too."""

from __future__ import annotations

import ast
import inspect
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sharpzo_edge
from sharpzo_edge import cli, errors
from sharpzo_edge.__main__ import say_at_once
from sharpzo_edge.demo import BUNDLE, DEFAULT_TASK, TASKS
from support.file_names import of_any_script

HERE = Path(sharpzo_edge.__file__).parent
README = (HERE.parents[1] / "README.md").read_text(encoding="utf-8")
KINDS = {
    name for name, value in inspect.getmembers(errors, inspect.isclass) if value.__module__ == errors.__name__
}
TRAIN = TASKS / DEFAULT_TASK / "train"
SENTENCE_END = re.compile(r"[.…:](?: |$)")
# What the last part begins with, or holds, when it says what to type or to do.
WHAT_NEXT = re.compile(
    r"--\w|pip install|\b(Try|Update|Begin|Correct|Rename|Add|Check|Copy|Make|Type)\b|same command"
)
STOPPED = "Stopped. X"  # whoever stops adds what is kept, and what to type


def messages() -> Iterator[tuple[str, str]]:
    """Every text that one of our errors is made with, and where; an X stands for each value."""
    for path in sorted(HERE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KINDS:
                text = node.args[0] if node.args else None
                if isinstance(text, ast.JoinedStr):
                    parts = (p.value if isinstance(p, ast.Constant) else "X" for p in text.values)
                    yield f"{path.name}:{node.lineno}", "".join(map(str, parts))
                elif isinstance(text, ast.Constant):
                    yield f"{path.name}:{node.lineno}", str(text.value)


@pytest.mark.parametrize(("where", "text"), [pytest.param(*m, id=m[0]) for m in messages()])
def test_every_message_has_its_parts(where: str, text: str) -> None:
    if text == STOPPED:
        return
    assert len(SENTENCE_END.split(text.rstrip("."))) >= 3, text
    assert WHAT_NEXT.search(text), text


# Commands, in this process: what is typed, the exit code, and words of the message.


def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> tuple:
    """Exit code, standard output, standard error."""
    monkeypatch.setattr(sys, "argv", ["sharpzo-edge", *map(str, words)])
    with monkeypatch.context() as patch:
        patch.setattr(cli, "govern", lambda: None)
        patch.setattr(sys, "stdout", sys.stdout)  # main takes it away from a process that has failed
        with pytest.raises(SystemExit) as ended:
            cli.main()
    out, err = capsys.readouterr()
    return ended.value.code, out, err


def made(folder: Path, *names: str) -> Path:
    """A folder of classes with one picture each."""
    picture = next(TRAIN.glob("*/*.png"))
    for name in names:
        (folder / name).mkdir(parents=True)
        shutil.copy(picture, folder / name)
    return folder


TUNE = [
    "tune",
    "--memory-budget",
    "none",
    "--max-queries",
    5,
    "--bundle",
    BUNDLE,
    "--output",
    "OUT",
    "--images",
]
EVAL = ["eval", "--memory-budget", "none", "--bundle", BUNDLE, "--images"]
CASES = {
    "nothing there": (["inspect", "nowhere"], 2, "UsageError", "There is nothing at nowhere"),
    "no bundle": (["inspect", TRAIN], 2, "BundleError", "No bundle at"),
    "an output that is a folder": ([*TUNE, TRAIN, "--output", "."], 2, "UsageError", "is a folder"),
    "a folder to be": ([*TUNE, TRAIN, "--output", "new/"], 2, "UsageError", "is a folder"),
    "an empty path": (["classifier", "--bundle", "", "--prompt", "p", "--output", "o"], 2, "", "is empty"),
    "an empty argument": (["inspect", ""], 2, "UsageError", "PATH is empty. It takes a path."),
    "no such command": (["tuen"], 2, "UsageError", "'tuen'. Did you mean 'tune'? Add --help"),
    "no such option": ([*EVAL, TRAIN, "--fast"], 2, "UsageError", "No such option"),
    "an option is missing": (["tune", "--bundle", BUNDLE], 2, "UsageError", "Missing option '--images'"),
    "no number": ([*TUNE, TRAIN, "--seed", "x"], 2, "UsageError", "'x' is not a valid int"),
    "not in the preset": ([*TUNE, TRAIN, "--eta", 3], 2, "UsageError", "--eta 3.0 means nothing"),
    "never saved": ([*TUNE, TRAIN, "--checkpoint-seconds", "nan"], 2, "UsageError", "0 or more"),
    "a negative wait": ([*TUNE, TRAIN, "--checkpoint-seconds", "-1"], 2, "UsageError", "-1.0 is too small"),
    "budget": ([*TUNE, TRAIN, "--memory-budget", "20MiB"], 3, "BudgetError", "--memory-budget"),
    "one class": ([*TUNE, ("cat",)], 2, "ImagesError", "IMAGES holds 1 class folder."),
    "no class": ([*EVAL, ()], 2, "ImagesError", "IMAGES cannot be read"),
    "one name twice": ([*TUNE, ("hot_dog", "hot dog")], 2, "ImagesError", "['hot dog', 'hot_dog']"),
    "one word twice": ([*TUNE, ("Cat", "cat")], 2, "ClassNameError", "(of the folder 'Cat')"),
    "an empty name": ([*TUNE, ("cat", "_")], 2, "ImagesError", "['_']"),
    "a mark": ([*TUNE, ("cat", "<end_of_text>")], 2, "ClassNameError", "'<end_of_text>'"),
    "an endless name": ([*EVAL, TRAIN, "--classes", f"cat,{'a' * 2001}"], 2, "ClassNameError", "2,001 char"),
    "a long name": ([*TUNE, ("cat", "a_" * 100)], 2, "ClassNameError", "(of the folder 'a_a_"),
    "another script": ([*EVAL, ("cat", "犬 δ")], 2, "ClassNameError", "(of the folder '犬 δ')"),
    "not UTF-8": ([*TUNE, ("cat", "d\udcf6g")], 2, "ImagesError", "is not UTF-8"),
    "a class of nothing": ([*TUNE, ("cat", "dog/")], 1, "", "IMAGES/dog has no picture"),
    "a skipped picture": ([*EVAL, ("cat", "dog/"), "--strict"], 1, "SkippedPicturesError", "not a picture"),
}


@pytest.mark.parametrize(
    ("words", "code", "kind", "says"),
    [
        pytest.param(*case, id=name, marks=of_any_script if name == "another script" else ())
        for name, case in CASES.items()
    ],
)
def test_a_command_that_fails_says_so_twice(
    words: list,
    code: int,
    kind: str,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images = tmp_path / "images"
    given: list[object] = []
    for word in words:
        if isinstance(word, tuple):
            made(images, *(name.rstrip("/") for name in word))
            for name in word:
                if name.endswith("/"):
                    for picture in (images / name).iterdir():
                        picture.write_bytes(b"no picture")
        given.append(images if isinstance(word, tuple) else word)
    given = [tmp_path / "p" if word == "OUT" else word for word in given]
    found, out, err = typed(monkeypatch, capsys, *given, "--json")
    error = json.loads(out)["error"]
    assert found == error["exit_code"]
    assert says.replace("IMAGES", str(images)) in error["message"]
    assert error["message"] in err and "Traceback" not in err
    assert not (tmp_path / "p").exists()
    if kind:
        assert (found, error["kind"]) == (code, kind)


@pytest.mark.parametrize("option", ["--json", "--json-lines"])
def test_an_error_of_the_first_moment_is_json_too(
    option: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sharpzo-edge", "predict", option])
    say_at_once("SharpzoError", "It is so", 1)
    out, err = capfd.readouterr()
    assert json.loads(out) == {"error": {"kind": "SharpzoError", "message": "It is so", "exit_code": 1}}
    assert err == "error: It is so\n"


def test_a_defect_is_a_sentence_and_a_traceback_when_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def defect(*_: object) -> None:
        raise ZeroDivisionError("by nought")

    monkeypatch.setattr("sharpzo_edge.tuning.tuned_prompt.load_prompt", defect)
    code, out, err = typed(monkeypatch, capsys, "inspect", BUNDLE / "manifest.json", "--json")
    assert code == 1 and json.loads(out)["error"]["kind"] == "ZeroDivisionError"
    assert "by nought" in err and "SHARPZO_DEBUG=1" in err and "Traceback" not in err
    monkeypatch.setenv("SHARPZO_DEBUG", "1")
    code, out, err = typed(monkeypatch, capsys, "inspect", BUNDLE / "manifest.json", "--json")
    assert code == 1 and json.loads(out) and "Traceback" in err and "in defect" in err


def test_a_full_standard_output_is_an_error_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Full:
        encoding = "utf-8"

        def reconfigure(self, **_: object) -> None: ...
        def flush(self) -> None: ...

        def write(self, _: str) -> int:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:  # ends before capsys does, which would leave its own closed stream
        patch.setattr(sys, "stdout", Full())
        code, _, err = typed(monkeypatch, capsys, "inspect", BUNDLE)
    assert code == 1 and "standard output: No space left" in err


def test_the_readme_lists_every_exit_code() -> None:
    (listed,) = re.findall(r"Exit codes: (.*?)\.", README, re.DOTALL)
    codes = {kind.exit_code for kind in vars(errors).values() if hasattr(kind, "exit_code")}
    assert {int(n) for n in re.findall(r"\d+", listed)} == codes | {0, 129, 130, 143}
