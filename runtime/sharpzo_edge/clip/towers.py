"""Running the two towers: a text tower computes `class_features`, an image tower `image_features`.

The plan says how a tower runs (tower_plan.py). Resident: the whole graph is in one session. Its weights are
packed for speed, or mapped as they lie on disk. Streamed: the tower runs step by step, and one reused buffer
holds the weights of one step. Frugal: streamed, and memory that a run frees returns to the system at once.
All give the same features.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError, NumericsError
from ..process_memory import release_library_pages, return_freed_blocks
from ..types import Floats
from .bundle import Bundle
from .class_prompts import ClassPrompts, NameChunk
from .manifest import Step
from .sessions import giving_back, open_session, run_session
from .tower_plan import STREAMING, ImagePlan, Mode, TextPlan


@dataclass(frozen=True)
class Job:
    """The inputs of one sequence or batch of pictures on its way through a tower.

    inputs:  of the first step's graph, by name
    by_name: inputs that later steps may need, by name
    """

    inputs: dict[str, Any]
    by_name: dict[str, Any] = field(default_factory=dict)


class _Engine(Protocol):
    def run(self, jobs: Iterable[Job]) -> Iterator[Floats]:
        """Yields the output for each job, in order. Jobs and outputs are made when they are needed."""


class _Tower:
    """What both towers have in common. A context manager: leaving it frees the tower's memory."""

    def __init__(self, bundle: Bundle, part: str, plan: TextPlan | ImagePlan):
        return_freed_blocks()  # what the phase before needed
        release_library_pages()
        mode = plan.tower.mode
        engine = _Streamed if mode in STREAMING else _Resident
        self._engine: _Engine | None = engine(bundle, part, mode, plan.threads)
        release_library_pages()  # pages that only opening the sessions needed
        self._micro_batch = plan.tower.micro_batch
        self._embed_dim = bundle.manifest.embed_dim
        self.folder = bundle.folder

    def close(self) -> None:
        """Free sessions and weights. A closed tower cannot be used again."""
        self._engine = None
        return_freed_blocks()

    def _answers(self, jobs: Iterable[Job]) -> Iterator[Floats]:
        """Yields the features of each job. Raises BundleError when their width is not the manifest's."""
        if self._engine is None:
            raise ValueError("the tower is closed")
        for answer in self._engine.run(jobs):
            if answer.shape[-1] != self._embed_dim:
                raise BundleError(
                    f"A tower of the bundle {self.folder} gives {answer.shape[-1]} numbers for a text or a "
                    f"picture, and its manifest says {self._embed_dim}. Both must be as export wrote them. "
                    f"Copy the bundle again"
                )
            yield answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class TextTower(_Tower):
    """Computes class features from contexts."""

    def __init__(self, bundle: Bundle, plan: TextPlan):
        super().__init__(bundle, "text", plan)

    def class_features(self, context: Floats, prompts: ClassPrompts) -> Floats:
        """context (B, m, D) -> class features (B, K, E) of length one, float32. Costs B queries.

        Candidates go through in micro-batches, class names in the prompts' chunks. In a streamed tower, all
        of them pass a step while its weights are in memory.
        """
        parts = [
            (slice(start, start + self._micro_batch), chunk)
            for start in range(0, len(context), self._micro_batch)
            for chunk in prompts.chunks
        ]
        answers = self._answers(_text_job(context[some], chunk) for some, chunk in parts)
        result = np.empty((len(context), len(prompts.names), self._embed_dim), np.float32)
        for (some, chunk), answer in zip(parts, answers, strict=True):
            result[some, chunk.classes] = answer
        return result


class ImageTower(_Tower):
    """Computes image features from pixels."""

    def __init__(self, bundle: Bundle, plan: ImagePlan):
        super().__init__(bundle, "image", plan)

    def image_features(self, batches: Iterable[Floats]) -> Floats:
        """Micro-batches of pixels (B, 3, H, W) -> image features (N, E) of length one, float32.

        Each micro-batch is made when it is needed. Raises NumericsError when features are not finite.
        """
        found = np.concatenate(list(self._answers(Job({"pixels": pixels}) for pixels in batches)))
        if not np.isfinite(found).all():
            raise NumericsError(
                f"The image tower's answer holds {np.isnan(found).sum()} NaN among {found.size} numbers. "
                f"Image features must be finite. Check the bundle with: sharpzo-edge doctor "
                f"--bundle {self.folder}"
            )
        return found


