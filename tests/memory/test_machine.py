"""What the machine can give: read from files of any content, and kept by plans."""

import dataclasses
import json
import math
import resource
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpzo_edge import machine as machine_module
from sharpzo_edge.demo import BUNDLE
from sharpzo_edge.errors import BudgetError
from sharpzo_edge.machine import (
    GROUP,
    SPARE_MIB,
    SYSTEM,
    ULIMIT,
    Machine,
    parse_counts,
    parse_groups,
    parse_limit,
    parse_meminfo,
    parse_quota,
    this_machine,
    usable_cores,
)
from sharpzo_edge.memory import budget as budget_module
from sharpzo_edge.memory.budget import Budget, Floor, machine_for
from sharpzo_edge.memory.plan import Work, make_plan
from sharpzo_edge.process_memory import MIB
from sharpzo_edge.run.folder import WorkFolder
from sharpzo_edge.tuning.resume import remember_machine, remembered_machine
from support.processes import finish, run, start

GIB = 1024.0


@dataclasses.dataclass(frozen=True)
class FakeSystem:
    """Files in place of /proc and /sys."""

    top: Path

    def write(self, name, text):
        path = self.top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def system(tmp_path, monkeypatch):
    fake = FakeSystem(tmp_path)
    for name in ("PROC", "CGROUPS", "CPUS"):
        monkeypatch.setattr(machine_module, name, tmp_path / name)
    fake.write("PROC/meminfo", f"MemTotal: 999 kB\nMemAvailable:   {900 << 10} kB\n")
    fake.write("PROC/self/status", f"VmSize:\t{200 << 10} kB\nRssAnon:\t{30 << 10} kB\n")
    return fake


# Memory ------------------------------------------------------------------------------------------


def test_free_memory_is_what_is_available_less_a_little(system):
    found = this_machine()
    assert (found.free_mib, found.held_mib, found.bound) == (900 - SPARE_MIB, 30, SYSTEM)


