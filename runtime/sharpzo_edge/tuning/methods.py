"""The two methods: the paper's two stages, and ours. All that differs between them is in this file.

A method makes the optimisers of both stages. It knows how long the stages are, when w is evaluated, and why a
stage ends. The loop (loop.py) is the same for both methods.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial

import numpy as np

from ..search import cmaes, cmaes_stopping, sketched_descent, sparse_zo
from ..search.ask_tell import Optimiser
from ..search.gauss_newton import LinearModel
from ..search.losses import FeatureLoss, Loss
from ..search.sketched_descent import ModelOf
from ..types import Doubles, Floats, LabelledFeatures
from ..wording import counted
from .settings import AUTO, STEPS_AN_EVALUATION, EdgeSettings, PaperSettings, TuneSettings
from .stopping import PATIENCE_GENERATIONS, Limits

LossOf = Callable[[float], Loss]  # label smoothing -> the loss on the shots
SearchState = cmaes.State | sparse_zo.State | sketched_descent.State


class Method(ABC):
    """Both stages on fixed pictures.

    evaluates_before_stage2: whether stage 2 needs the class features at its first point
    update: what one update of stage 2 is called, for messages
    """

    evaluates_before_stage2: bool
    update: str

    def __init__(self, settings: TuneSettings, loss_of: LossOf):
        self.settings = settings
        self._loss = loss_of(0.0)

    def begin_stage1(self, seed: np.random.SeedSequence) -> Optimiser:
        """The optimiser of stage 1, at w = 0: the initial context."""
        origin = np.zeros(self.settings.dim)
        return cmaes.SharpnessAwareCMAES.start(self.settings.stage1(), origin, seed, self._loss.derivatives)

    @abstractmethod
    def begin_stage2(
        self, mean: Doubles, class_features: Floats, seed: np.random.SeedSequence, n_generations: int
    ) -> Optimiser | None:
        """The optimiser of stage 2, which starts at the mean (d,) of stage 1. None if stage 2 has no steps.

        class_features: (K, E) at the mean if `evaluates_before_stage2`, otherwise not used
        n_generations:  made in stage 1
        (The released code starts from the mean of fresh samples instead.)
        """

    def at_work(self, search: SearchState, n_generations: int) -> Optimiser:
        """The optimiser with this state, after n_generations of stage 1. The state says which stage."""
        if isinstance(search, cmaes.State):
            return cmaes.SharpnessAwareCMAES(self.settings.stage1(), search, self._loss.derivatives)
        return self._stage2_at_work(search, n_generations)

    def why_stage1_ends(self, search: SearchState, is_plateau: bool) -> str:
        """Why stage 1 ends after the present generation, for the user; "" if it goes on."""
        assert isinstance(search, cmaes.State)  # both methods have CMA-ES in stage 1
        limit = self.settings.n_generations
        if search.generation >= limit:
            return f"generation {limit} of {limit}"
        if self.settings.change_point == AUTO and is_plateau:
            return f"nothing better in {PATIENCE_GENERATIONS} generations"
        reasons = cmaes_stopping.stop_reasons(self.settings.stage1(), search)
        return ", ".join(f"converged ({name} {value:.3g})" for name, value in reasons.items())

    @abstractmethod
    def is_evaluated(self, optimiser: Optimiser) -> bool:
        """Whether to evaluate w after the present update of stage 2. An evaluation may cost a query."""

    @property
    @abstractmethod
    def why_stage2_ends(self) -> str:
        """Why stage 2 has finished by itself, for the user."""

    @abstractmethod
    def _stage2_at_work(self, search: SearchState, n_generations: int) -> Optimiser: ...

    def short_limit_note(self, limits: Limits) -> str:
        """A note for the user if the limit of queries ends the run very early; otherwise ""."""
        limit = limits.max_queries
        if self.settings.change_point == AUTO or limit is None:
            return ""  # the end of stage 1 is not known, or there is no limit
        one = self.settings.queries_a_generation
        stage1 = self.settings.n_generations * one
        left = limit - limits.opening_queries - stage1
        is_presets = limit == self.settings.default_queries
        named = f"the preset's limit of {counted(limit, 'query')}" if is_presets else f"--max-queries {limit}"
        if left <= 0:
            return (
                f"{named} ends in stage 1, which takes {counted(stage1, 'query')} with these settings "
                f"({one:,} a generation); --change-point sets its length"
            )
        return self._short_stage2_note(named, left)

    def _short_stage2_note(self, limit: str, left: int) -> str:
        return ""


class PaperMethod(Method):
    """The paper's: sharpness-aware CMA-ES, then sparse zeroth-order SGD. Both are told losses alone."""

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
    """Ours: a short sharpness-aware CMA-ES, then descent on sketches of the class features."""

    evaluates_before_stage2 = True
    update = "round"
    settings: EdgeSettings

    def __init__(self, settings: EdgeSettings, loss_of: LossOf, model_of: ModelOf = LinearModel):
        super().__init__(settings, loss_of)
        self._smoothed = loss_of(settings.label_smoothing)
        self._model_of = model_of

    def begin_stage2(
        self, mean: Doubles, class_features: Floats, seed: np.random.SeedSequence, n_generations: int
    ) -> Optimiser | None:
        own = self.settings.stage2()
        start = sketched_descent.SketchedDescent.start
        return start(own, self._smoothed, mean, class_features, seed, self._model_of)

    def is_evaluated(self, optimiser: Optimiser) -> bool:
        return True  # the class features are known, so it costs no query

    @property
    def why_stage2_ends(self) -> str:
        return "no step lowers the loss"

    def _stage2_at_work(self, search: SearchState, n_generations: int) -> Optimiser:
        assert isinstance(search, sketched_descent.State)  # the checkpoint is this command's
        own = self.settings.stage2()
        return sketched_descent.SketchedDescent(own, self._smoothed, search, self._model_of)

    def _short_stage2_note(self, limit: str, left: int) -> str:
        one = self.settings.queries_a_round
        if left >= one:
            return ""
        return (
            f"{limit} leaves {left} for stage 2, where a round takes {one:,}; --rank sets that, and "
            f"--change-point the length of stage 1"
        )


def method_of(settings: TuneSettings, pictures: LabelledFeatures, logit_scale: float) -> Method:
    """The method that uses these settings, on pictures of this machine. pictures: the shots."""
    return method_by(settings, partial(FeatureLoss, pictures, logit_scale))


def method_by(settings: TuneSettings, loss_of: LossOf, model_of: ModelOf = LinearModel) -> Method:
    """The method that uses these settings, wherever the pictures are.

    model_of: of edge's stage 2, see SketchedDescent
    """
    if isinstance(settings, EdgeSettings):
        return EdgeMethod(settings, loss_of, model_of)
    assert isinstance(settings, PaperSettings)  # there is no third kind
    return PaperMethod(settings, loss_of)
