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
    given.work.mkdir(parents=True, exist_ok=True)
    machine = describe_machine()
    wheel, _ = build(given.work.resolve() / "dist")
    lab = Laboratory(given.work.resolve(), wheel)
    results = _in_order(read_results(EMULATED) if EMULATED.exists() else {})
    for part in (part for part in PARTS if any(word in part.name for word in given.only)):
        earlier, tried = results[part.kind].get(part.name), lab.tried(part)
        if earlier and earlier["tried"] == tried and not _broken(earlier):
            print(f"{part.name}: kept before, on this wheel")
            continue
        cells = lab.cells_of(part)
        results[part.kind][part.name] = {"tried": tried, "cells": cells, "machine": machine}
        results = _in_order(results)
        keep_results(results, EMULATED)
        PAGE.write_text(written(), encoding="utf-8")
        n_broken = len(_broken(results[part.kind][part.name]))
        print(f"{part.name}: {len(cells) - n_broken} cells kept, {n_broken} BROKEN", flush=True)
    broken = [cell for kind in results.values() for told in kind.values() for cell in _broken(told)]
    for cell in broken:
        print(f"BROKEN: {cell['check']}: {cell['found']}")
    raise SystemExit(1 if broken else 0)


def _in_order(results: dict[str, Any]) -> dict[str, Any]:
    """The results of the parts that there are, by kind and name."""
    return {
        kind: {
            p.name: results[kind][p.name] for p in PARTS if p.kind == kind and p.name in results.get(kind, {})
        }
        for kind in (User.kind, Booted.kind)
    }


def _broken(told: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in told["cells"] if not cell["kept"]]


if __name__ == "__main__":
    main()
