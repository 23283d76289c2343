"""A journal holds whole records of one form, or fewer of them."""

from __future__ import annotations

from pathlib import Path

from sharpzo_edge.run.journal import Journal


def test_records_of_another_form_are_cut_off(tmp_path: Path) -> None:
    """Though their checksums are right."""
    path = tmp_path / "journal"
    for number, record in enumerate((b"four", b"fore", b"fi", b"last")):
        with Journal(path, "a" * 64, 9, 30) as journal:
            assert len(journal) == number
            journal.append(record)
    with Journal(path, "a" * 64, 9, 30, lambda _, record: len(record) == 4) as journal:
        assert [journal[i] for i in range(len(journal))] == [b"four", b"fore"]


def test_records_that_are_cut_off_are_gone(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path, "a" * 64, 9, 30) as journal:
        for record in (b"one", b"two", b"three"):
            journal.append(record)
        journal.cut(1)
        assert len(journal) == 1
        journal.append(b"four")
    with Journal(path, "a" * 64, 9, 30) as journal:
        assert [journal[i] for i in range(len(journal))] == [b"one", b"four"]
        journal.cut(0)
    assert path.stat().st_size == 0
