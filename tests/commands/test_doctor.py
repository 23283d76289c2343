"""The doctor finds what is wrong, and survives it."""

import os
import signal
import sys

import pytest

from sharpzo_edge import process_memory
from sharpzo_edge.commands.doctor import doctor


def by_name(checks):
    return {check.name: check for check in checks}


@pytest.mark.oldest_onnxruntime
def test_a_machine_that_runs_these_tests_is_well(bundle):
    checks = doctor(bundle.folder)
    assert list(by_name(checks)) == ["64-bit", "Python", "onnxruntime", "free memory", "bundle"]
    assert [check for check in checks if not check.ok] == []
    assert [check.name for check in doctor(None)] == [check.name for check in checks[:-1]]


def test_a_flipped_bit_is_found(bundle_copy):
    path = bundle_copy.folder / "text.data"
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    check = by_name(doctor(bundle_copy.folder))["bundle"]
    assert not check.ok and "text.data" in check.found


def test_no_bundle_is_a_check_that_fails(tmp_path):
    check = by_name(doctor(tmp_path / "missing"))["bundle"]
    assert not check.ok and "sharpzo-edge export" in check.found


@pytest.fixture
def python(tmp_path, monkeypatch):
    """Another interpreter for the doctor's child: a shell script of one line."""

    def use(line):
        script = tmp_path / "python"
        script.write_text(f"#!/bin/sh\n{line}\n")
        script.chmod(0o755)
        if not os.access(script, os.X_OK):
            pytest.skip("the temporary folder is on a disk whose files cannot be run")
        monkeypatch.setattr(sys, "executable", str(script))
        return by_name(doctor(None))["onnxruntime"]

    return use


def test_an_illegal_instruction_is_told_in_words(python):
    check = python(f"kill -{int(signal.SIGILL)} $$")
    assert not check.ok
    assert "illegal instruction" in check.found and "pip install" in check.found


@pytest.mark.parametrize("number", [int(signal.SIGSEGV), signal.SIGRTMIN + 1])
def test_any_other_death_is_told_too(python, number):
    check = python(f"kill -{number} $$")
    assert not check.ok and "import dies with" in check.found


def test_an_import_that_fails_gives_its_last_line(python):
    check = python("echo Traceback >&2; echo 'ImportError: libfoo.so' >&2; exit 1")
    assert not check.ok and "ImportError: libfoo.so" in check.found
    assert not python("exit 1").ok


def test_an_interpreter_that_is_not_there_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "missing"))
    assert not by_name(doctor(None))["onnxruntime"].ok


@pytest.mark.parametrize("text", ["MemTotal: 5 kB\n", "", "no colon at all\n"])
def test_a_system_that_does_not_tell_its_memory_is_no_error(monkeypatch, text):
    monkeypatch.setattr(process_memory.Path, "read_text", lambda path: text)
    assert process_memory.available_mib() is None
    assert by_name(doctor(None))["free memory"].ok
