"""Many runs at once, each in a process of its own on one thread."""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from typing import Any

from .jobs import Job
from .one_run import Place
from .runs import REFUSED

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

Todo = tuple[Job, dict[str, Any]]


def in_processes(
    do: Callable[..., dict[str, Any]], place: Place, todo: Sequence[Todo], n: int
) -> Iterator[tuple[Todo, dict[str, Any] | None]]:
    """(job, result) as they are done; None for one that failed, whose traceback is shown."""
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))  # before a child imports numpy
    with ProcessPoolExecutor(n, get_context("spawn"), initializer=end_with_parent) as processes:
        waiting = {processes.submit(do, place, *work): work for work in todo}
        try:
            for i, future in enumerate(as_completed(waiting), 1):
                work = waiting[future]
                try:
                    result = future.result()
                except Exception:
                    traceback.print_exc()
                    print(f"[{i}/{len(todo)}] {work[0]} FAILED: {work[1]}", flush=True)
                    yield work, None
                    continue
                print(f"[{i}/{len(todo)}] {work[0]}: {in_words(result)}", flush=True)
                yield work, result
        except BaseException:
            processes.shutdown(wait=False, cancel_futures=True)
            raise


def end_with_parent() -> None:
    """Of a worker: whatever ends the process that it works for, even a kill, ends it too."""

    def watch() -> None:
        parent = parent_process()
        assert parent is not None  # a worker has one
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def in_words(result: dict[str, Any]) -> str:
    if REFUSED in result:
        return f"refused: {result[REFUSED]}"
    parts = [
        f"{words} {100 * result[key]:.1f} %"
        for key, words in (("test_accuracy", "test"), ("val_accuracy", "validation"))
        if result.get(key) is not None
    ]
    parts += [f"loss {result['train_loss']:.4f}", f"{result['queries']:,} queries, {result['seconds']:.0f} s"]
    return ", ".join(parts)
