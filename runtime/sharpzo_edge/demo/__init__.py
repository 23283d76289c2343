"""The embedded default: a small CLIP and few-shot tasks, so that a first run needs no download.

`bundle/` is an exported bundle like any other; `tasks/NAME/train` and `tasks/NAME/test` are folders of
pictures like any user's. The demo walks the user's own way: eval, tune, eval.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from ..commands.evaluate import evaluate
from ..commands.tune import tune
from ..errors import InterruptedRunError, UsageError
from ..process_memory import DEFAULT_BUDGET, peak_rss_mib
from ..run.progress import Progress, duration
from ..tuning.presets import PRESETS
from ..tuning.request import TuneRequest, check

HERE = Path(__file__).parent
BUNDLE = HERE / "bundle"
TASKS = HERE / "tasks"
DEFAULT_TASK = "subgroups"


def run(
    seed: int = 0, task: str | None = None, threads: int = 0, memory_budget: str = DEFAULT_BUDGET
) -> dict[str, Any]:
    """Returns what `demo --json` prints. Works in a temporary folder, which it removes.

    Raises UsageError for an unknown task or a seed that is none.
    """
    name = task or DEFAULT_TASK
    folder = TASKS / name
    if name not in task_names():
        raise UsageError(
            f"--task {name} is not shipped. It takes one of: {', '.join(task_names())}. "
            f"Try --task {DEFAULT_TASK}"
        )
    started = time.monotonic()
    with Progress() as progress, tempfile.TemporaryDirectory(prefix="sharpzo-edge-demo-") as work:
        prompt = Path(work) / "prompt.safetensors"
        request = TuneRequest(
            bundle=BUNDLE,
            images=folder / "train",
            output=prompt,
            settings=PRESETS["demo"],
            seed=seed,
            threads=threads,
            memory_budget=memory_budget,
        )
        check(request)
        progress.say(f"zero-shot, on pictures held out of everything ({name})")
        before = evaluate(BUNDLE, folder / "test", progress, threads=threads, memory_budget=memory_budget)
        progress.say("tuning the prompt, forward passes alone")
        try:
            tuned = tune(request)
        except InterruptedRunError as stopped:
            raise InterruptedRunError(
                "The demo was stopped. It keeps nothing. Begin again with: sharpzo-edge demo",
                stopped.exit_code - 128,
            ) from stopped
        progress.say("with the tuned prompt, on the same pictures")
        after = evaluate(
            BUNDLE,
            folder / "test",
            progress,
            prompt_path=prompt,
            threads=threads,
            memory_budget=memory_budget,
        )
    return {
        "task": name,
        "n_classes": after["n_classes"],
        "n_images": after["n_images"],
        "zero_shot_accuracy": before["accuracy"],
        "tuned_accuracy": after["accuracy"],
        "queries": tuned["queries"],
        "stage1_queries": tuned["stage1_queries"],
        "stage2_queries": tuned["stage2_queries"],
        "seconds": round(time.monotonic() - started, 3),
        "peak_rss_mib": round(peak_rss_mib(), 1),
    }


def task_names() -> list[str]:
    return sorted(p.name for p in TASKS.iterdir() if (p / "train").is_dir())


def lines(result: dict[str, Any]) -> list[str]:
    """The result as a table a newcomer understands."""
    rows = [
        ("accuracy, zero-shot", f"{100 * result['zero_shot_accuracy']:.1f} %"),
        ("accuracy, tuned", f"{100 * result['tuned_accuracy']:.1f} %"),
        ("queries (text-tower passes)", f"{result['queries']:,}"),
        ("  of them in stage 1", f"{result['stage1_queries']:,}"),
        ("  of them in stage 2", f"{result['stage2_queries']:,}"),
        ("time", duration(result["seconds"])),
        ("peak memory (RSS)", f"{result['peak_rss_mib']:.0f} MiB"),
    ]
    return [
        f"{result['n_images']} held-out pictures, {result['n_classes']} classes",
        *(f"  {name:29}{value:>10}" for name, value in rows),
    ]
