"""A report as HTML. The only file that knows Jinja2, which is in the extra [page].

A whole report is one file that loads nothing. Its parts can be put into other pages, with the style and the
script from here. Nothing in it is styled by attributes, so that a page may forbid that.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ..run.progress import duration
from ..wording import counted, percent, shortened
from . import charts
from .data import Report

TEMPLATES = Path(__file__).parent / "templates"
SHOWN_AT_ONCE = 12  # of the worst pictures; a click shows the others
NAMES_OF_GROUP = 12
PARTS = ("summary", "ways", "curve", "pictures", "confusion", "classes", "sureness", "memory", "made")


def render(report: Report) -> str:
    """The whole file."""
    css, js = style(), script()
    return (
        _environment()
        .get_template("report.html")
        .render(
            report=report,
            parts=[part for name in PARTS if (part := render_part(report, name))],
            style=css,
            script=js,
            style_hash=_hash(css),
            script_hash=_hash(js),
        )
    )


def render_part(report: Report, name: str) -> Markup:
    """One of PARTS: a <section>, or "" where the report has nothing for it."""
    template = _environment().get_template(f"{name}.html")
    return Markup(template.render(report=report).strip())


@functools.cache
def style() -> str:
    """The style sheet of whole reports and of parts."""
    return (TEMPLATES / "report.css").read_text(encoding="utf-8")


@functools.cache
def script() -> str:
    """Sorts tables; without it they are in the order that they came in."""
    return (TEMPLATES / "report.js").read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """By which a content security policy allows a style or a script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def templates_in(folder: Path) -> jinja2.Environment:
    """Templates that escape all that they are told, and refuse a name that they were not told."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(percent=percent, duration=duration, counted=counted)
    return found


@functools.cache
def _environment() -> jinja2.Environment:
    found = templates_in(TEMPLATES)
    found.filters.update(fixed=_fixed, shortened=shortened)
    found.globals.update(
        line_charts=charts.line_charts,
        matrix=charts.matrix,
        memory_chart=charts.memory_chart,
        plot=(charts.PLOT_WIDTH, charts.PLOT_HEIGHT),
        shown_at_once=SHOWN_AT_ONCE,
        names_of_group=NAMES_OF_GROUP,
    )
    return found


def _fixed(value: Any, digits: int) -> str:
    """A number with thousands and so many decimals."""
    return f"{value:,.{digits}f}"
