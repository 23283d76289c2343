"""What is known of the processor, from files of any content."""

import platform

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpzo_edge.processor import FLAGS, parse_cpuinfo, this_processor

X86 = "model name\t: Xeon\nflags\t\t: fpu sse2 {}\n\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd {}\nCPU part\t: 0xd0b\n\n"


@pytest.mark.parametrize(
    ("machine", "text", "has"),
    [
        ("x86_64", X86.format("avx512_vnni avx_vnni"), True),
        ("x86_64", X86.format("avx2"), False),
        ("aarch64", ARM.format("asimddp"), True),  # a Raspberry Pi 5
        ("aarch64", ARM.format("crc32 cpuid"), False),  # a Raspberry Pi 4
        ("aarch64", ARM.format("asimddp") + ARM.format(""), False),  # cores differ
        ("aarch64", X86.format("avx_vnni"), None),  # an emulator passes the host's file through
        ("x86_64", "", None),
        ("riscv64", X86.format("avx_vnni"), None),
    ],
)
def test_dot_products_are_found_or_unknown(machine, text, has):
    assert parse_cpuinfo(text, machine).has_int8_dot is has


@given(st.text(), st.sampled_from([*FLAGS, "mips"]))
def test_no_text_of_cpuinfo_is_an_error(text, machine):
    assert parse_cpuinfo(f"{text}\n{X86}flags: {text}", machine).machine == machine


def test_this_machine_tells_or_does_not(monkeypatch, tmp_path):
    assert this_processor().machine == platform.machine()
    monkeypatch.setattr("sharpzo_edge.processor.CPUINFO", tmp_path / "none")
    assert this_processor().has_int8_dot is None
