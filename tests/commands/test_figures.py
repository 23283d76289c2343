"""What doctor --bench measures, and how it is told."""

import dataclasses
import json

import pytest

from sharpzo_edge import preview
from sharpzo_edge.clip.class_prompts import class_prompts
from sharpzo_edge.commands import figures
from sharpzo_edge.commands.figures import figures_of
from sharpzo_edge.demo import BUNDLE
from sharpzo_edge.printing import figures_lines, preview_lines
from sharpzo_edge.storage import MOST_BYTES, reading_speed
from support.processes import run


def test_a_bundle_is_measured_on_this_machine(bundle, monkeypatch, tmp_path):
    board, hot = tmp_path / "model", tmp_path / "temp"
    board.write_bytes(b"Raspberry Pi 5 Model B Rev 1.0\0")
    hot.write_text("61234\n")
    monkeypatch.setattr(figures, "DEVICE_TREE", board)
    monkeypatch.setattr(figures, "TEMPERATURE", hot)
    found = figures_of(bundle, seconds=0.0)
    assert found.board == "Raspberry Pi 5 Model B Rev 1.0" and found.celsius_before == 61.234
    for measured in (found.query_seconds, found.picture_seconds, found.read_bytes_a_second, found.cores):
        assert measured > 0
    assert found.bundle == bundle.checksum and found.planned_mib == pytest.approx(
        found.plan["peak_mib"], abs=0.1
    )
    assert json.loads(json.dumps(found.to_json()))["model"] == "demo"
    table = "\n".join(figures_lines(found))
    assert "61 °C" in table and "Raspberry Pi 5" in table


def test_what_a_machine_does_not_tell_is_said(bundle, monkeypatch, tmp_path):
    for name in ("DEVICE_TREE", "TEMPERATURE"):
        monkeypatch.setattr(figures, name, tmp_path / "none")
    assert figures.board_name() is None and figures.celsius() is None
    assert "not told" in "\n".join(figures_lines(figures_of(bundle, seconds=0.0)))


@pytest.fixture(scope="module")
def figures_file(bundle, tmp_path_factory):
    """A board's, with figures that are easy to reckon with."""
    found = figures_of(bundle, seconds=0.0)
    slow = dataclasses.replace(
        found, board="Pi Zero", query_seconds=2.0, direction_seconds=1.0, picture_seconds=10.0
    )
    path = tmp_path_factory.mktemp("figures") / "zero.json"
    path.write_text(json.dumps({"ok": True, "figures": slow.to_json()}))
    return path


def test_a_forecast_goes_by_a_boards_figures(bundle, images, figures_file, tmp_path):
    """In proportion to the rows of a pass; pictures and queries are those of the command."""
    asked = {"bundle": bundle.folder, "images": images, "output": tmp_path / "prompt"}
    found = preview(**asked, figures=figures_file, max_queries=100, tangents="none")
    n_context, rows = 4, json.loads(figures_file.read_text())["figures"]["query_rows"]
    names = [folder.name.replace("_", " ") for folder in images.iterdir()]
    share = class_prompts(bundle, names, n_context).n_rows / rows
    assert found.board == "Pi Zero" and found.pictures_per_second == 0.1
    assert found.queries_per_second == pytest.approx(0.5 / share) and share < 0.5
    assert found.seconds == pytest.approx(10 * found.pictures + 100 / found.queries_per_second)
    assert preview(**asked, figures=figures_file, max_queries=100).seconds < found.seconds
    assert "by figures of Pi Zero" in "\n".join(preview_lines(found))


def test_figures_that_do_not_fit_are_refused(bundle, images, figures_file, tmp_path):
    other = tmp_path / "other.json"
    figures = json.loads(figures_file.read_text())["figures"]
    other.write_text(json.dumps(figures | {"bundle": "0" * 64}))
    asked = ("tune", "--bundle", bundle.folder, "--images", images, "--output", tmp_path / "prompt")
    assert "of another bundle" in run(*asked, "--plan", "--figures", other, code=2).stderr
    assert "with --plan" in run(*asked, "--figures", figures_file, code=2).stderr
    assert "No such file" in run(*asked, "--plan", "--figures", tmp_path / "none", code=2).stderr
    for text in ("[]", "{", json.dumps(figures | {"query_rows": 0}), json.dumps({"board": "Pi"})):
        other.write_text(text)
        assert "holds no figures of a board" in run(*asked, "--plan", "--figures", other, code=2).stderr


def test_there_must_be_a_bundle_to_measure():
    assert "--bench measures a bundle" in run("doctor", "--bench", code=2).stderr


def test_reading_is_timed_on_files_of_any_size(tmp_path):
    for name, n_bytes in (("small", 10), ("empty", 0), ("large", MOST_BYTES + 5)):
        (tmp_path / name).write_bytes(bytes(n_bytes))
        assert reading_speed(tmp_path / name).bytes_a_second >= 0
    with pytest.raises(OSError, match="No such file"):
        reading_speed(tmp_path / "none")
    assert reading_speed(BUNDLE / "text.data").bytes_a_second > 0
