"""`demo`: tune the shipped small CLIP on shipped pictures. It walks the user's own way: eval, tune, eval."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..demo import BUNDLE, DEFAULT_TASK, TASKS, task_names
from ..errors import BundleError, ImagesError, InterruptedRunError, SharpzoError, UsageError
from ..libraries import not_as_installed
from ..process_memory import peak_rss_mib
from ..requests import DemoRequest, TuneRequest, by_keywords
from ..run.progress import caller_of
from ..tuning.answers import ByUse
from ..tuning.prepare import check
from .evaluate import EvaluateResult, evaluate
from .tune import tune_or_repeat


@dataclass(frozen=True)
class DemoResult:
    """Accuracies are fractions, on pictures held out of everything.

    tuned_accuracy: of the tuned prompt alone
    seconds:        of all three steps
    use:            what predict and eval would use;  by: the accuracy of each way to label
    """

    task: str
    n_classes: int
    n_images: int
    zero_shot_accuracy: float
    tuned_accuracy: float
    queries: int
    stage1_queries: int
    stage2_queries: int
    seconds: float
    peak_rss_mib: float
    use: str
    by: ByUse

    @property
    def opening_queries(self) -> int:
        """Those before stage 1."""
        return self.queries - self.stage1_queries - self.stage2_queries

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def demo_request(request: DemoRequest) -> DemoResult:
    """Works in a temporary folder, which it removes.

    Raises UsageError for an unknown task, a seed that is none, or no place for the folder.
    """
    task = request.task or DEFAULT_TASK
    folder = TASKS / task
    try:
        shipped = task_names()
    except OSError as error:
        raise not_as_installed(str(error)) from error
    if task not in shipped:
        raise UsageError(
            f"--task {task} is not shipped. It takes one of: {', '.join(shipped)}. Try --task {DEFAULT_TASK}"
        )
    caller = caller_of(request.on_progress, request.stop)
    started = time.monotonic()
    with _temporary_folder() as work:
        tuning = TuneRequest(
            bundle=BUNDLE,
            images=folder / "train",
            output=Path(work) / "prompt.safetensors",
            preset="demo",
            seed=request.seed,
            threads=request.threads,
            memory_budget=request.memory_budget,
            on_progress=request.on_progress,
            stop=request.stop,
        )
        check(tuning)
        caller.say(f"zero-shot, on pictures held out of everything ({task})")
        try:
            before = _evaluated(tuning, folder / "test", prompt=None)
            caller.say("tuning the prompt, forward passes alone")
            tuned, _ = tune_or_repeat(tuning)
            caller.say("with the tuned prompt, on the same pictures")
            after = _evaluated(tuning, folder / "test", prompt=tuning.output_path)
        except InterruptedRunError as stopped:
            raise InterruptedRunError(
                "Stopped. The demo keeps nothing. Begin again with: sharpzo-edge demo", stopped.exit_code
            ) from stopped
        except (BundleError, ImagesError) as error:
            raise not_as_installed(str(error)) from error
        except SharpzoError as error:
            if isinstance(error.__cause__, OSError) and str(work) in str(error):
                raise _no_place(error.__cause__) from error
            raise
    return DemoResult(
        task=task,
        n_classes=after.n_classes,
        n_images=after.n_images,
        zero_shot_accuracy=before.accuracy,
        tuned_accuracy=after.accuracy if after.by.prompt is None else after.by.prompt,
        queries=tuned.queries,
        stage1_queries=tuned.stage1_queries,
        stage2_queries=tuned.stage2_queries,
        seconds=round(time.monotonic() - started, 3),
        peak_rss_mib=round(peak_rss_mib(), 1),
        use=after.use,
        by=after.by,
    )


@contextlib.contextmanager
def _temporary_folder() -> Iterator[str]:
    try:
        folder = tempfile.TemporaryDirectory(prefix="sharpzo-edge-demo-", ignore_cleanup_errors=True)
    except OSError as error:
        raise _no_place(error) from error
    with folder as path:
        yield path


def _no_place(error: OSError) -> UsageError:
    return UsageError(
        f"demo has no folder for its temporary files ({error.strerror or error}). It takes some megabytes in "
        f"TMPDIR, /tmp, /var/tmp or the working folder, one of which must be writable. "
        f"Type: TMPDIR=FOLDER sharpzo-edge demo"
    )


demo = by_keywords(DemoRequest)(demo_request)


def _evaluated(tuning: TuneRequest, images: Path, prompt: Path | None) -> EvaluateResult:
    return evaluate(
        tuning.bundle,
        images,
        prompt=prompt,
        threads=tuning.threads,
        memory_budget=tuning.memory_budget,
        on_progress=tuning.on_progress,
        stop=tuning.stop,
    )
