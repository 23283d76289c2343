"""The doctor finds what is wrong, and survives it."""

import os
import signal
import sys

import pytest

from sharpzo_edge import libraries, machine
from sharpzo_edge.commands import board
from sharpzo_edge.commands import doctor as doctor_module
from sharpzo_edge.commands.doctor import doctor
from sharpzo_edge.printing import doctor_lines

LIBRARIES = ["numpy", "onnxruntime", "Pillow", "safetensors"]


def by_name(checks):
    return {check.name: check for check in checks}


@pytest.mark.oldest_onnxruntime
def test_a_machine_that_runs_these_tests_is_well(bundle):
    checks = doctor(bundle.folder)
    machine = ["processor", "pages", "free memory", "power", "demo fits"]
    of_bundle = ["bundle", "storage", "bundle fits"]
    assert list(by_name(checks)) == ["64-bit", "Python", *LIBRARIES, *machine, *of_bundle]
    assert [check for check in checks if not check.ok] == []
    assert [check.name for check in doctor(None)] == [check.name for check in checks[:-3]]
    assert doctor_lines(checks)[-1] == "this machine can run it"


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


def test_a_machine_with_little_memory_is_told_what_fits(monkeypatch, bundle):
    small = machine.Machine(4, 20.0, 10.0, machine.GROUP)
    monkeypatch.setattr(doctor_module, "this_machine", lambda: small)
    checks = doctor(bundle.folder)
    found = by_name(checks)
    assert not found["free memory"].ok and "20 MiB within the limit of this" in found["free memory"].found
    assert "Raise that limit" in found["free memory"].found
    for name in ("demo fits", "bundle fits"):
        assert not found[name].ok and "can give 20" in found[name].found
    assert doctor_lines(checks)[-1].endswith("to put right first")
    monkeypatch.setattr(doctor_module, "this_machine", lambda: machine.Machine(4, None, 0.0, machine.SYSTEM))
    assert by_name(doctor(None))["free memory"].ok


@pytest.mark.parametrize(
    ("text", "ok", "word"),
    [
        ("throttled=0x0\n", True, "well since"),
        ("throttled=0x50005\n", False, "supply"),
        ("0x50000", True, "since its start"),
        ("e0008", True, "cool it"),
        ("VCHI initialization failed", True, "not told"),
        ("", True, "not told"),
    ],
)
def test_a_boards_word_on_its_power_is_understood(monkeypatch, tmp_path, text, ok, word):
    told = tmp_path / "get_throttled"
    told.write_text(text)
    monkeypatch.setattr(board, "THROTTLED", told)
    found = by_name(doctor(None))["power"]
    assert found.ok == ok and word in found.found


def test_a_library_that_says_anything_in_any_bytes_is_quoted(python):
    check = python("printf 'caf\\351 is broken\\n' >&2; exit 3")
    assert not check.ok and "caf\\xe9 is broken" in check.found


@pytest.mark.parametrize(
    "said",
    ["ImportError: x.so: failed to map segment from shared object", "MemoryError", "Cannot allocate memory"],
)
def test_too_little_memory_is_not_the_librarys_fault(python, said):
    check = python(f"echo '{said}' >&2; exit 1")
    assert not check.ok and "memory is short" in check.found and "pip" not in check.found


def test_a_killed_import_is_a_matter_of_memory(python):
    assert "memory is short" in python(f"kill -{int(signal.SIGKILL)} $$").found


def test_a_system_without_proc_is_told_before_what_it_breaks(python, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(libraries, "OWN_FILES", str(tmp_path / "none"))
    check = python("kill -6 $$")
    assert check.found == "its import dies with SIGABRT: see /proc above"
    names = [each.name for each in doctor(None)]
    assert names.index("/proc") < names.index("onnxruntime") and "demo fits" not in names
    assert "mount -t proc" in by_name(doctor(None))["/proc"].found


def test_a_shipped_bundle_that_is_lost_is_installed_anew(monkeypatch, tmp_path):
    monkeypatch.setattr("sharpzo_edge.commands.doctor.SHIPPED", tmp_path)
    check = by_name(doctor(None))["bundle"]
    assert not check.ok and "--force-reinstall" in check.found and "export" not in check.found
