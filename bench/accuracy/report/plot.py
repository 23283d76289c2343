"""docs/accuracy.svg: accuracy and loss against queries and against seconds.

    python -m accuracy.report.plot [--results DIR] [--output FILE]

16 shots, methods that were run on all tasks. A line is the mean over tasks and seeds of what the method would
return if it were stopped there (lowest validation loss so far), and of its lowest training loss so far. Heads
are points: they ask nothing.
"""

from __future__ import annotations

import argparse
import io
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..harness.jobs import MOST_SHOTS, SEEDS
from ..harness.runs import EDGE, RESULTS, Run, Runs, load
from ..methods.all_methods import METHODS
from .page import PLOT

# Okabe and Ito's colours, which colour-blind readers can tell apart; dashes and markers differ too.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#7F7F7F", "#B8A800")
DASHES = ("-", "--", ":", "-.")
EDGE_LINE = {"color": "black", "linewidth": 2.6, "linestyle": "-", "zorder": 3}
GRID = 60
LEAST = {"queries": 1.0, "seconds": 0.01}  # on axes that have no zero


def so_far(run: Run) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Along a run's curve: test accuracy (percent) of the best moment so far, and the lowest loss so far."""
    curve = run["curve"]
    accuracies: list[float] = []
    lowest, answer = math.inf, 0.0
    for val, test in zip(curve["val_loss"], curve["test_accuracy"], strict=True):
        # Without validation pictures the latest moment is the result.
        if val is None or val < lowest or not accuracies:
            lowest, answer = val or 0.0, 100 * test
        accuracies.append(answer)
    return np.asarray(accuracies), np.minimum.accumulate(curve["train_loss"])


def mean_line(found: Sequence[Run], over: str, which: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(grid, mean) over runs, from where all have begun to where the last one ends.

    A run is a staircase, and keeps its result when it has ended.
    """
    places = [np.maximum(np.asarray(run["curve"][over], float), LEAST[over]) for run in found]
    start, end = max(p[0] for p in places), max(p[-1] for p in places)
    grid = np.geomspace(start, end, GRID)
    grid[-1] = end
    steps = [
        so_far(run)[which][np.searchsorted(place, grid, "right") - 1]
        for run, place in zip(found, places, strict=True)
    ]
    return grid, np.mean(steps, axis=0)


def looks_of(name: str, i: int, points: bool) -> dict[str, Any]:
    """How the i-th method is drawn."""
    if name == EDGE:
        return EDGE_LINE
    colour = COLOURS[i % len(COLOURS)]
    if points:
        return {"color": colour, "marker": "oDs^v"[i % 5], "linestyle": "", "markersize": 6}
    return {"color": colour, "linestyle": DASHES[i % len(DASHES)], "linewidth": 1.5}


def draw(runs: Runs, output: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt
    from matplotlib import ticker

    # Text stays text, and the file is the same for the same runs.
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "accuracy", "font.size": 9})
    figure, axes = plt.subplots(2, 2, figsize=(9, 7.6), sharex="col", sharey="row")
    n_drawn = 0
    for name, method in METHODS.items():
        found = [run for task in runs.tasks for run in runs.of(name, task, MOST_SHOTS)]
        if len(found) < len(runs.tasks) * len(SEEDS):
            continue  # a mean over other tasks cannot be compared
        points = max(len(run["curve"]["queries"]) for run in found) == 1
        look = looks_of(name, n_drawn, points)
        n_drawn += name != EDGE
        for row, which in enumerate((0, 1)):
            for column, over in enumerate(("queries", "seconds")):
                grid, values = mean_line(found, over, which)
                shown = slice(-1, None) if points else slice(None)
                axes[row, column].plot(grid[shown], values[shown], label=method.label, **look)
    for axis in axes.flat:
        axis.set_xscale("log")
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[1, 0].set_yscale("log")  # one head's loss is far above all others
    axes[1, 0].yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes[1, 0].yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axes[1, 0].yaxis.set_minor_formatter(ticker.NullFormatter())
    axes[0, 0].set_ylabel("test accuracy, %")
    axes[1, 0].set_ylabel("training loss, lowest so far")
    axes[1, 0].set_xlabel("queries")
    axes[1, 1].set_xlabel("seconds, one thread")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncol=3, frameon=False, handlelength=3.5)
    figure.suptitle(f"Mean over {len(runs.tasks)} tasks and three seeds, 16 shots")
    figure.tight_layout(rect=(0, 0.03 + 0.026 * -(-len(labels) // 3), 1, 1))
    drawn = io.StringIO()
    figure.savefig(drawn, metadata={"Date": None})
    plt.close(figure)
    # A hundredth of a point is more than anyone sees: half the file's size.
    text = re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", drawn.getvalue())
    output.write_text("\n".join(map(str.rstrip, text.splitlines())) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR")
    parser.add_argument("--output", type=Path, default=PLOT, metavar="FILE")
    given = parser.parse_args(arguments)
    draw(load(given.results), given.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
