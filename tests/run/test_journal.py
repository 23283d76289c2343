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
