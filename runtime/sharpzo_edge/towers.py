"""Running the two towers: the only file that imports onnxruntime.

A text tower answers `class_features`, an image tower `image_features`. Resident towers hold the whole
graph; streamed ones hold one block at a time, whose weights are read into one reused buffer. Both give
the same features.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from .arrays import Floats
from .bundle import Bundle, Step
from .class_prompts import ClassPrompts, NameChunk
from .errors import BundleError, UsageError

MOST_THREADS = 256  # each takes memory of its own


class TextTower(Protocol):
    def class_features(self, context: Floats, prompts: ClassPrompts) -> Floats:
        """context (B, m, D) -> unit class features (B, K, E), float32. Costs B queries."""


class _Closing:
    """A tower is a context manager; leaving it gives its memory back."""

    def close(self) -> None:
        self.__dict__.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ResidentTextTower(_Closing):
    """The whole text graph in one session."""

    def __init__(self, bundle: Bundle, threads: int = 0):
        self._session = _session(bundle, bundle.manifest.text.graph, threads)

    def class_features(self, context: Floats, prompts: ClassPrompts) -> Floats:
        return _by_chunk(context, prompts, self._chunk_features)

    def _chunk_features(self, context: Floats, chunk: NameChunk) -> Floats:
        feeds = {"context": context, "names": chunk.embeddings, **_masks(context, chunk)}
        return _run(self._session, feeds)


class StreamedTextTower(_Closing):
    """The text graph step by step: memory holds one block's weights instead of the tower's."""

    def __init__(self, bundle: Bundle, threads: int = 0):
        self._streamed = _StreamedSteps(
            bundle, bundle.manifest.text.data, bundle.manifest.text.steps, threads
        )

    def class_features(self, context: Floats, prompts: ClassPrompts) -> Floats:
        return _by_chunk(context, prompts, self._chunk_features)

    def _chunk_features(self, context: Floats, chunk: NameChunk) -> Floats:
        return self._streamed.run({"context": context, "names": chunk.embeddings}, _masks(context, chunk))


class ResidentImageTower(_Closing):
    """The whole image graph in one session."""

    def __init__(self, bundle: Bundle, threads: int = 0):
        self._session = _session(bundle, bundle.manifest.image.graph, threads)

    def image_features(self, pixels: Floats) -> Floats:
        """pixels (B, 3, H, W) -> unit image features (B, E), float32."""
        return _run(self._session, {"pixels": pixels})


class StreamedImageTower(_Closing):
    """A transformer image tower step by step."""

    def __init__(self, bundle: Bundle, threads: int = 0):
        image = bundle.manifest.image
        self._streamed = _StreamedSteps(bundle, image.data, image.steps, threads)

    def image_features(self, pixels: Floats) -> Floats:
        return self._streamed.run({"pixels": pixels}, {})


class _StreamedSteps:
    """Sessions of the distinct step graphs, and one buffer for the weights of the step at hand."""

    def __init__(self, bundle: Bundle, data: str, steps: tuple[Step, ...], threads: int):
        if not steps:
            raise BundleError(
                f"The bundle {bundle.folder} has no steps for {data}: this tower cannot be streamed. "
                f"Only towers that export cut into steps can. Run the whole graph instead"
            )
        self._steps = steps
        self._sessions = {s.graph: _session(bundle, s.graph, threads) for s in steps}
        self._data = bundle.path(data)
        self._buffer = np.empty(max(_span(s)[1] for s in steps), np.uint8)

    def run(self, first: dict[str, Any], extra: dict[str, Any]) -> Floats:
        """Feed `first` to the first step, its answer to the next as `rows`; `extra` to whoever asks."""
        rows: Floats | None = None
        for step, weights in self._with_weights():
            session = self._sessions[step.graph]
            wanted = {i.name for i in session.get_inputs()}
            feeds = dict(first) if rows is None else {"rows": rows}
            feeds |= {name: value for name, value in extra.items() if name in wanted} | weights
            rows = _run(session, feeds)
        assert rows is not None  # there are steps
        return rows

    def _with_weights(self) -> Iterator[tuple[Step, dict[str, NDArray[Any]]]]:
        with self._data.open("rb", buffering=0) as file:
            for step in self._steps:
                start, length = _span(step)
                view = self._buffer[:length].data
                done = 0
                while done < length:
                    n = os.preadv(file.fileno(), [view[done:]], start + done)
                    if n == 0:
                        raise BundleError(
                            f"{self._data} ends in the middle of a block, at byte {start + done}. "
                            f"It must be as export wrote it. Copy the bundle again"
                        )
                    done += n
                yield (
                    step,
                    {
                        t.name: np.frombuffer(
                            self._buffer, t.dtype, int(np.prod(t.shape)), t.offset - start
                        ).reshape(t.shape)
                        for t in step.weights
                    },
                )


def _span(step: Step) -> tuple[int, int]:
    """Where a step's weights begin in the data file, and how many bytes they take together."""
    if not step.weights:
        return 0, 0
    start = min(t.offset for t in step.weights)
    return start, max(t.end for t in step.weights) - start


def _by_chunk(
    context: Floats, prompts: ClassPrompts, chunk_features: Callable[[Floats, NameChunk], Floats]
) -> Floats:
    """Run the chunks one after the other and put the classes back in their order."""
    features = [chunk_features(context, chunk) for chunk in prompts.chunks]
    result = np.empty((len(context), len(prompts.names), features[0].shape[-1]), np.float32)
    for chunk, part in zip(prompts.chunks, features, strict=True):
        result[:, chunk.classes] = part
    return result


def _masks(context: Floats, chunk: NameChunk) -> dict[str, Any]:
    return {
        "context_mask": causal_mask(1 + context.shape[1]),
        "name_mask": causal_mask(chunk.embeddings.shape[1]),
        "eot_index": chunk.eot_index,
    }


def causal_mask(n: int) -> Floats:
    """(n, n) float32: 0 on and below the diagonal, -inf above."""
    return np.triu(np.full((n, n), -np.inf, np.float32), 1)


def _session(bundle: Bundle, graph: str, threads: int) -> ort.InferenceSession:
    if not 0 <= threads <= MOST_THREADS:
        raise UsageError(
            f"--threads {threads} is not a number of threads. It takes 0 (one a core) to {MOST_THREADS}. "
            f"Try --threads 0"
        )
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads  # 0: one a physical core
    options.inter_op_num_threads = 1
    # Threads that spin while they wait take the time of whatever else runs on a small board.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    path: Path = bundle.path(graph)
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


def _run(session: ort.InferenceSession, feeds: dict[str, Any]) -> Floats:
    """One run; the only output is copied, so that onnxruntime can use its memory again."""
    try:
        (output,) = session.run(None, feeds)
    except MemoryError:
        raise
    except Exception as error:
        raise BundleError(
            f"onnxruntime {ort.__version__} cannot run a graph of the bundle: {str(error)[:300]}. "
            f"The graph must be as export wrote it. Copy the bundle again, or check it with: "
            f"sharpzo-edge doctor --bundle BUNDLE"
        ) from error
    return np.array(output, np.float32)
