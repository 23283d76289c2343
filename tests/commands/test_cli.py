"""The commands as a user types them, in processes of their own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Collection
from pathlib import Path

import pytest

import sharpzo_edge
from sharpzo_edge import cli
from sharpzo_edge.cli import app
from sharpzo_edge.demo import BUNDLE, DEFAULT_TASK, TASKS
from sharpzo_edge.errors import UsageError
from support.processes import finish, run, start

RUNTIME = Path(sharpzo_edge.__file__).parents[1]
README = (RUNTIME.parent / "README.md").read_text(encoding="utf-8")
TRAIN, TEST = TASKS / DEFAULT_TASK / "train", TASKS / DEFAULT_TASK / "test"
QUICK = ["--dim", "16", "--change-point", "5", "--steps", "105", "--prune-interval", "40"]
QUICK += ["--sigma0", "1", "--eta", "5", "--preset", "paper"]
COMMANDS = [c.name or c.callback.__name__ for c in app.registered_commands if c.callback]


def tune(output: Path, *more: object, code: int = 0, images: Path = TRAIN) -> dict:
    done = run(
        "tune", "--bundle", BUNDLE, "--images", images, "--output", output, "--json", *QUICK, *more, code=code
    )
    return json.loads(done.stdout)  # one object and nothing else


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    path = tmp_path_factory.mktemp("tuned") / "prompt.safetensors"
    return path, tune(path)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_stands_in_the_readme(command: str) -> None:
    text = run(command, "--help").stdout
    assert f"sharpzo-edge {command}" in text, "its help has an example"
    assert f"sharpzo-edge {command}" in README


@pytest.mark.parametrize("group", [(), ("fleet",)])
def test_what_help_says_of_a_command_is_never_cut_off(group: tuple[str, ...]) -> None:
    assert "..." not in run(*group, "--help").stdout.partition("Commands:")[2]


def test_help_needs_neither_numpy_nor_onnxruntime() -> None:
    code = (
        "import sys, sharpzo_edge.cli as c\n"
        "try: c.app(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'numpy', 'onnxruntime', 'rich'} & set(sys.modules), sorted(sys.modules)"
    )
    finish([sys.executable, "-c", code])


@pytest.mark.oldest_onnxruntime
def test_tune_returns_the_documented_keys_and_lowers_the_loss(tuned: tuple[Path, dict]) -> None:
    path, result = tuned
    assert set(result) == {
        "queries",
        "stage1_queries",
        "stage2_queries",
        "seconds",
        "peak_rss_mib",
        "train_loss",
        "train_accuracy",
        "val_accuracy",
        "val_loss",
        "best_queries",
        "head",
        "stopped",
        "zero_shot_train_loss",
        "plan",
        "prompt",
        "use",
        "left_out",
        "validated",
        "covered",
        "by_halves",
        "doubtful",
        "none",
    }
    assert result["queries"] == 2 + result["stage1_queries"] + result["stage2_queries"]
    assert min(result["stage1_queries"], result["stage2_queries"]) > 0
    assert result["train_loss"] < result["zero_shot_train_loss"]
    assert path.stat().st_size < 256 << 10


def test_the_same_command_writes_the_same_bytes(tuned: tuple[Path, dict], tmp_path: Path) -> None:
    tune(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == tuned[0].read_bytes()
    tune(tmp_path / "other.safetensors", "--seed", 1)
    assert (tmp_path / "other.safetensors").read_bytes() != tuned[0].read_bytes()


@pytest.mark.oldest_onnxruntime
def test_eval_and_predict_use_the_prompt(tuned: tuple[Path, dict]) -> None:
    zero_shot = json.loads(run("eval", "--bundle", BUNDLE, "--images", TEST, "--json").stdout)
    result = json.loads(
        run("eval", "--bundle", BUNDLE, "--images", TEST, "--prompt", tuned[0], "--json").stdout
    )
    assert set(result) == {"accuracy", "n_images", "n_classes", "per_class", "use", "by", "none"}
    n = [len(list(p.iterdir())) for p in sorted(TEST.iterdir())]
    assert result["n_images"] == sum(n) and result["n_classes"] == len(n) == len(result["per_class"])
    weighted = sum(a * k for a, k in zip(result["per_class"].values(), n, strict=True)) / sum(n)
    assert result["accuracy"] == pytest.approx(weighted)
    assert zero_shot["accuracy"] != result["accuracy"]

    pictures = sorted(TEST.rglob("*.png"))[:5]
    found = json.loads(
        run("predict", "--bundle", BUNDLE, "--prompt", tuned[0], *pictures, "--top", 3, "--json").stdout
    )["predictions"]
    assert [p["image"] for p in found] == list(map(str, pictures))
    for p in found:
        assert len(p["labels"]) == len(p["scores"]) == 3
        assert p["scores"] == sorted(p["scores"], reverse=True) and 0 < sum(p["scores"]) <= 1 + 1e-9


def test_the_context_serves_new_class_names(tuned: tuple[Path, dict]) -> None:
    names = [p.name.replace("_", " ") for p in sorted(TEST.iterdir())]
    ours = ["eval", "--bundle", BUNDLE, "--images", TEST, "--prompt", tuned[0], "--json"]
    same = json.loads(run(*ours, "--classes", ",".join(names)).stdout)
    own = json.loads(run(*ours, "--use", "prompt").stdout)
    assert same["accuracy"] == pytest.approx(own["accuracy"])
    more = json.loads(run(*ours, "--classes", ",".join([*names, "red heart"])).stdout)
    assert more["n_classes"] == len(names) + 1
    assert "none of the classes" in run(*ours, "--classes", "a,b", code=2).stderr


def test_a_bad_picture_is_skipped_and_counted(tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(TRAIN, images)
    first = sorted(images.iterdir())[0]
    (first / "!broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut off")
    (first / "empty.png").touch()
    done = run(
        *("tune", "--bundle", BUNDLE, "--images", images, "--output", tmp_path / "p", *QUICK),
        *("--max-queries", 5, "--shots", 100),
    )
    assert "skipped 1 picture: truncated or damaged" in done.stderr
    assert "skipped 1 picture: not a picture" in done.stderr
    assert "fewer than 100 pictures" in done.stderr
    assert sorted(p.name for p in images.iterdir()) == sorted(p.name for p in TRAIN.iterdir())


def test_a_prompt_from_elsewhere_is_replaced_only_with_restart(
    tuned: tuple[Path, dict], tmp_path: Path
) -> None:
    path = tmp_path / "p"
    shutil.copy(tuned[0], path)
    before = path.read_bytes()
    error = tune(path, code=2)["error"]["message"]
    assert "exists already" in error and "--restart" in error
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["p"]
    assert "plan" in tune(path, "--plan")  # which replaces nothing
    assert tune(path, "--restart", "--max-queries", 80)["queries"] == 2 + 73  # a generation and its look
    assert path.read_bytes() != before


def interrupted(output: Path, *more: object, by: signal.Signals = signal.SIGTERM) -> None:
    """A tune that gets a signal after its first look, long before its end."""
    code, text = signalled([*long_tune(output), *more], by)
    assert code == 128 + by
    assert "type the same command again" in text


def signalled(
    words: list[object], by: signal.Signals, ignored: Collection[signal.Signals] = ()
) -> tuple[int, str]:
    """A tune that gets a signal after its first look: its exit code, and its standard error."""
    log = Path(f"{words[words.index('--output') + 1]}.work") / "log.jsonl"
    with start([sys.executable, "-m", "sharpzo_edge", *words], ignored=ignored) as process:
        while process.poll() is None and not (log.exists() and "zero-shot" in log.read_text()):
            time.sleep(0.005)
        process.send_signal(by)
        _, text = process.communicate()
    return process.returncode, text


def long_tune(output: Path) -> list[object]:
    return ["tune", "--bundle", BUNDLE, "--images", TRAIN, "--output", output, "--preset", "demo"]


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_goes_on_with_the_same_command(by: signal.Signals, tmp_path: Path) -> None:
    output = tmp_path / "p"
    interrupted(output, by=by)
    assert not output.exists()
    more = ["--max-queries", 3000]  # another command: refused by name
    assert "another --max-queries: 1200, now 3000" in run(*long_tune(output), *more, code=2).stderr
    assert "going on after" in run(*long_tune(output), "--max-minutes", 0.02).stderr
    assert output.exists() and not Path(f"{output}.work", "checkpoint.safetensors").exists()


def test_under_nohup_a_closed_terminal_ends_no_run(tmp_path: Path) -> None:
    words = [*long_tune(tmp_path / "p"), "--max-queries", 600]
    code, text = signalled(words, signal.SIGHUP, ignored=[signal.SIGHUP])
    assert code == 0 and "Stopped" not in text
    assert (tmp_path / "p").exists() and not Path(f"{tmp_path / 'p'}.work", "checkpoint.safetensors").exists()


def test_a_resumed_run_writes_the_same_bytes(tmp_path: Path) -> None:
    limit = ["--max-queries", 1500]
    interrupted(tmp_path / "a", *limit)
    run(*long_tune(tmp_path / "a"), *limit)
    run(*long_tune(tmp_path / "b"), *limit)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_other_words_for_a_class_are_another_run(tmp_path: Path) -> None:
    words = tmp_path / "words.json"
    folder = sorted(p.name for p in TRAIN.iterdir())[0]
    words.write_text(json.dumps({folder: "red heart"}))
    interrupted(tmp_path / "p", "--class-names", words)
    words.write_text(json.dumps({folder: "blue heart"}))
    error = run(*long_tune(tmp_path / "p"), "--class-names", words, code=2).stderr
    assert "another --class-names" in error and "--restart" in error


def test_a_run_begun_with_restart_can_be_gone_on_with(tuned: tuple[Path, dict], tmp_path: Path) -> None:
    output = tmp_path / "p"
    shutil.copy(tuned[0], output)
    interrupted(output, "--restart")
    assert output.read_bytes() == tuned[0].read_bytes()  # kept until there is a new one
    assert "going on after" in run(*long_tune(output), "--max-minutes", 0.02).stderr
    assert output.read_bytes() != tuned[0].read_bytes()


@pytest.mark.parametrize(
    "options",
    [
        ["--change-point", "auto", "--val", "0"],
        ["--covariance", "diagonal", "--bounds", "2"],
        ["--covariance", "identity", "--rho", "0"],
        ["--context-tokens", "2"],
        ["--views", "2"],
        ["--context-init", "an icon of"],
        ["--preset", "paper:dtd"],
        ["--patience", "2"],
    ],
    ids=" ".join,
)
def test_options_work(options: list[str], tmp_path: Path) -> None:
    result = tune(tmp_path / "p", *options, "--max-queries", 120)
    assert result["queries"] <= 120
    assert (result["val_accuracy"] is None) == ("--val" in options)
    prompt = json.loads(run("inspect", tmp_path / "p", "--json").stdout)
    assert prompt["context_shape"][0] == (2 if "--context-tokens" in options else len(prompt_words(options)))


def prompt_words(options: list[str]) -> list[str]:
    given = dict(zip(options[::2], options[1::2], strict=True))
    return given.get("--context-init", "a photo of a").split()


def test_the_preset_is_edge_unless_said_otherwise(tmp_path: Path) -> None:
    where = ("--bundle", BUNDLE, "--images", TRAIN, "--output", tmp_path / "p")
    planned = json.loads(run("tune", *where, "--plan", "--json").stdout)
    assert planned["queries"] == 8_000 > planned["likely_queries"] > 1_000
    assert planned["seconds"] > planned["likely_seconds"] > 0
    done = run("tune", *where, "--max-queries", 60, "--json")
    assert json.loads(done.stdout)["stopped"] == "no further step fits in its 60 queries"
    assert json.loads(run("inspect", tmp_path / "p", "--json").stdout)["settings"]["preset"] == "edge"


def test_a_folder_without_validation_pictures_gets_a_head(tmp_path: Path) -> None:
    """It is used, whatever the prompt; not for class names that it does not know."""
    path = tmp_path / "p"
    quick = ("tune", "--bundle", BUNDLE, "--images", TRAIN, "--max-queries", 200, "--val", 0, "--json")
    said = json.loads(run(*quick, "--output", path).stdout)
    assert said["use"] == "head" and said["head"]["val_accuracy"] is None
    assert said["left_out"]["head"] > said["left_out"]["words"] > 0.3
    assert said["left_out"]["prompt"] is said["left_out"]["both"] is None
    assert 0.3 < said["by_halves"] < 1 and "head" in said["plan"]["phases_mib"]
    assert all((TRAIN / each["image"]).is_file() for each in said["doubtful"]) and len(said["doubtful"]) == 10

    def evaluated(*more: object) -> tuple[dict, str]:
        done = run("eval", "--bundle", BUNDLE, "--images", TEST, "--prompt", path, "--json", *more)
        return json.loads(done.stdout), done.stderr

    found, _ = evaluated()
    assert found["use"] == "head" and found["accuracy"] == found["by"]["head"] > found["by"]["prompt"] + 0.1
    for use, accuracy in found["by"].items():
        assert evaluated("--use", use)[0]["accuracy"] == accuracy
    zero_shot = json.loads(run("eval", "--bundle", BUNDLE, "--images", TEST, "--json").stdout)
    assert zero_shot["by"] == {"words": found["by"]["words"], "prompt": None, "head": None, "both": None}
    names = ",".join(sorted(p.name.replace("_", " ") for p in TEST.iterdir()))
    other, told = evaluated("--classes", names)
    assert "the head knows only the classes" in told and other["use"] == "prompt"
    assert other["by"]["words"] == pytest.approx(found["by"]["words"], abs=0.01)
    assert other["by"]["head"] is other["by"]["both"] is None
    picture = next(TEST.rglob("*.png"))
    scores = [
        json.loads(
            run("predict", "--bundle", BUNDLE, "--prompt", path, picture, "--use", use, "--json").stdout
        )["predictions"][0]["scores"][0]
        for use in ("words", "prompt", "head", "both")
    ]
    assert len(set(scores)) == 4


def test_the_head_alone_costs_one_query(tmp_path: Path) -> None:
    path = tmp_path / "p"
    made = ("tune", "--bundle", BUNDLE, "--images", TRAIN, "--preset", "head", "--output", path, "--json")
    said = json.loads(run(*made).stdout)
    assert said["queries"] == 1 and said["use"] == "head" and said["left_out"]["prompt"] is None
    assert json.loads(run("inspect", path, "--json").stdout)["heads"].keys() == {"head"}
    done = run("eval", "--bundle", BUNDLE, "--images", TEST, "--prompt", path, "--json")
    by = json.loads(done.stdout)["by"]
    assert by["prompt"] is by["both"] is None and by["head"] > by["words"]
    names = ",".join(sorted(p.name.replace("_", " ") for p in TEST.iterdir()))
    done = run("eval", "--bundle", BUNDLE, "--images", TEST, "--prompt", path, "--classes", names, "--json")
    assert "the words are used" in done.stderr and json.loads(done.stdout)["by"]["prompt"] is None
    assert json.loads(run(*made).stdout) == said


def test_an_untuned_result_is_called_so(tmp_path: Path) -> None:
    done = run(*long_tune(tmp_path / "p"), "--max-queries", 20)
    assert "--max-queries 20 ends in stage 1" in done.stderr and "not tuned" in done.stderr
    assert "wrote " in done.stdout
    again = run(*long_tune(tmp_path / "p"), "--max-queries", 20).stdout
    assert "is finished already" in again and "wrote" not in again


def test_words_given_to_eval_win_over_the_prompts_folders(tuned: tuple[Path, dict], tmp_path: Path) -> None:
    a, b, *_ = sorted(p.name for p in TEST.iterdir())
    swap = tmp_path / "swap.json"
    swap.write_text(json.dumps({a: b.replace("_", " "), b: a.replace("_", " ")}))
    ours = ["eval", "--bundle", BUNDLE, "--images", TEST, "--prompt", tuned[0], "--json"]
    plain = json.loads(run(*ours).stdout)
    swapped = json.loads(run(*ours, "--class-names", swap).stdout)
    assert swapped["accuracy"] != plain["accuracy"]


def test_inspect_and_doctor(tuned: tuple[Path, dict]) -> None:
    assert "class" in run("inspect", tuned[0]).stdout
    bundle = json.loads(run("inspect", BUNDLE, "--json").stdout)
    prompt = json.loads(run("inspect", tuned[0], "--json").stdout)
    assert prompt["bundle"] == bundle["checksum"]
    assert "every checksum is right" in run("doctor", "--bundle", BUNDLE).stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["tune", "--bundle", "nowhere"], ["No bundle at nowhere", "sharpzo-edge export"]),
        (["tune", "--images", "nowhere"], ["nowhere cannot be read", "--images"]),
        (["tune", "--preset", "papyrus"], ["papyrus", "--preset edge"]),
        (["tune", "--head", "svm"], ["--head svm", "auto, kernel, ridge, gda, none", "--head auto"]),
        (["tune", "--preset", "head", "--head", "none"], ["nothing but a head", "Leave --head out"]),
        (["tune", "--preset", "head", "--rank", "3"], ["--rank 3", "tunes nothing", "--preset edge"]),
        (["tune", "--preset", "head", "--max-queries", "9"], ["--max-queries 9", "tunes nothing"]),
        (["tune", "--views", "0"], ["--views 0", "1 or more"]),
        (["tune", "--max-minutes", "inf"], ["--max-minutes inf", "not a finite number", "--max-minutes 1"]),
        (["tune", "--checkpoint-seconds", "nan"], ["--checkpoint-seconds nan", "not a finite number"]),
        (["tune", "--shots", "0"], ["--shots 0", "1 or more"]),
        (["tune", "--threads", "9999999"], ["--threads 9999999", "--threads 0"]),
        (["tune", "--preset", "paper", "--bounds", "wide"], ["--bounds wide", "--bounds 5"]),
        (["tune", "--change-point", "soon"], ["--change-point soon", "auto"]),
        (["tune", "--population", "1"], ["population", "at least 4"]),
        (["tune", "--context-tokens", "99"], ["--context-tokens 99", "From 1 to 73"]),
        (["tune", "--context-init", "a b c", "--context-tokens", "3"], ["exclude each other"]),
        (["tune", "--output", "/proc/nowhere/p"], ["/proc/nowhere", "--output"]),
        (["demo", "--task", "none"], ["--task none", DEFAULT_TASK]),
        (["eval", "--prompt", str(BUNDLE / "manifest.json")], ["not a tuned prompt"]),
        (["inspect", "nowhere"], ["There is nothing at nowhere", "Check the path"]),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else None,
)
def test_errors_say_what_is_wrong_and_what_to_type(
    arguments: list[str], says: list[str], tmp_path: Path
) -> None:
    given = {"--bundle": str(BUNDLE), "--images": str(TRAIN), "--output": str(tmp_path / "p")}
    command = arguments[0]
    if command == "eval":
        del given["--output"]
    if command in ("demo", "inspect"):
        given = {}
    missing = [v for k, v in given.items() if k not in arguments for v in (k, given[k])]
    done = run(*arguments, *missing, "--json", code=2)
    error = json.loads(done.stdout)["error"]
    assert error["exit_code"] == 2 and error["kind"].endswith("Error")
    for words in says:
        assert words in error["message"] and words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "p").exists()


def test_export_without_torch_says_what_to_install() -> None:
    try:
        import torch  # noqa: F401
    except ImportError:
        error = run("export", "--model", "RN50", "--output", "x", code=2).stderr
        assert "pip install '.[export]'" in error
    else:
        pytest.skip("torch is installed here")


def test_debug_shows_the_traceback() -> None:
    assert "Traceback" in run("inspect", "nowhere", code=2, SHARPZO_DEBUG="1").stderr


def test_on_the_demo_task_each_stage_lowers_the_loss(tmp_path: Path) -> None:
    done = run(*long_tune(tmp_path / "p"), "--json")
    result = json.loads(done.stdout)
    (after_stage1,) = re.findall(r"stage 1 ends: .* loss ([0-9.]+)", done.stderr)
    assert result["train_loss"] < float(after_stage1) < result["zero_shot_train_loss"]


@pytest.mark.oldest_onnxruntime
def test_the_demo_gains_ten_points_within_its_promises() -> None:
    result = json.loads(run("demo", "--json").stdout)
    assert result["tuned_accuracy"] >= result["zero_shot_accuracy"] + 0.10
    assert min(result["stage1_queries"], result["stage2_queries"]) > 0
    assert result["peak_rss_mib"] <= 128  # what the product promises


def test_many_classes_are_names_and_not_a_file_with_a_long_name(tmp_path: Path) -> None:
    names = [f"class number {i}" for i in range(60)]
    assert cli.class_list(",".join(names)) == names
    (tmp_path / "names").write_text("\n".join(names))
    assert cli.class_list(str(tmp_path / "names")) == names
    (tmp_path / "names").write_bytes(b"x" * (cli.NAMES_LIMIT_BYTES + 1))
    with pytest.raises(UsageError, match="more than"):
        cli.class_list(str(tmp_path / "names"))
