"""Draw docs/terminal.svg: what `sharpzo-edge demo` leaves on a terminal.

    python bench/terminal.py             runs the demo, keeps its text, draws the picture
    python bench/terminal.py --drawing   only draws the kept text again

The text is kept in bench/results/terminal.txt.
"""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from html import escape
from pathlib import Path

HERE = Path(__file__).parent
TEXT = HERE / "results" / "terminal.txt"
PICTURE = HERE.parent / "docs" / "terminal.svg"

FONT_SIZE, LINE_HEIGHT, MARGIN = 13, 19, 16  # pixels
CHARACTER_WIDTH = 7.83  # of that size, in the widest of the fonts that STYLE names
STYLE = """
    .screen { fill: #ffffff; stroke: #d0d7de; }
    text { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; white-space: pre; }
    .typed { fill: #1f2328; font-weight: bold; }
    .said { fill: #59636e; }
    .result { fill: #1f2328; }
    @media (prefers-color-scheme: dark) {
      .screen { fill: #0d1117; stroke: #3d444d; }
      .typed, .result { fill: #f0f6fc; }
      .said { fill: #9198a1; }
    }
"""


def main() -> None:
    if "--drawing" not in sys.argv[1:]:
        TEXT.write_text(f"$ sharpzo-edge demo\n{run_demo()}", encoding="utf-8")
    PICTURE.write_text(drawing(TEXT.read_text(encoding="utf-8")), encoding="utf-8")


def run_demo() -> str:
    """The text that a terminal shows when the command has ended."""
    ours, terminal = pty.openpty()
    command = [sys.executable, "-m", "sharpzo_edge", "demo"]
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal) as demo:
        os.close(terminal)
        written = b""
        while part := read(ours):
            written += part
    os.close(ours)
    if demo.returncode:
        raise SystemExit(f"The demo failed:\n{written.decode()}")
    return left_on_screen(written.decode())


def read(descriptor: int) -> bytes:
    """The next bytes; none when the process has closed its terminal."""
    try:
        return os.read(descriptor, 4096)
    except OSError:
        return b""


def left_on_screen(written: str) -> str:
    """A line that was redrawn shows what was written last."""
    lines = written.replace("\r\n", "\n").split("\n")
    return "\n".join(line.rsplit("\r", 1)[-1].rstrip() for line in lines)


def drawing(text: str) -> str:
    """The SVG. The command and its result stand out; what was said on the way is paler."""
    lines = text.splitlines()
    first_of_result = next(i for i, line in enumerate(lines) if "held-out pictures," in line)
    kinds = ["typed"] + ["said"] * (first_of_result - 1) + ["result"] * (len(lines) - first_of_result)
    width = round(2 * MARGIN + CHARACTER_WIDTH * max(map(len, lines)))
    height = 2 * MARGIN + LINE_HEIGHT * len(lines)
    baselines = (MARGIN + FONT_SIZE + LINE_HEIGHT * i for i in range(len(lines)))
    rows = [
        f'  <text class="{kind}" x="{MARGIN}" y="{baseline}">{escape(line)}</text>'
        for kind, baseline, line in zip(kinds, baselines, lines, strict=True)
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" font-size="{FONT_SIZE}" xml:space="preserve">',
            "  <title>sharpzo-edge demo on a terminal</title>",
            f"  <style>{STYLE}  </style>",
            f'  <rect class="screen" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8"/>',
            *rows,
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    main()