GROUPS = {
    "version 2": ("0::/box\n", "box", "memory.max", "memory.current", ""),
    "version 1": (
        *("7:cpu:/\n4:memory:/box\n0::/\n", "memory/box"),
        *("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    ),
    "the host's path": ("0::/docker/4711\n", "", "memory.max", "memory.current", ""),
}


@pytest.mark.parametrize("kind", GROUPS)
def test_the_limit_of_a_container_counts(kind, system):
    told, place, most, used, total = GROUPS[kind]
    system.write("PROC/self/cgroup", told)
    folder = f"CGROUPS/{place}"
    system.write(f"{folder}/{used}", f"{45 << 20}\n")
    counts = f"anon 5\n{total}inactive_file {15 << 20}\n{total}active_file {5 << 20}\nodd\n"
    system.write(f"{folder}/memory.stat", counts)
    for limit, free, bound in (
        (f"{100 << 20}", 75, GROUP),
        (f"{1 << 40}", 900 - SPARE_MIB, SYSTEM),
        ("max", 900 - SPARE_MIB, SYSTEM),
        ("9223372036854771712", 900 - SPARE_MIB, SYSTEM),
    ):
        system.write(f"{folder}/{most}", f"{limit}\n")
        found = this_machine()
        assert (found.free_mib, found.bound) == (free, bound), limit


def test_the_tightest_group_above_counts(system):
    system.write("PROC/self/cgroup", "0::/a/b\n")
    for group, mib in (("a", 80), ("a/b", 500)):
        system.write(f"CGROUPS/{group}/memory.max", f"{mib << 20}")
        system.write(f"CGROUPS/{group}/memory.current", f"{10 << 20}")
    system.write("CGROUPS/a/b/memory.high", f"{70 << 20}")  # it slows down where it does not kill
    assert this_machine().free_mib == 60


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="macOS does not keep to it")
def test_a_limit_on_the_address_space_counts(system, monkeypatch):
    limits = {resource.RLIMIT_AS: 292 << 20, resource.RLIMIT_STACK: 4 << 20}
    monkeypatch.setattr(machine_module.resource, "getrlimit", lambda kind: (limits[kind], -1))
    found = this_machine(threads=3)
    assert (found.free_mib, found.bound) == (60 - 3 * 4, ULIMIT)


def test_a_system_that_tells_nothing_bounds_nothing(system):
    for name in ("meminfo", "self/status"):
        (system.top / "PROC" / name).unlink()
    assert this_machine().free_mib is None
    assert Budget(math.inf, Floor(0, 0), True, this_machine()).limit_mib == math.inf


numbers = st.one_of(st.integers().map(str), st.sampled_from(["max", "-1", "", "٣", "1_0", "9" * 5000]))
lines = st.lists(st.one_of(st.text(), numbers, st.builds("{} {}".format, st.text(), numbers)))
hostile = st.one_of(st.text(), lines.map("\n".join))


@given(hostile)
def test_no_content_of_any_file_is_an_error(text):
    counts = [parse_meminfo(text), parse_limit(text), *parse_counts(text).values()]
    assert all(count is None or count >= 0 for count in counts)
    for controllers, path in parse_groups(f"{text}\n0::/{text}\n4:memory,{text}:/x"):
        assert ".." not in path.split("/") and "\0" not in path and "" not in controllers
    quota = parse_quota(*[*text.split(" ", 1), ""][:2])
    assert quota is None or 0 < quota < math.inf


@given(st.binary(max_size=200))
def test_files_of_any_bytes_are_read(tmp_path_factory, data):
    fake = FakeSystem(tmp_path_factory.mktemp("system"))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PROC", "CGROUPS", "CPUS"):
            patch.setattr(machine_module, name, fake.top / name)
        for name in ("PROC/meminfo", "PROC/self/status", "CGROUPS/memory.max", "CGROUPS/cpu.max"):
            fake.write(name, "")
            (fake.top / name).write_bytes(data)
        fake.write("PROC/self/cgroup", "0::/\n")
        assert this_machine().cores >= 1


# Cores -------------------------------------------------------------------------------------------


def test_cores_are_those_of_the_affinity_and_the_quota(system, monkeypatch):
    monkeypatch.setattr(machine_module.os, "sched_getaffinity", lambda _: {0, 1, 2, 5}, raising=False)
    assert usable_cores() == 4
    for i in (0, 1):  # two hardware threads of one core
        system.write(f"CPUS/cpu{i}/topology/thread_siblings_list", "0-1\n")
    assert usable_cores() == 3
    system.write("PROC/self/cgroup", "0::/box\n")
    for quota, cores in (("max 100000", 3), ("150000 100000", 2), ("50000 100000", 1), ("0 0", 3)):
        system.write("CGROUPS/box/cpu.max", quota)
        assert usable_cores() == cores, quota
    system.write("PROC/self/cgroup", "1:cpu,cpuacct:/box\n")
    system.write("CGROUPS/cpu/box/cpu.cfs_quota_us", "200000\n")
    system.write("CGROUPS/cpu/box/cpu.cfs_period_us", "100000\n")
    assert usable_cores() == 2
    system.write("CGROUPS/cpu/box/cpu.cfs_quota_us", "-1\n")
    assert usable_cores() == 3


# Plans -------------------------------------------------------------------------------------------


def given_by(mib, asked=math.inf, held=40.0, bounds_process=True):
    free = None if mib is None else mib - held
    return Budget(asked, Floor(80.0, 60.0), bounds_process, Machine(2, free, held, GROUP))


def test_no_limit_never_plans_more_than_the_machine_has(bundle):
    work = Work(name_lengths=(6,) * 10, n_features=200, threads=2, dim=64)
    free = make_plan(bundle.manifest, work, given_by(None))
    wide = make_plan(bundle.manifest, work, given_by(8 * GIB))
    assert (wide.text, wide.image.tower, wide.sketch) == (free.text, free.image.tower, free.sketch)
    tight = make_plan(bundle.manifest, work, given_by(95))
    assert tight.peak_mib <= 95 < free.peak_mib
    assert tight == make_plan(bundle.manifest, work, given_by(8 * GIB, asked=95.0))
    assert given_by(95).note and given_by(95, asked=128.0).note and not given_by(95, asked=94.0).note


def test_what_no_plan_can_do_is_not_advised(bundle):
    """A larger budget would end in the kernel's out-of-memory killer."""
    work = Work(name_lengths=(6,) * 10, threads=2)
    for asked in (60.0, 128.0, math.inf):
        with pytest.raises(BudgetError, match=r"can give 70 MiB \(the limit of this container") as refused:
            make_plan(bundle.manifest, work, given_by(70, asked))
        assert "--memory-budget" not in str(refused.value)
    with pytest.raises(BudgetError, match=r"again with --memory-budget 8[0-9]MiB"):
        make_plan(bundle.manifest, work, given_by(90, asked=60.0))


def test_a_call_may_take_what_is_free_alone():
    assert given_by(100, held=40.0).limit_mib == 100
    assert given_by(100, held=40.0, bounds_process=False).limit_mib == 60


def test_the_disk_is_timed_where_the_cache_is_too_small(bundle, monkeypatch):
    for free_mib, asked, is_timed in ((900.0, "128MiB", False), (9.0, "128MiB", True), (9.0, "none", True)):
        machine = Machine(2, free_mib, 30.0, SYSTEM)
        monkeypatch.setattr(budget_module, "this_machine", lambda threads, found=machine: found)
        reading = machine_for(bundle, 1, asked).reading
        assert (reading is not None) == is_timed, (free_mib, asked)
        assert reading is None or math.log2(reading).is_integer()


# Runs --------------------------------------------------------------------------------------------

TUNE = ("tune", "--bundle", BUNDLE, "--max-queries", 40, "--val", 0, "--threads", 1, "--json")


def test_what_was_read_is_kept_once_and_decides_the_plan(tmp_path, pictures):
    output = tmp_path / "prompt"
    command = (*TUNE, "--images", pictures, "--output", output, "--memory-budget", "none")
    work = WorkFolder.of(output)
    work.make()
    small = Machine(1, 60.0, 30.0, GROUP)
    remember_machine(work, small)
    remember_machine(work, dataclasses.replace(small, free_mib=900.0))
    assert remembered_machine(work) == small
    done = run(*command)
    assert "keeps within the 90 MiB" in done.stderr
    assert json.loads(done.stdout)["plan"]["peak_mib"] <= 90
    assert "is finished" in run(*command).stderr
    assert "keeps within the 90 MiB" not in run(*command, "--restart").stderr  # it is read anew
    assert remembered_machine(work) != small


def test_a_run_that_the_machine_cannot_hold_stops(tmp_path, pictures):
    """It was planned when there was more: going on would end in the out-of-memory killer."""
    output = tmp_path / "prompt"
    command = [str(word) for word in (*TUNE, "--images", pictures, "--output", output)]
    smaller = (
        "import sys, dataclasses\n"
        "from sharpzo_edge import machine\n"
        "from sharpzo_edge.commands import tune\n"
        "real = tune.this_machine\n"
        "tune.this_machine = lambda threads: dataclasses.replace(real(threads), free_mib=50.0)\n"
        "from sharpzo_edge.cli import main\n"
        f"sys.argv = ['sharpzo-edge', *{command!r}]\n"
        "main()\n"
    )
    refused = finish([sys.executable, "-c", smaller], 3)
    assert "was planned with" in refused.stderr and "start over with --restart" in refused.stderr
    assert not output.exists()
    run(*command)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="macOS does not keep to it")
def test_under_ulimit_a_tune_ends_well_or_says_why(tmp_path, pictures):
    """Within each limit it either does the work or refuses it before it begins."""
    codes = set()
    for mib in (220, 260, 300, 400):
        limited = (
            f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({mib * MIB}, -1))\n"
            "from sharpzo_edge.__main__ import main\nmain()\n"
        )
        output = tmp_path / f"{mib}"
        words = [str(word) for word in (*TUNE, "--images", pictures, "--output", output)]
        with start([sys.executable, "-c", limited, *words]) as process:
            out, err = process.communicate(timeout=300)
        codes.add(process.returncode)
        assert process.returncode in (0, 3) or "ot enough memory" in err, (mib, out, err)
    assert codes >= {0, 3}
