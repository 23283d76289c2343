"""Sessions of onnxruntime: how a graph is opened and run."""

from __future__ import annotations

import functools
from typing import Any

from ..errors import BundleError, UsageError
from ..types import Floats
from .bundle import Bundle
from .quiet_onnxruntime import ort
from .tower_plan import STREAMING, Mode

MOST_THREADS = 256  # each takes memory of its own


def onnxruntime_version() -> str:
    version: str = ort.__version__
    return version


def open_session(bundle: Bundle, graph: str, mode: Mode, threads: int) -> ort.InferenceSession:
    check_threads(threads)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads  # 0: one a physical core
    options.inter_op_num_threads = 1
    # Threads that spin while they wait take the time of whatever else runs on a small board.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    if mode == "mapped":  # a packed copy of every matrix would be made beside the mapped one
        options.add_session_config_entry("session.disable_prepacking", "1")
    if mode in STREAMING:
        # Each session's own arena would keep what it once took: the peak would be the sum of all the steps'.
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
    if mode == "streamed":
        _share_an_arena()
        options.add_session_config_entry("session.use_env_allocators", "1")
    path = bundle.verified(graph)  # onnxruntime may crash on a damaged one
    try:
        # Grow by what is asked for: doubling would keep up to twice the activations for good.
        provider = ("CPUExecutionProvider", {"arena_extend_strategy": "kSameAsRequested"})
        return ort.InferenceSession(str(path), options, providers=[provider])
    except MemoryError:
        raise
    except Exception as error:  # onnxruntime's own exceptions share no base class of use
        raise BundleError(
            f"onnxruntime {ort.__version__} cannot load {path}: {str(error)[:300]}. "
            f"The graph must be as export wrote it. Copy the bundle again, or check it with: "
            f"sharpzo-edge doctor --bundle {bundle.folder}"
        ) from error


def check_threads(threads: int) -> None:
    if not 0 <= threads <= MOST_THREADS:
        raise UsageError(
            f"--threads {threads} is not a number of threads. It takes 0 (one a core) to {MOST_THREADS}. "
            f"Try --threads 0"
        )


@functools.cache
def _share_an_arena() -> None:
    """One arena for all streamed sessions of this process; emptied after every pass (giving_back).

    Doubling by powers of two fragments least, and what is never touched of it is not resident.
    """
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    next_power_of_two = 0
    ort.create_and_register_allocator(
        memory, ort.OrtArenaCfg({"max_mem": 0, "arena_extend_strategy": next_power_of_two})
    )


def giving_back() -> ort.RunOptions:
    """For the last run of a pass: the arena gives back what it holds, and takes it anew in the next pass."""
    options = ort.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def run_session(
    session: ort.InferenceSession, feeds: dict[str, Any], options: ort.RunOptions | None = None
) -> list[Floats]:
    """One run; its outputs are copies that onnxruntime does not know any more."""
    try:
        outputs: list[Floats] = session.run(None, feeds, options)
        return outputs
    except MemoryError:
        raise
    except Exception as error:
        raise BundleError(
            f"onnxruntime {ort.__version__} cannot run a graph of the bundle: {str(error)[:300]}. "
            f"The graph must be as export wrote it. Copy the bundle again, or check it with: "
            f"sharpzo-edge doctor --bundle BUNDLE"
        ) from error
