"""Try the wheel on emulated arm64 machines, and write docs/boards.md.

    python -m boards.run [--only WORD...] [--work build/boards]

Its parts are of two kinds:
user:   qemu's user emulation in roots of Debian 12 and 13: is it installed, are its answers x86-64's?
booted: Debian's arm64 kernels with 4 and 16 KiB pages: does it keep its budget, by a real kernel's figures?

What was kept on the same wheel, by the same checks, is not tried again: stop it when you like, and type the
same command again. Needs root, Debian's packages and PyPI; installs debootstrap and qemu-system-arm where
they are missing. Everything else stays in the work folder, and is used again.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import Any

from boards.laboratory import Laboratory
from boards.page import EMULATED, PAGE, written
from boards.parts import PARTS, Booted, User
from dist import build
from shared.machine import ROOT, describe_machine
from shared.pages import keep_results, read_results


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
    given.work.mkdir(parents=True, exist_ok=True)
    machine = describe_machine()
    wheel, _ = build(given.work.resolve() / "dist")
    lab = Laboratory(given.work.resolve(), wheel)
    for part in (part for part in PARTS if any(word in part.name for word in given.only)):
        earlier, tried = _results()[part.kind].get(part.name), lab.tried(part)
        if earlier and earlier["tried"] == tried and not _broken(earlier):
            print(f"{part.name}: kept before, on this wheel")
            continue
        now = {"tried": tried, "cells": lab.cells_of(part), "machine": machine}
        _keep(part, now)
        print(f"{part.name}: {len(_broken(now))} of {len(part.checks)} cells are BROKEN", flush=True)
    broken = [cell for kind in _results().values() for told in kind.values() for cell in _broken(told)]
    for cell in broken:
        print(f"BROKEN: {cell['check']}: {cell['found']}")
    raise SystemExit(1 if broken else 0)


def _results() -> dict[str, Any]:
    """What is known of the parts that there are, by kind and name."""
    known = read_results(EMULATED) if EMULATED.exists() else {}
    found: dict[str, Any] = {User.kind: {}, Booted.kind: {}}
    for part in PARTS:
        if told := known.get(part.kind, {}).get(part.name):
            found[part.kind][part.name] = told
    return found


def _keep(part: User | Booted, now: dict[str, Any]) -> None:
    """Keep what a part told, and write the page. Another command may have done other parts meanwhile."""
    results = _results()
    results[part.kind][part.name] = now
    keep_results(results, EMULATED)
    PAGE.write_text(written(), encoding="utf-8")


def _broken(told: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in told["cells"] if not cell["kept"]]


if __name__ == "__main__":
    main()
