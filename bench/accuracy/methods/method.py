"""What a method is: given a Problem it yields Moments, until its queries are spent.

A method sees the shots and the validation pictures, never a test set: whoever runs it measures the
moments. All share the text graph, the image features, the counter of queries and the seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from sharpzo_edge.clip.bundle import Bundle
from sharpzo_edge.clip.class_prompts import class_prompts, context_from_words
from sharpzo_edge.clip.towers import TextTower
from sharpzo_edge.search.losses import cross_entropies
from sharpzo_edge.seeds import seed_stream
from sharpzo_edge.tuning.objective import Objective, projection
from sharpzo_edge.types import Doubles, Floats, LabelledFeatures

IN_USE = "in use"
Kind = Literal["prompt", "head", "backprop", "picture"]
Logits = Callable[[Floats], Floats | Doubles]


@dataclass(frozen=True)
class Problem:
    """A few-shot task at one seed.

    tower:   of the bundle, open; batch: points that it takes at once
    context: (m, D) the initial context; std: of A's entries by which |w| = 1 moves it by its own size
    train, val: unit image features of the shots, and of further pictures to choose by
    threads: for a tower that a method opens itself
    pixels:  (N, 3, H, W) of the shots, normalised for the image tower, for methods that change pictures
    tangents: whether the tower computes them
    template: the task's own, for methods that tune no prompt
    """

    task: str
    bundle: Bundle
    tower: TextTower
    batch: int
    class_names: tuple[str, ...]
    context: Floats
    train: LabelledFeatures
    val: LabelledFeatures
    seed: int
    threads: int = 0
    pixels: Callable[[], Floats] | None = None
    template: str = ""
    tangents: bool = False

    @property
    def logit_scale(self) -> float:
        return self.bundle.manifest.logit_scale

    @property
    def std(self) -> float:
        return float(np.sqrt(np.mean(np.square(self.context, dtype=np.float64))))

    def seed_stream(self, name: str) -> np.random.SeedSequence:
        """The seed of one use of randomness, as the product draws it."""
        return seed_stream(self.seed, name)

    def objective(self, dim: int = 512, std: float = 1.0) -> Objective:
        """context + reshape(A w): the product's own, with a fresh counter of queries."""
        A = projection(self.seed_stream("projection"), self.context.size, dim, std)
        return self.objective_of(self.context, A)

    def objective_of(self, context: Floats, A: Floats) -> Objective:
        """The same for another initial context (m, D), and any A (m D, d)."""
        prompts = class_prompts(self.bundle, self.class_names, len(context))
        return Objective(
            self.tower, prompts, context, A, self.train, self.logit_scale, self.batch, self.tangents
        )

    def spelt_out(self) -> Problem:
        """The same with the task's template instead of the initial words, if it has one.

        What is before the name becomes the context, and what is behind it (but the full stop, which every
        name gets) a part of the name. A context may be empty here.
        """
        if not self.template:
            return self
        before, behind = self.template.removesuffix(".").split("{}")
        context = context_from_words(self.bundle, before.strip()) if before else self.context[:0]
        return replace(self, class_names=tuple(name + behind for name in self.class_names), context=context)


@dataclass(frozen=True)
class Moment:
    """What a method would return if it were stopped now.

    queries:    spent so far, this look included
    train_loss: cross-entropy on the shots at the model's logit scale
    logits:     unit image features (N, E) -> (N, K); of a method of kind "picture", pixels (N, 3, H, W)
    seconds:    since the method began, from a method that keeps time itself because it yields its moments
                only when it is done; None: they are yielded as they come, and whoever runs it keeps time
    use:        at the end of a tune: a way to label, or IN_USE; no part of the run itself
    """

    queries: int
    train_loss: float
    logits: Logits
    seconds: float | None = None
    use: str = ""


@dataclass(frozen=True)
class Method:
    """label: in tables; grid: the points that its hyper-parameters are chosen from, at most 9, its authors'
    values first; trial: settings beside a point's while it is tried, where its few queries would not reach
    what it decides; run(problem, max_queries, settings): moments in the order of their queries, or UsageError
    for a problem that it refuses; load(bundle): what a process needs once, before a run's clock starts.
    """

    name: str
    label: str
    kind: Kind
    run: Callable[[Problem, int, Mapping[str, Any]], Iterator[Moment]]
    grid: tuple[Mapping[str, Any], ...] = field(default=({},))
    trial: Mapping[str, Any] = field(default_factory=dict)
    needs_torch: bool = False
    load: Callable[[Bundle], None] = lambda bundle: None


def loss_of(logits: Floats | Doubles, labels: NDArray[np.int64]) -> float:
    """Mean cross-entropy, computed in double precision."""
    return float(cross_entropies(cast(Floats, logits), labels).mean())
