"""The report: its figures are the result's, it loads nothing, and nothing in a name becomes markup."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import sharpzo_edge
from sharpzo_edge.demo import BUNDLE, TASKS
from sharpzo_edge.errors import BudgetError, InterruptedRunError, UsageError
from sharpzo_edge.report.answered import Answered, load_answered
from sharpzo_edge.report.data import Report
from sharpzo_edge.report.figures import MOST_CLASSES, report_of
from sharpzo_edge.report.groups import grouped
from sharpzo_edge.report.judged import MOST_CELLS, MOST_WORST
from sharpzo_edge.report.process import PROCESS_MIB
from sharpzo_edge.report.render import PARTS, render, render_part
from sharpzo_edge.report.source import Source, source_of_tune
from sharpzo_edge.report.thumbnails import MOST_BYTES, with_thumbnails
from sharpzo_edge.requests import EvaluateRequest, TuneRequest, typed
from sharpzo_edge.run.folder import WorkFolder
from sharpzo_edge.wording import percent
from support.pages import Page, flat
from support.processes import finish, run, start

TRAIN, TEST = TASKS / "subgroups" / "train", TASKS / "subgroups" / "test"
MOST_MIB = 3  # what is promised of a report
HOSTILE = "<script>alert(1)</script>\"'&<img src=x onerror=alert(2)>{{ 7 * 191 }}\u202e"


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished tune with its report."""
    output = tmp_path_factory.mktemp("tuned") / "prompt.safetensors"
    command = ["tune", "--bundle", BUNDLE, "--images", TRAIN, "--output", output, "--report", "--json"]
    result = run(*command, "--max-queries", 500, "--threads", 1).stdout
    (output.parent / "result.json").write_text(result, encoding="utf-8")
    return output


