"""The doctor finds what is wrong, and survives it."""

import os
import signal
import sys

import pytest

from sharpzo_edge import libraries, process_memory
from sharpzo_edge.commands.doctor import doctor

LIBRARIES = ["numpy", "onnxruntime", "Pillow", "safetensors"]


def by_name(checks):
    return {check.name: check for check in checks}


@pytest.mark.oldest_onnxruntime
def test_a_machine_that_runs_these_tests_is_well(bundle):
    checks = doctor(bundle.folder)
    assert list(by_name(checks)) == ["64-bit", "Python", *LIBRARIES, "free memory", "bundle"]
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


GROUPS = {
    "version 2": ("0::/box\n", "box", "memory.max", "memory.current", "inactive_file"),
    "version 1": (
        *("7:cpu:/\n4:memory:/box\n0::/\n", "memory/box"),
        *("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ),
    "the host's path": ("0::/docker/4711\n", "", "memory.max", "memory.current", "inactive_file"),
}


@pytest.mark.parametrize("kind", GROUPS)
def test_the_limit_of_a_container_is_this_machines(kind, tmp_path, monkeypatch):
    told, place, most, used, cached = GROUPS[kind]
    group = tmp_path / place
    group.mkdir(parents=True, exist_ok=True)
    real = process_memory.Path.read_text

    def read_text(path, *given):
        return told if str(path) == "/proc/self/cgroup" else real(path, *given)

    monkeypatch.setattr(process_memory.Path, "read_text", read_text)
    monkeypatch.setattr(process_memory, "CGROUPS", tmp_path)
    for name, limit, room in (("small", 100 << 20, 75), ("wide", 1 << 30, 999), ("none", None, None)):
        (group / most).write_text(("max" if kind != "version 1" else "9223372036854771712") + "\n")
        if limit is not None:
            (group / most).write_text(f"{limit}\n")
        (group / used).write_text(f"{45 << 20}\n")
        (group / "memory.stat").write_text(f"anon 5\n{cached} {20 << 20}\n")
        assert process_memory.group_room_mib() == room, name
        check = by_name(doctor(None))["free memory"]
        assert check.ok == (name != "small")
        assert ("75 MiB within this container" in check.found) == (name == "small")


def test_without_groups_there_is_no_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(process_memory, "CGROUPS", tmp_path / "none")
    assert process_memory.group_room_mib() is None


def test_a_system_without_proc_is_told_before_what_it_breaks(python, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(libraries, "OWN_FILES", str(tmp_path / "none"))
    check = python("kill -6 $$")
    assert check.found == "its import dies with SIGABRT: see /proc above"
    names = [each.name for each in doctor(None)]
    assert names.index("/proc") < names.index("onnxruntime")
    assert "mount -t proc" in by_name(doctor(None))["/proc"].found
