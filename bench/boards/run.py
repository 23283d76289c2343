"""Try the wheel on emulated arm64 machines, and write docs/boards.md.

    python -m boards.run [--only WORD...] [--work build/boards]

Its parts are of three kinds:
user:      qemu's user emulation in roots of Debian 12 and 13: is it installed, are its answers x86-64's?
container: the image of docs/board/Containerfile, for arm64 and amd64: is it built, does its demo run?
booted:    Debian's arm64 kernels with 4 and 16 KiB pages: does it keep its budget, by their figures?

What was kept on the same wheel, by the same checks, is not tried again: stop it when you like, and type the
same command again. Needs root, Debian's packages and PyPI; installs debootstrap, buildah and qemu-system-arm
where they are missing. Everything else stays in the work folder, and is used again.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
import time
from multiprocessing.synchronize import Lock
from pathlib import Path
from typing import Any

from boards.laboratory import Laboratory
from boards.page import EMULATED, PAGE, written
from boards.parts import KINDS, PARTS, Booted, Container, Part, User
from boards.supplies import Supplies
from dist import build
from shared.machine import ROOT, describe_machine
from shared.pages import keep_results, read_results

# Parts of different lanes are tried at the same time: either lane keeps one core busy.
LANES: tuple[tuple[type[Part], ...], ...] = ((User, Container), (Booted,))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], help="parts whose names have one of these words")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "boards")
    given = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit(
            "This makes roots whose files belong to many users. It must be root. Type: sudo make test-arm"
        )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started ends, too
    work, started = given.work.resolve(), time.monotonic()
    work.mkdir(parents=True, exist_ok=True)
    machine = describe_machine()
    supplies = Supplies(work, build(work / "dist")[0])
    warm, lab = supplies.are_there, Laboratory(supplies)
    parts = [part for part in PARTS if any(word in part.name for word in given.only) and not _kept(part, lab)]
    if parts:
        lab.prepare()
    lock = multiprocessing.Lock()
    lanes = [[part for part in parts if isinstance(part, kinds)] for kinds in LANES]
    processes = [
        multiprocessing.Process(target=_try, args=(lane, lab, machine, lock), daemon=True) for lane in lanes
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    results = _results()
    if len(parts) == len(PARTS):
        results["whole"] = {"seconds": round(time.monotonic() - started), "warm": warm}
        _keep(results)
    broken = [cell for kind in KINDS for told in results[kind].values() for cell in _broken(told)]
    for cell in broken:
        print(f"BROKEN: {cell['check']}: {cell['found']}")
    raise SystemExit(1 if broken or any(process.exitcode for process in processes) else 0)


def _kept(part: Part, lab: Laboratory) -> bool:
    """Whether a part was tried on this wheel, in this way, and all of it was kept."""
    earlier = _results()[part.kind].get(part.name)
    if not earlier or earlier["tried"] != lab.tried(part) or _broken(earlier):
        return False
    print(f"{part.name}: kept before, on this wheel")
    return True


def _try(parts: list[Part], lab: Laboratory, machine: dict[str, Any], lock: Lock) -> None:
    """Try some parts, one after the other. As soon as one is known, it is on the page."""
    for part in parts:
        now = {"tried": lab.tried(part), "cells": lab.cells_of(part), "machine": machine}
        with lock:
            results = _results()
            results[part.kind][part.name] = now
            results.pop("whole", None)  # until all of them are done
            _keep(results)
        print(f"{part.name}: {len(_broken(now))} of {len(part.checks)} cells are BROKEN", flush=True)


def _results() -> dict[str, Any]:
    """What is known of the parts that there are, by kind and name; and of the whole, by one command."""
    known = read_results(EMULATED) if EMULATED.exists() else {}
    found: dict[str, Any] = {kind: {} for kind in KINDS}
    for part in PARTS:
        if told := known.get(part.kind, {}).get(part.name):
            found[part.kind][part.name] = told
    return found | ({"whole": known["whole"]} if "whole" in known else {})


def _keep(results: dict[str, Any]) -> None:
    keep_results(results, EMULATED)
    PAGE.write_text(written(), encoding="utf-8")


def _broken(told: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in told["cells"] if not cell["kept"]]


if __name__ == "__main__":
    main()