def page_of(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def evaluation(names: list[str], labels: list[int], answers: list[int]) -> Source:
    """Of pictures that have such labels and answers, the later the surer."""
    n = len(labels)
    scores = [(i + 1) / (n + 1) for i in range(n)]
    files = [f"{names[label]}/{i}.png" for i, label in enumerate(labels)]
    right = sum(a == b for a, b in zip(labels, answers, strict=True)) / n
    answered = Answered(
        "head", names, files, labels, answers, scores, [1 - s for s in scores], [True] * n, [True] * n
    )
    by = {"words": 0.25, "prompt": None, "head": right, "both": None}
    result = {"use": "head", "by": by, "n_images": n, "n_classes": len(names), "accuracy": right}
    return Source(
        "eval", "photos", result, answered=answered, command="sharpzo-edge eval", versions={"a": "1"}
    )


# Figures ------------------------------------------------------------------------------------------


def test_every_figure_is_the_results(tuned: Path) -> None:
    """From the file alone, beside what the command printed and what the run's log says."""
    page = page_of(WorkFolder.of(tuned).report)
    shown = {place: json.loads(f.value) for place, f in page.figures.items() if place != "facts.stopped"}
    result = json.loads((tuned.parent / "result.json").read_text(encoding="utf-8"))
    for column in ("left_out", "validated"):
        for use, value in result[column].items():
            assert shown.get(f"ways.{use}.{column}.value") == value
    assert shown["headline.left_out.value"] == result["left_out"][result["use"]]
    for name in ("queries", "seconds", "peak_rss_mib"):
        assert shown[f"facts.{name}"] == result[name]
    assert page.figures["facts.stopped"].value == result["stopped"]
    assert shown["curve.best_queries"] == result["best_queries"]
    assert shown["curve.stage2_queries"] == result["queries"] - result["stage2_queries"]
    assert shown["memory.peak_mib"] == result["plan"]["peak_mib"]
    planned = [value for place, value in shown.items() if place.endswith("planned_mib")]
    assert sorted(planned) == sorted(result["plan"]["phases_mib"].values())
    log = WorkFolder.of(tuned).log.read_text(encoding="utf-8").splitlines()
    looks = [event for event in map(json.loads, log) if event["event"] == "look"]
    for i, look in enumerate(looks):
        found = {name: shown[f"curve.looks.{i}.{name}"] for name in ("queries", "seconds")}
        assert found == {name: look[name] for name in found}
        for part in ("train", "val"):
            for name, value in look[part].items():
                assert shown[f"curve.looks.{i}.{part}_{name}"] == value
    assert f"curve.looks.{len(looks)}.queries" not in shown


def test_classes_and_mistakes_are_those_of_the_answers(tuned: Path) -> None:
    answered = load_answered(WorkFolder.of(tuned).answers)
    assert answered is not None
    counts = Counter((answered.labels[n], answered.answers[n]) for n in answered.measured)
    page = page_of(WorkFolder.of(tuned).report)
    for i, row in enumerate(range(len(answered.names))):
        for j, column in enumerate(range(len(answered.names))):
            found = page.figures.get(f"confusion.counts.{i}.{j}")
            assert (int(found.value) if found else 0) == counts[row, column]
    report = report_of(source_of_tune(tuned))
    by_class = {each.name: (each.right, each.pictures) for each in report.classes}
    for k, name in enumerate(answered.names):
        size = sum(count for (label, _), count in counts.items() if label == k)
        assert by_class[name] == (counts[k, k], size)
    # Every class weighs alike in what the result says.
    mean = sum(right / n for right, n in by_class.values()) / len(by_class)
    assert report.headline and report.headline.left_out
    assert report.headline.left_out.value == pytest.approx(mean)
    assert report.n_wrong == sum(n for (label, answer), n in counts.items() if label != answer)


def test_sureness_is_counted_by_probability() -> None:
    """Ten answers that say 1/11 to 10/11 of themselves, the four least sure of them wrong."""
    report = report_of(evaluation(["a", "b"], [0] * 10, [1] * 4 + [0] * 6))
    found = [(each.low, each.high, each.right.pictures, each.right.value) for each in report.sureness]
    assert found == [
        (0.0, 0.3, 3, 0.0),
        (0.3, 0.5, 2, 0.5),
        (0.5, 0.7, 2, 1.0),
        (0.7, 0.9, 2, 1.0),
        (0.9, 1.0, 1, 1.0),
    ]
    assert report.sureness[0].said == pytest.approx(2 / 11)
    assert report.none is None


def test_the_report_says_what_is_called_none(tuned: Path) -> None:
    result = json.loads((tuned.parent / "result.json").read_text(encoding="utf-8"))["none"]
    figures = page_of(WorkFolder.of(tuned).report).figures
    assert {name: json.loads(figures[f"none.{name}"].value) for name in result} == result
    assert result["called_none"] <= result["share"] == 0.05 and result["classes"] == 10


def test_what_is_read_is_the_value(tuned: Path) -> None:
    """Every figure is of the report's data, and its text is that value, rounded."""
    leaves = flat(report_of(source_of_tune(tuned)).to_json())
    figures = page_of(WorkFolder.of(tuned).report).figures
    assert len(figures) > 200
    for place, figure in figures.items():
        value = leaves.get(place, leaves.get(f"{place}.value"))
        assert value is not None and figure.value == str(value), place
        if figure.text.endswith("%"):
            assert figure.text in (percent(value), percent(value, 0)), place
        elif re.fullmatch(r"[\d,.]+( (MiB|×|pictures?))?", figure.text):
            number = figure.text.split()[0].replace(",", "")
            assert abs(float(number) - value) <= 0.5 * 10.0 ** -len(number.partition(".")[2]), place


def test_an_evaluations_report_is_of_its_result(tmp_path: Path, tuned: Path) -> None:
    target = tmp_path / "report.html"
    more = ["--prompt", tuned, "--strangers", TEST / "sport", "--report", target, "--json", "--threads", 1]
    result = json.loads(run("eval", "--bundle", BUNDLE, "--images", TEST, *more).stdout)
    page = page_of(target)
    for use, value in result["by"].items():
        found = page.figures.get(f"ways.{use}.tested.value")
        assert (found and json.loads(found.value)) == value
    assert json.loads(page.figures["facts.n_images"].value) == result["n_images"]
    assert {name: json.loads(page.figures[f"none.{name}"].value) for name in result["none"]} == result["none"]
    accuracies = {place: f.value for place, f in page.figures.items() if place.endswith(".accuracy")}
    assert sorted(map(float, accuracies.values())) == sorted(result["per_class"].values())
    assert sum(tag == "img" for tag, _ in page.elements) > 5


def test_a_log_of_several_processes_is_one_curve(tmp_path: Path) -> None:
    """A run that went on repeats what came after its checkpoint; --restart throws the run before away."""
    score = {"loss": 1.0, "accuracy": 0.5}

    def look(queries: int) -> dict[str, Any]:
        return {
            "event": "look",
            "where": "x",
            "queries": queries,
            "seconds": 1.0,
            "train": score,
            "val": None,
        }

    begun = {"event": "begun", "is_new": True, "command": "c", "versions": {}}
    first = [begun, look(2), look(10), look(900)]
    second = [begun, look(2), look(20), look(30), begun | {"is_new": False}, look(20), look(40)]
    work = WorkFolder.of(tmp_path / "p")
    work.make()
    lines = [json.dumps(event) for event in first + second]
    work.log.write_text("\n".join([*lines, '{"event": "look", "qu']), encoding="utf-8")
    report = report_of(source_of_tune(tmp_path / "p"))
    assert report.curve and [each.queries for each in report.curve.looks] == [2, 20, 40]
    assert not report.is_finished and "still at work" in render(report)


def test_the_command_could_be_typed() -> None:
    asked = TuneRequest("b", "my photos", Path("p"), seed=3, strict=True, memory_budget="128MiB")
    words = "sharpzo-edge tune --bundle b --images 'my photos' --output p --seed 3 --strict"
    assert typed("tune", asked) == words
    of_a_program = EvaluateRequest("b", "i", classes=["a", "b c"])  # no budget: the command line has one
    assert typed("eval", of_a_program).endswith("--classes 'a,b c' --memory-budget none")


# What is in a file --------------------------------------------------------------------------------


def test_a_report_loads_nothing(tuned: Path) -> None:
    page = page_of(WorkFolder.of(tuned).report)
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form", "a")
        assert "style" not in attributes and not [name for name in attributes if name.startswith("on")]
        assert all(attributes.get(name, "data:").startswith("data:") for name in ("src", "href", "srcset"))
    assert not re.search(r"https?://|url\(|@import", page.html)
    (policy,) = (a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    for tag in ("style", "script"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page.html, re.DOTALL)
        assert base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in policy


def test_a_hostile_name_is_text_everywhere() -> None:
    names = [f"{HOSTILE}{i}" for i in range(3)]
    source = dataclasses.replace(
        evaluation(names, [0, 0, 1, 2], [1, 1, 2, 2]),
        title=HOSTILE,
        command=HOSTILE,
        versions={HOSTILE: HOSTILE},
    )
    page = Page(render(report_of(source)))
    tags = Counter(tag for tag, _ in page.elements)
    assert tags["script"] == 1 and tags["img"] == 0
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert "1337" not in page.text and page.text.count("<script>alert(1)</script>") > 10
    assert names[0] in {attributes.get("data-label") for _, attributes in page.elements}


@pytest.mark.parametrize("n_classes", [40, 41, 3000])
def test_a_report_stays_small_whatever_there_is(n_classes: int) -> None:
    """As many pictures, as long and as hostile names as there can be."""
    names = [f"{'&' * 250}{k}" for k in range(n_classes)]
    labels = [k for k in range(n_classes) for _ in range(40)]
    answers = [(label + i % 7) % n_classes for i, label in enumerate(labels)]
    source = evaluation(names, labels, answers)
    report = report_of(dataclasses.replace(source, command="&" * 10**6))
    assert report.confusion and len(report.confusion.names) <= MOST_CELLS
    assert len(report.classes) <= MOST_CLASSES and len(report.worst) == MOST_WORST
    longest = f"data:image/jpeg;base64,{'A' * (MOST_BYTES * 4 // 3 + 4)}"
    seen = tuple(dataclasses.replace(each, thumbnail=longest) for each in report.worst)
    html = render(dataclasses.replace(report, worst=seen, doubtful=seen[:10]))
    assert len(html.encode()) < MOST_MIB << 20
    assert sum(map(sum, report.confusion.counts)) == len(labels)


@pytest.mark.parametrize("n_classes", [41, 60, 100, 397, 1000, 2001])
def test_groups_hold_every_class_once(n_classes: int) -> None:
    counts = {(k, k * 7 % n_classes): k % 5 + 1 for k in range(n_classes)}
    groups = grouped(n_classes, counts, MOST_CELLS)
    assert len(groups) <= MOST_CELLS
    assert sorted(k for group in groups for k in group) == list(range(n_classes))


def test_classes_that_are_confused_share_a_group() -> None:
    groups = grouped(60, {(3, 50): 9, (50, 3): 1, (20, 21): 5, (7, 7): 90}, MOST_CELLS)
    for pair in ((3, 50), (20, 21)):
        assert any(set(pair) <= set(group) for group in groups)


def test_each_part_stands_alone(tuned: Path) -> None:
    """For a page that shows them one by one."""
    report = report_of(source_of_tune(tuned))
    for name in PARTS:
        assert re.match(r"<(section|header) id=", str(render_part(report, name))), name
    nothing = report_of(Source("tune", "p", None))
    assert [name for name in PARTS if render_part(nothing, name)] == ["summary"]


def test_figures_are_made_without_a_library() -> None:
    code = (
        "import sharpzo_edge.report.source, sharpzo_edge.report.figures, sharpzo_edge.report.charts, sys;"
        "print(*{'numpy', 'jinja2', 'PIL', 'onnxruntime'} & {*sys.modules})"
    )
    assert finish([sys.executable, "-c", code]).stdout == "\n"


# Thumbnails ---------------------------------------------------------------------------------------


def seen(folder: Path, name: str) -> tuple[Image.Image | None, str]:
    report = report_of(evaluation(["a", "b"], [0], [1]))
    (picture,) = with_thumbnails(
        dataclasses.replace(report, worst=(dataclasses.replace(report.worst[0], image=name),)), folder, 1e8
    ).worst
    if picture.thumbnail is None:
        return None, picture.why_none
    data = base64.b64decode(picture.thumbnail.removeprefix("data:image/jpeg;base64,"))
    assert len(data) <= MOST_BYTES
    return Image.open(BytesIO(data)), ""


def test_a_thumbnail_is_upright_small_and_on_white(tmp_path: Path) -> None:
    turned = Image.new("RGB", (400, 200), "red")
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    Image.new("RGBA", (60, 30), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.effect_noise((900, 900), 200).save(tmp_path / "noise.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "noise.png").read_bytes()[:500])
    found, _ = seen(tmp_path, "turned.jpg")
    assert found and found.size == (88, 176)
    clear, _ = seen(tmp_path, "clear.png")
    assert clear and clear.size == (60, 30) and clear.getpixel((5, 5)) == (255, 255, 255)
    noise, _ = seen(tmp_path, "noise.png")
    assert noise and noise.size == (176, 176)
    assert seen(tmp_path, "torn.png") == (None, "truncated or damaged")
    assert seen(tmp_path, "../gone.png") == (None, "no such file")


# When it is made ----------------------------------------------------------------------------------


def quick(output: Path, **options: Any) -> sharpzo_edge.TuneResult:
    return sharpzo_edge.tune(BUNDLE, options.pop("images"), output, preset="head", threads=1, **options)


def test_without_the_extra_it_is_left_out(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And asked for, it is refused before the work."""
    monkeypatch.setattr("sharpzo_edge.report.process.can_report", lambda: False)
    with pytest.raises(UsageError, match=r"--report needs the extra \[page\].* pip install '.\[page\]'"):
        quick(tmp_path / "p", images=images, report=True)
    assert not (tmp_path / "p.work").exists()
    with pytest.raises(UsageError, match="pip install"):
        sharpzo_edge.evaluate(BUNDLE, images, report=tmp_path / "r.html")
    quick(tmp_path / "p", images=images)
    assert not WorkFolder.of(tmp_path / "p").report.exists()


def test_a_finished_run_gets_its_report_later(tmp_path: Path, images: Path) -> None:
    first = quick(tmp_path / "p", images=images)
    before = (tmp_path / "p").read_bytes()
    assert quick(tmp_path / "p", images=images, report=True) == first
    assert WorkFolder.of(tmp_path / "p").report.exists()
    assert (tmp_path / "p").read_bytes() == before


def test_a_budget_without_room_is_refused_first(tmp_path: Path, images: Path) -> None:
    output = tmp_path / "p"
    words = ["tune", "--bundle", BUNDLE, "--images", images, "--output", output, "--preset", "head"]
    refused = run(*words, "--memory-budget", "100MiB", "--report", code=3).stderr
    needed = re.findall(r"type the command again with --memory-budget (\d+MiB)", refused)
    assert not output.exists() and len(needed) == 1
    run(*words, "--memory-budget", "100MiB")  # it is left out
    assert not WorkFolder.of(output).report.exists()
    run(*words, "--memory-budget", needed[0], "--report", "--restart")
    assert WorkFolder.of(output).report.exists()


def test_only_a_report_is_replaced(tmp_path: Path, images: Path) -> None:
    target = tmp_path / "photo.jpg"
    target.write_bytes(b"a photo")
    with pytest.raises(UsageError, match="is no report"):
        sharpzo_edge.evaluate(BUNDLE, images, report=target)
    assert target.read_bytes() == b"a photo"
    with pytest.raises(UsageError, match="Make the folder"):
        sharpzo_edge.evaluate(BUNDLE, images, report=tmp_path / "none" / "r.html")
    with pytest.raises(UsageError, match="cannot be written"):
        sharpzo_edge.evaluate(BUNDLE, images, report=tmp_path)
    for _ in range(2):
        sharpzo_edge.evaluate(BUNDLE, images, report=tmp_path / "r.html", threads=1)


def test_a_name_that_is_not_utf_8_is_shown(tmp_path: Path, images: Path) -> None:
    photos = tmp_path / "photos"
    for name in ("cat", "dog"):
        (photos / name).mkdir(parents=True)
        picture = next(each for each in images.rglob("*.png"))
        shutil.copy(picture, os.fsencode(photos / name) + b"/\xff.png")  # one of the two is wrong
    sharpzo_edge.evaluate(BUNDLE, photos, report=tmp_path / "r.html", threads=1)
    page = page_of(tmp_path / "r.html")
    assert "\\udcff.png" in page.text and sum(tag == "img" for tag, _ in page.elements) == 1
    quick(tmp_path / "p", images=photos, report=True)
    assert "\\xff.png" in page_of(WorkFolder.of(tmp_path / "p").report).text


def test_a_report_that_fails_takes_nothing_along(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The prompt is there; only who asked for the report is told by an error."""
    quick(tmp_path / "p", images=images)
    WorkFolder.of(tmp_path / "p").report.mkdir()
    with pytest.raises(sharpzo_edge.SharpzoError, match=r"report.html was not made; .* Cannot write"):
        quick(tmp_path / "p", images=images, report=True)
    assert (tmp_path / "p").exists()
    said: list[str] = []
    work = WorkFolder.of(tmp_path / "p")
    work.report.rmdir()
    monkeypatch.setattr("sharpzo_edge.commands.reports.can_report", lambda: True)
    work.log.write_text('{"event": "look"}\n', encoding="utf-8")
    quick(tmp_path / "p", images=images, on_progress=lambda progress: said.append(progress.text))
    assert any(re.match("note: .*The run's files cannot be read", line) for line in said)


def test_a_stop_ends_the_child(tmp_path: Path, images: Path) -> None:
    news: list[str] = []
    quick(tmp_path / "p", images=images)
    with pytest.raises(InterruptedRunError, match="All but the report is complete"):
        quick(
            tmp_path / "p",
            images=images,
            report=True,
            on_progress=lambda progress: news.append(progress.text),
            stop=lambda: "writing the report" in news,
        )
    assert not WorkFolder.of(tmp_path / "p").report.exists()


def test_pictures_that_have_gone_are_said(tmp_path: Path, images: Path) -> None:
    copied = tmp_path / "photos"
    shutil.copytree(images, copied)
    quick(tmp_path / "p", images=copied)
    work = WorkFolder.of(tmp_path / "p")
    answered = load_answered(work.answers)
    assert answered
    wrong = dataclasses.replace(answered, answers=[1 - label for label in answered.labels])
    report = report_of(dataclasses.replace(source_of_tune(tmp_path / "p"), answered=wrong))
    shutil.rmtree(copied)
    gone = with_thumbnails(report, copied, 1e8)
    assert {picture.why_none for picture in gone.worst} == {"no such file"}
    assert "no such file" in render(gone)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks are read from /proc")
def test_the_child_keeps_to_what_is_reckoned(tuned: Path, tmp_path: Path) -> None:
    code = (
        "import json, sys; from sharpzo_edge.report import child; from sharpzo_edge.process_memory import *;"
        "child.govern(); child.write(json.loads(sys.argv[1])); print(peak_rss_mib())"
    )
    target = str(tmp_path / "r.html")
    job = {"target": target, "images": str(TRAIN), "decoding_bytes": 0, "tuned": str(tuned), "report": None}
    job["decoding_bytes"] = 12 << 20
    done = finish([sys.executable, "-c", code, json.dumps(job)], OPENBLAS_NUM_THREADS="1")
    assert float(done.stdout) <= PROCESS_MIB + 12


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="sizes are read from /proc")
def test_both_processes_keep_to_the_budget(tmp_path: Path) -> None:
    output = tmp_path / "p"
    words = [
        "tune",
        "--bundle",
        BUNDLE,
        "--images",
        TRAIN,
        "--output",
        output,
        "--preset",
        "head",
        "--report",
    ]
    most = {}
    with start([sys.executable, "-m", "sharpzo_edge", *words]) as process:
        while process.poll() is None:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            with contextlib.suppress(OSError, ValueError, KeyError):
                sizes = [rss_mib(int(pid)) for pid in (process.pid, *children.read_text().split())]
                most[len(sizes)] = max(sum(sizes), most.get(len(sizes), 0.0))
            time.sleep(0.003)
    assert process.returncode == 0 and WorkFolder.of(output).report.exists()
    assert 0 < most[2] <= 128  # what the product promises


def rss_mib(pid: int) -> float:
    (found,) = re.findall(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found) / 1024


def test_a_report_of_json_is_the_same() -> None:
    """What an evaluation gives to its child."""
    from sharpzo_edge.run.typed_json import read_dataclass

    report = report_of(evaluation(["a", "b"], [0, 1, 1], [1, 1, 0]))
    assert read_dataclass(Report, json.loads(json.dumps(report.to_json()))) == report


def test_a_library_budget_without_room_is_an_error(tmp_path: Path, images: Path) -> None:
    with pytest.raises(BudgetError, match="too small for --report"):
        sharpzo_edge.evaluate(BUNDLE, images, report=tmp_path / "r.html", memory_budget="60MiB")
