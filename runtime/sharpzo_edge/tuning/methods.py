"""The two methods: the paper's pair of stages, and our own. What differs between them is said here.

A method makes the optimisers of both stages, and knows how long they are, when they are evaluated and why
they end. The loop (loop.py) is the same for both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from ..search import cmaes, sketched_descent, sparse_zo
from ..search.ask_tell import Optimiser
from ..search.losses import FeatureLoss
from ..types import Doubles, Floats, LabelledFeatures
from .presets import AUTO, STEPS_AN_EVALUATION, EdgeSettings, PaperSettings, TuneSettings
from .stopping import PATIENCE_GENERATIONS, Limits

SearchState = cmaes.State | sparse_zo.State | sketched_descent.State


class Method(ABC):
    """Both stages on fixed pictures.

    evaluates_before_stage2: whether stage 2 begins from known class features
    update: what an update of stage 2 is called
    """

    evaluates_before_stage2: bool
    update: str

    def __init__(self, settings: TuneSettings, pictures: LabelledFeatures, logit_scale: float):
        self.settings = settings
        self._loss = FeatureLoss(pictures, logit_scale)

    def begin_stage1(self, seed: np.random.SeedSequence) -> Optimiser:
        """From w = 0, the initial words."""
        origin = np.zeros(self.settings.dim)
        return cmaes.SharpnessAwareCMAES.start(self.settings.stage1(), origin, seed, self._loss.gradient)

    @abstractmethod
    def begin_stage2(
        self, mean: Doubles, class_features: Floats, seed: np.random.SeedSequence, n_generations: int
    ) -> Optimiser | None:
        """From the mean of stage 1 (the released code starts from a mean of fresh samples instead).

        class_features: at the mean, where `evaluates_before_stage2`. None: there is nothing to do.
        """

    def at_work(self, search: SearchState, n_generations: int) -> Optimiser:
        """The optimiser whose state this is, after so many generations of stage 1."""
        if isinstance(search, cmaes.State):
            return cmaes.SharpnessAwareCMAES(self.settings.stage1(), search, self._loss.gradient)
        return self._stage2_at_work(search, n_generations)

    def why_stage1_ends(self, search: SearchState, is_plateau: bool) -> str:
        """Why it is over after this generation, or nothing."""
        assert isinstance(search, cmaes.State)  # stage 1 is CMA-ES in both methods
        limit = self.settings.n_generations
        if search.generation >= limit:
            return f"generation {limit} of {limit}"
        if self.settings.change_point == AUTO and is_plateau:
            return f"nothing better in {PATIENCE_GENERATIONS} generations"
        reasons = cmaes.stop_reasons(self.settings.stage1(), search)
        return ", ".join(f"converged ({name} {value:.3g})" for name, value in reasons.items())

    @abstractmethod
    def is_evaluated(self, optimiser: Optimiser) -> bool:
        """Whether w is evaluated after this update of stage 2, which may cost a query."""

    @property
    @abstractmethod
    def why_stage2_ends(self) -> str:
        """Where it comes to its own end."""

    @abstractmethod
    def _stage2_at_work(self, search: SearchState, n_generations: int) -> Optimiser: ...

    def short_limit_note(self, limits: Limits) -> str:
        """What the user should know of a limit that ends the run early, or nothing."""
        limit = limits.max_queries
        if self.settings.change_point == AUTO or limit is None:
            return ""  # nobody knows when stage 1 ends, or it ends where it wants
        one = self.settings.queries_a_generation
        stage1 = self.settings.n_generations * one
        left = limit - limits.opening_queries - stage1
        is_presets = limit == self.settings.default_queries
        named = f"the preset's limit of {limit:,} queries" if is_presets else f"--max-queries {limit}"
        if left <= 0:
            return (
                f"{named} ends in stage 1, which takes {stage1:,} queries with these settings "
                f"({one:,} a generation); --change-point sets its length"
            )
        return self._short_stage2_note(named, left)

    def _short_stage2_note(self, limit: str, left: int) -> str:
        return ""


class PaperMethod(Method):
    """Sharpness-aware CMA-ES, then sparse zeroth-order SGD: both see losses alone."""

    evaluates_before_stage2 = False
    update = "step"
    settings: PaperSettings

    def begin_stage2(
        self, mean: Doubles, class_features: Floats, seed: np.random.SeedSequence, n_generations: int
    ) -> Optimiser | None:
        own = self._stage2_settings(n_generations)
        return sparse_zo.SparseZOSGD.start(own, mean, seed) if own.steps else None

    def is_evaluated(self, optimiser: Optimiser) -> bool:
        return optimiser.n_updates % STEPS_AN_EVALUATION == 0

    @property
    def why_stage2_ends(self) -> str:
        return f"all {self.settings.steps:,} steps are done"

    def short_limit_note(self, limits: Limits) -> str:
        steps = self.settings.steps
        if self.settings.change_point != AUTO and steps <= self.settings.n_generations:
            return f"--steps {steps} ends in stage 1: there will be no stage 2"
        return super().short_limit_note(limits)

    def _stage2_at_work(self, search: SearchState, n_generations: int) -> Optimiser:
        assert isinstance(search, sparse_zo.State)  # the checkpoint is this command's
        return sparse_zo.SparseZOSGD(self._stage2_settings(n_generations), search)

    def _stage2_settings(self, n_generations: int) -> sparse_zo.Settings:
        return self.settings.stage2(self.settings.steps - n_generations)


class EdgeMethod(Method):
    """A short sharpness-aware CMA-ES, then descent in sketches of the class features."""

    evaluates_before_stage2 = True
    update = "round"
    settings: EdgeSettings

    def __init__(self, settings: EdgeSettings, pictures: LabelledFeatures, logit_scale: float):
        super().__init__(settings, pictures, logit_scale)
        self._smoothed = FeatureLoss(pictures, logit_scale, settings.label_smoothing)

    def begin_stage2(
        self, mean: Doubles, class_features: Floats, seed: np.random.SeedSequence, n_generations: int
    ) -> Optimiser | None:
        own = self.settings.stage2()
        return sketched_descent.SketchedDescent.start(own, self._smoothed, mean, class_features, seed)

    def is_evaluated(self, optimiser: Optimiser) -> bool:
        return True  # the class features are known, so it costs no query

    @property
    def why_stage2_ends(self) -> str:
        return "no step lowers the loss"

    def _stage2_at_work(self, search: SearchState, n_generations: int) -> Optimiser:
        assert isinstance(search, sketched_descent.State)  # the checkpoint is this command's
        return sketched_descent.SketchedDescent(self.settings.stage2(), self._smoothed, search)

    def _short_stage2_note(self, limit: str, left: int) -> str:
        one = self.settings.queries_a_round
        if left >= one:
            return ""
        return (
            f"{limit} leaves {left} for stage 2, where a round takes {one:,}; --rank sets that, and "
            f"--change-point the length of stage 1"
        )


def method_of(settings: TuneSettings, pictures: LabelledFeatures, logit_scale: float) -> Method:
    """The method that these settings are of."""
    if isinstance(settings, EdgeSettings):
        return EdgeMethod(settings, pictures, logit_scale)
    assert isinstance(settings, PaperSettings)  # there are these two
    return PaperMethod(settings, pictures, logit_scale)
