"""A fleet of real processes, encrypted: nobody gets in, and each of its processes may be killed."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from sharpzo_edge.demo import BUNDLE
from sharpzo_edge.errors import InterruptedRunError, SharpzoError, UsageError
from sharpzo_edge.fleet import engine, line
from sharpzo_edge.fleet.certificates import CA, CERTIFICATE, KEY, make_certificates
from sharpzo_edge.fleet.demo import member_beside
from sharpzo_edge.fleet.engine import address_of, require_safe, security_of
from sharpzo_edge.fleet.tune import fleet_tune
from sharpzo_edge.requests import FleetTuneRequest
from sharpzo_edge.run.progress import Caller
from support.fleet_processes import LONGEST, Processes
from support.processes import finish, run

FAR = "10.1.2.3"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    with Processes(tmp_path_factory.mktemp("fleet")) as processes:
        yield processes


def test_a_run_survives_the_death_of_each_process(fleet: Processes) -> None:
    fleet.start_driver()
    fleet.wait_for(lambda: fleet.evaluations() >= 2, "second evaluation")
    fleet.kill("board-2")
    fleet.wait_for(lambda: "board-2 is lost" in fleet.log("driver"), "notice of the loss")
    fleet.start_member("board-2")
    seen = fleet.evaluations()
    fleet.wait_for(lambda: fleet.evaluations() > seen + 1, "evaluation after the member came back")
    fleet.kill("scheduler")
    fleet.start_scheduler()
    seen = fleet.evaluations()
    fleet.wait_for(lambda: fleet.evaluations() > seen + 1, "evaluation after the scheduler came back")
    fleet.kill("driver")
    assert not fleet.output.exists()
    driver = fleet.start_driver()
    printed, _ = driver.communicate(timeout=LONGEST)
    result = json.loads(printed)
    assert "going on after" in fleet.log("driver") and fleet.output.exists()
    assert result["queries"] > 280
    assert [(m["name"], m["counted"]) for m in result["members"]] == [("board-1", True), ("board-2", True)]
    assert fleet.running["board-1"].poll() is None  # it has outlived its scheduler


def test_nothing_listens_but_what_carries_messages(fleet: Processes) -> None:
    for name in ("scheduler", "board-1", "board-2"):
        sockets = psutil.Process(fleet.running[name].pid).net_connections()
        listening = [each.laddr.ip for each in sockets if each.status == psutil.CONN_LISTEN]
        assert listening == ["127.0.0.1"], name


def test_without_certificates_nobody_gets_in(fleet: Processes, tmp_path: Path) -> None:
    given: dict[str, Any] = {"scheduler": fleet.scheduler, "wait_seconds": 0.0}
    request = FleetTuneRequest(BUNDLE, output=tmp_path / "p", **given)
    with pytest.raises(SharpzoError, match=r"No scheduler answers.*same certificates"):
        fleet_tune(request)
    make_certificates(tmp_path / "others")
    with pytest.raises(SharpzoError, match=r"No scheduler answers.*same certificates"):
        fleet_tune(FleetTuneRequest(BUNDLE, output=tmp_path / "p", certificates=tmp_path / "others", **given))


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", None), ("192.0.2.44", 0)])
def test_a_scheduler_that_cannot_listen_says_where(host: str, port: int | None, tmp_path: Path) -> None:
    trust = make_certificates(tmp_path / "trust").folder
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = taken.getsockname()[1] if port is None else port
        given = ("--host", host, "--port", where, "--certificates", trust)
        done = run("fleet", "scheduler", *given, code=2)
    assert f"cannot listen on {host}, port {where} (" in done.stderr and "Try --port 0" in done.stderr
    assert "or another --host" in done.stderr and "attempting" not in done.stderr


def test_a_driver_looks_for_its_scheduler_until_it_is_stopped(
    fleet: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(engine.SETTINGS, "distributed.comm.timeouts.connect", "1s")
    monkeypatch.setattr(line, "CONNECT_SECONDS", 1)
    security, said = security_of(fleet.certificates), list[str]()
    caller = Caller((lambda news: said.append(news.text),), stop=lambda: bool(said))
    with closing(line.DaskLine(address_of(fleet.scheduler, security), security, LONGEST, caller)) as driver:
        fleet.wait_for(lambda: driver.present() == {"board-1", "board-2"}, "member")
        fleet.kill("scheduler")
        with pytest.raises(InterruptedRunError, match=r"No scheduler answers.*same command again"):
            driver.present()
    assert said == [f"no scheduler answers: it is waited for, at most {LONGEST} s"]
    fleet.start_scheduler()


def test_a_process_that_ends_by_itself_is_told_of(tmp_path: Path) -> None:
    said: list[str] = []
    with member_beside(tmp_path / "board-1", BUNDLE, "127.0.0.1:1", say=said.append) as member:
        member.wait(LONGEST)
    assert len(said) == 1 and said[0].startswith("board-1 has ended by itself, with exit code 2: error: ")


def test_without_the_extra_a_fleet_says_what_to_install() -> None:
    code = "import sys; sys.modules['distributed'] = None; sys.argv[1:] = ['fleet', 'scheduler']"
    done = finish([sys.executable, "-c", f"{code}; from sharpzo_edge.cli import main; main()"], code=2)
    assert "A fleet needs the extra [fleet], and distributed is not" in done.stderr
    assert "pip install '.[fleet]'" in done.stderr


def test_the_network_demands_certificates(tmp_path: Path) -> None:
    plain = security_of(None)
    assert address_of("127.0.0.1:8786", plain) == "tcp://127.0.0.1:8786"
    for option, refused in (
        ("--scheduler", lambda: address_of(f"{FAR}:8786", plain)),
        ("--host", lambda: require_safe("--host", FAR, plain)),
        ("--host", lambda: require_safe("--host", "0.0.0.0", plain)),
    ):
        with pytest.raises(UsageError, match=f"{option} .*sharpzo-edge fleet certificates --output"):
            refused()
    made = make_certificates(tmp_path / "trust")
    assert address_of(f"{FAR}:8786", security_of(made.folder)) == f"tls://{FAR}:8786"
    with pytest.raises(UsageError, match="no address"):
        address_of("board-1", plain)


def test_certificates_are_for_this_user_and_never_replaced(tmp_path: Path) -> None:
    made = make_certificates(tmp_path / "trust")
    assert {path.name for path in made.folder.iterdir()} == {CA, CERTIFICATE, KEY}
    assert (made.folder / KEY).stat().st_mode & 0o077 == 0
    with pytest.raises(UsageError, match="Nothing is replaced"):
        make_certificates(made.folder)
    (made.folder / KEY).unlink()
    with pytest.raises(UsageError, match=f"has no {KEY}"):
        security_of(made.folder)
