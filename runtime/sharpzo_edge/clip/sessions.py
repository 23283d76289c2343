"""onnxruntime's sessions: how a graph is opened and run."""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path
from typing import Any

from ..errors import BundleError, SharpzoError, UsageError, cannot_read
from ..libraries import without_proc
from ..types import Floats
from .bundle import Bundle
from .linked_weights import is_elsewhere, with_data_at
from .quiet_onnxruntime import ort
from .tower_plan import STREAMING, Mode

WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
# In onnxruntime's messages: no memory, and the number of a system's error.
NO_MEMORY = re.compile(r"bad_alloc|Failed to allocate memory|Cannot allocate memory|SystemError : 12\b")
NO_THREADS = re.compile(r"PosixThread|pthread_create")
SYSTEM_ERROR = re.compile(r"SystemError : (\d+)")
MOST_THREADS = 256  # each thread takes memory


def onnxruntime_version() -> str:
    version: str = ort.__version__
    return version


def open_session(bundle: Bundle, graph: str, data: str, mode: Mode, threads: int) -> ort.InferenceSession:
    """A session for one graph of a bundle, with settings that suit the mode. Checks the graph's sha256 first.

    data: the file with those of the graph's weights that are no inputs: onnxruntime maps it
    threads: 0 is one a core
    Raises UsageError for a bad number of threads, BundleError for a damaged graph, or one that onnxruntime
    cannot load, SharpzoError where it wants /proc and there is none.
    """
    check_threads(threads)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads  # 0: one for each physical core
    options.inter_op_num_threads = 1
    # No busy waiting: it would take time from other programs on a small board.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    if mode == "mapped":  # otherwise every matrix is also copied into memory, packed
        options.add_session_config_entry("session.disable_prepacking", "1")
    if mode in STREAMING:
        # With an arena in each session, none would return memory: the peak would be the sum over all steps.
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
    if mode == "streamed":
        _share_an_arena()
        options.add_session_config_entry("session.use_env_allocators", "1")
    path = bundle.verified(graph)  # onnxruntime may crash on a damaged file
    model: str | bytes = str(path)
    bundle.check_size(data)
    try:
        if is_elsewhere(path, bundle.path(data)):
            real = Path(os.path.realpath(bundle.path(data)))
            with bundle.reading(graph):
                graph_bytes = path.read_bytes()
            model = with_data_at(graph_bytes, data, real.name)
            options.add_session_config_entry(WEIGHTS_FOLDER, str(real.parent))
        # An arena that doubles would keep up to twice the activations for good.
        provider = ("CPUExecutionProvider", {"arena_extend_strategy": "kSameAsRequested"})
        return ort.InferenceSession(model, options, providers=[provider])
    except (MemoryError, SharpzoError):
        raise
    except Exception as error:  # onnxruntime's exceptions have no useful common base class
        _raise_if_the_systems(error, bundle.path(data))
        if "procfs" in str(error):
            raise without_proc() from error
        raise BundleError(
            f"onnxruntime {ort.__version__} cannot load {path}: {str(error)[:300]}. "
            f"The graph must be as export wrote it. Copy the bundle again, or check it with: "
            f"sharpzo-edge doctor --bundle {bundle.folder}"
        ) from error


def _raise_if_the_systems(error: Exception, data: Path | None) -> None:
    """onnxruntime's text for what is not the bundle's fault. Raises MemoryError, SharpzoError.

    data: the file that it may have had to read
    """
    if NO_MEMORY.search(str(error)):
        raise MemoryError(str(error)) from error
    if NO_THREADS.search(str(error)):
        raise SharpzoError(
            "onnxruntime cannot start its threads. The limit on this user's or container's processes and "
            "threads must have room for them (ulimit -u, a container's or service's limit). "
            "Type the same command again with --threads 1, or raise that limit"
        ) from error
    if data and (found := SYSTEM_ERROR.search(str(error))):
        number = int(found[1])
        raise cannot_read(data, OSError(number, os.strerror(number))) from error


def check_threads(threads: int) -> None:
    """Raises UsageError unless `threads` is between 0 and MOST_THREADS."""
    if not 0 <= threads <= MOST_THREADS:
        raise UsageError(
            f"--threads {threads} is not a number of threads. It takes 0 (one a core) to {MOST_THREADS}. "
            f"Try --threads 0"
        )


@functools.cache
def _share_an_arena() -> None:
    """Make one arena (onnxruntime's memory pool) for all streamed sessions of this process.

    It is emptied after every batch, see giving_back. It grows by powers of two: that leaves the fewest gaps,
    and the part that is never used takes no memory.
    """
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    next_power_of_two = 0
    ort.create_and_register_allocator(
        memory, ort.OrtArenaCfg({"max_mem": 0, "arena_extend_strategy": next_power_of_two})
    )


def giving_back() -> ort.RunOptions:
    """Options for the last run of a batch: after it the arena returns its memory to the system."""
    options = ort.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def run_session(
    session: ort.InferenceSession, feeds: dict[str, Any], options: ort.RunOptions | None = None
) -> list[Floats]:
    """Run a graph once. feeds: its inputs by name. Returns its outputs, which onnxruntime does not use again.

    Raises BundleError when onnxruntime cannot run the graph.
    """
    try:
        outputs: list[Floats] = session.run(None, feeds, options)
        return outputs
    except MemoryError:
        raise
    except Exception as error:
        _raise_if_the_systems(error, None)
        raise BundleError(
            f"onnxruntime {ort.__version__} cannot run a graph of the bundle: {str(error)[:300]}. "
            f"The graph must be as export wrote it. Copy the bundle again, or check it with: "
            f"sharpzo-edge doctor --bundle BUNDLE"
        ) from error