class _Resident:
    """Runs the whole graph in one session."""

    def __init__(self, bundle: Bundle, part: str, mode: Mode, threads: int):
        tower = getattr(bundle.manifest, part)
        self._session = open_session(bundle, tower.graph, tower.data, mode, threads)

    def run(self, jobs: Iterable[Job]) -> Iterator[Floats]:
        for job in jobs:
            yield run_session(self._session, job.inputs | job.by_name)[0]


class _Streamed:
    """Runs a tower step by step, with one buffer for the weights of the present step.

    There is one session for each distinct graph of a step. A step's outputs are, in order, the first inputs
    of the next step. Its other inputs are its weights and what the job holds by name. So memory holds the
    weights of the largest step, what every job carries from step to step, and the intermediate results of one
    job.
    """

    def __init__(self, bundle: Bundle, part: str, mode: Mode, threads: int):
        tower = getattr(bundle.manifest, part)
        if not tower.steps:
            raise BundleError(
                f"The bundle {bundle.folder} has no steps for its {part} tower: it cannot be streamed. "
                f"Only towers that export cut into steps can. Allow more memory: --memory-budget none"
            )
        self._steps = tower.steps
        graphs = dict.fromkeys(step.graph for step in tower.steps)
        self._sessions = {graph: open_session(bundle, graph, tower.data, mode, threads) for graph in graphs}
        self._inputs = {graph: [i.name for i in s.get_inputs()] for graph, s in self._sessions.items()}
        self._bundle, self._data = bundle, tower.data
        self._at_the_end = giving_back() if mode == "streamed" else None
        self._buffer = np.empty(max(s.span[1] for s in tower.steps), np.uint8)

    def run(self, jobs: Iterable[Job]) -> Iterator[Floats]:
        carried: list[list[Floats]] = []
        by_name: list[dict[str, Any]] = []
        last = len(self._steps) - 1
        for number, (step, weights) in enumerate(self._with_weights()):
            session, names = self._sessions[step.graph], self._inputs[step.graph]
            if number == 0:
                for job in jobs:
                    carried.append([np.array(a) for a in run_session(session, job.inputs | weights)])
                    by_name.append(job.by_name)
                    del job  # otherwise its pixels would stay in memory until the last step
                continue
            for i, rows in enumerate(carried):
                feeds = dict(zip(names, rows, strict=False)) | weights
                feeds |= {name: value for name, value in by_name[i].items() if name in names}
                is_end = number == last and i == len(carried) - 1
                answers = run_session(session, feeds, self._at_the_end if is_end else None)
                if number == last:
                    carried[i] = []
                    yield answers[0]
                else:
                    _keep(carried, i, answers)

    def _with_weights(self) -> Iterator[tuple[Step, dict[str, NDArray[Any]]]]:
        path = self._bundle.path(self._data)
        with self._bundle.reading(self._data):
            opened = path.open("rb", buffering=0)
        with opened as file:
            for step in self._steps:
                start, length = step.span
                view = self._buffer[:length].data
                done = 0
                while done < length:
                    with self._bundle.reading(self._data):
                        n = os.preadv(file.fileno(), [view[done:]], start + done)
                    if n == 0:
                        raise BundleError(
                            f"{path} ends in the middle of a block, at byte {start + done}. "
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


def _keep(carried: list[list[Floats]], i: int, answers: list[Floats]) -> None:
    """Copy a step's outputs into the arrays of the step before, where the shapes agree.

    So arrays that outlive a run stay at the same addresses, and the memory that a run used can return as a
    whole. Otherwise each step would leave its outputs somewhere in the middle of it.
    """
    before = carried[i]
    if [a.shape for a in answers] == [b.shape for b in before]:
        for own, answer in zip(before, answers, strict=True):
            np.copyto(own, answer)
    else:
        carried[i] = [np.array(answer) for answer in answers]


def _text_job(context: Floats, chunk: NameChunk) -> Job:
    return Job(
        {"context": context, "names": chunk.embeddings(), "name_positions": chunk.positions},
        {"mask": chunk.mask, "eot_rows": chunk.eot_rows},
    )
