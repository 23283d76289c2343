"""Running the two towers: a text tower computes `class_features`, an image tower `image_features`.

The plan says how a tower runs (tower_plan.py). Resident: the whole graph is in one session. Its weights are
packed for speed, or mapped as they lie on disk. Streamed: the tower runs step by step, and one reused buffer
holds the weights of one step. Frugal: streamed, and memory that a run frees returns to the system at once.
All give the same features.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np

from ..errors import BundleError, NumericsError
from ..process_memory import release_library_pages, return_freed_blocks
from ..types import Floats
from .bundle import Bundle
from .class_prompts import ClassPrompts, NameChunk
from .sessions import giving_back, open_session, run_session
from .streaming import StepWeights, kept
from .tangents import TangentTower
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
        release_library_pages()

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
        self._tangents: TangentTower | None = None
        if plan.tangents:
            weights = self._engine.weights if isinstance(self._engine, _Streamed) else None
            self._tangents = TangentTower(bundle, plan, weights)
            release_library_pages()

    def close(self) -> None:
        self._tangents = None
        super().close()

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

    def class_feature_tangents(self, context: Floats, directions: Floats, prompts: ClassPrompts) -> Floats:
        """How the class features change along directions: dT/dt of T(context + t direction), at t = 0.

        context (m, D), directions (n, m, D), n > 0 -> (n, K, E) float32. Costs n + 1 queries: a direction is
        one, and so is the pass at the context, which they share. A direction's answer does not depend on
        what other directions there are.
        Only for a tower whose plan has tangents. Source: forward-mode differentiation, see tangents.py
        """
        if self._tangents is None:
            raise ValueError("the tower is closed, or its plan has no tangents")
        return self._tangents.tangents(context, directions, prompts)


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
        self.weights = StepWeights(bundle, tower.data, tower.steps)
        self._at_the_end = giving_back() if mode == "streamed" else None

    def run(self, jobs: Iterable[Job]) -> Iterator[Floats]:
        carried: list[list[Floats]] = []
        by_name: list[dict[str, Any]] = []
        last = len(self._steps) - 1
        for number, (step, weights) in enumerate(zip(self._steps, self.weights.read(), strict=True)):
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
                    carried[i] = [kept(own, new) for own, new in zip_longest(rows[: len(answers)], answers)]


def _text_job(context: Floats, chunk: NameChunk) -> Job:
    return Job(
        {"context": context, "names": chunk.embeddings(), "name_positions": chunk.positions},
        {"mask": chunk.mask, "eot_rows": chunk.eot_rows},
    )
