"""What doctor --bench measures, and how it is told."""

import json

import pytest

from sharpzo_edge.commands import figures
from sharpzo_edge.commands.figures import figures_of
from sharpzo_edge.demo import BUNDLE
from sharpzo_edge.printing import figures_lines
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


def test_there_must_be_a_bundle_to_measure():
    assert "--bench measures a bundle" in run("doctor", "--bench", code=2).stderr


def test_reading_is_timed_on_files_of_any_size(tmp_path):
    for name, n_bytes in (("small", 10), ("empty", 0), ("large", MOST_BYTES + 5)):
        (tmp_path / name).write_bytes(bytes(n_bytes))
        assert reading_speed(tmp_path / name).bytes_a_second >= 0
    with pytest.raises(OSError, match="No such file"):
        reading_speed(tmp_path / "none")
    assert reading_speed(BUNDLE / "text.data").bytes_a_second > 0
