"""Write docs/cli.md: every command and option, from the commands themselves.

python bench/cli_page.py
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from sharpzo_edge.cli import app
from sharpzo_edge.tuning.presets import EDGE, PAPER
from sharpzo_edge.tuning.settings import NOT_OPTIONS

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
PRESETS_OWN = {f.name for kind in (PAPER, EDGE) for f in dataclasses.fields(kind)} - {*NOT_OPTIONS}
HEAD = """# Command line

Every command and every option. This page is generated from the commands: `sharpzo-edge COMMAND --help` says
the same. What the options of `tune` mean is told in [tuning.md](tuning.md).

With `--json` a command prints one JSON object on standard output, and nothing else there. Messages go to
standard error.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | failed |
| 2 | wrong use: an option, a file or a folder does not fit |
| 3 | the memory budget cannot be met |
| 129, 130, 143 | interrupted: the terminal was closed (SIGHUP), Ctrl-C, SIGTERM; what was done is kept |

With `--json` an error is JSON too: `{"error": {"kind": …, "message": …, "exit_code": …}}`.
"""


def page() -> str:
    group: Any = typer.main.get_command(app)
    return "\n".join([HEAD, *_sections(group)])


def _sections(group: Any, before: str = "") -> Iterator[str]:
    """Of each command; of a group, those of its own commands."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _sections(command, f"{before}{name} ")
        else:
            yield _section(f"{before}{name}", command)


def _section(name: str, command: Any) -> str:
    about, _, example = inspect.cleandoc(command.help).partition("Example: ")
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    shown = " ".join(["sharpzo-edge", name, *(p.metavar or p.name.upper() for p in arguments), "[OPTIONS]"])
    rows = [_row(p) for p in command.params if p.name != "help"]
    return "\n".join(
        [
            f"## {name}",
            "",
            about.strip(),
            "",
            "```",
            shown,
            example.strip(),
            "```",
            "",
            "| option | default | what it is |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


def _row(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        spelt = f"`{parameter.metavar or parameter.name.upper()}`"
    else:
        spelt = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    default = "must be given" if parameter.required else _shown(parameter.default)
    if parameter.name in PRESETS_OWN and parameter.default is None:
        default = "the preset's"
    return f"| {spelt} | {default} | {parameter.help} |"


def _shown(default: Any) -> str:
    return "" if default is None or default is False or default == () else f"`{default}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
