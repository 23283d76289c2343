"""sharpzo-edge, device side: tune CLIP's prompt vector with forward passes alone.

    import sharpzo_edge

    result = sharpzo_edge.tune("vit-b-16", "photos", "prompt.safetensors", max_minutes=10)
    print(result.val_accuracy)

What is listed in __all__ is public; docs/python.md shows it. Each name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .version import __version__ as __version__

if TYPE_CHECKING:
    from .clip.bundle import Bundle
    from .commands.classifier import Classifier, Prediction
    from .commands.evaluate import EvaluateResult, evaluate
    from .commands.predict import PredictResult, SkippedPicture, predict
    from .commands.preview import Preview, preview
    from .commands.tune import tune
    from .errors import (
        BudgetError,
        BundleError,
        ClassNameError,
        ImagesError,
        InterruptedRunError,
        NumericsError,
        PromptFileError,
        SharpzoError,
        SkippedPicturesError,
        UsageError,
    )
    from .memory.plan import Plan
    from .run.progress import Progress
    from .tuning.answers import ByUse
    from .tuning.result import DoubtfulPicture, HeadResult, TuneResult
    from .tuning.tuned_prompt import TunedPrompt

__all__ = [
    "BudgetError",
    "Bundle",
    "BundleError",
    "ByUse",
    "ClassNameError",
    "Classifier",
    "DoubtfulPicture",
    "EvaluateResult",
    "HeadResult",
    "ImagesError",
    "InterruptedRunError",
    "NumericsError",
    "Plan",
    "PredictResult",
    "Prediction",
    "Preview",
    "Progress",
    "PromptFileError",
    "SharpzoError",
    "SkippedPicture",
    "SkippedPicturesError",
    "TuneResult",
    "TunedPrompt",
    "UsageError",
    "evaluate",
    "predict",
    "preview",
    "tune",
]

_HOMES = {
    "clip.bundle": ("Bundle",),
    "commands.evaluate": ("EvaluateResult", "evaluate"),
    "commands.classifier": ("Classifier", "Prediction"),
    "commands.predict": ("PredictResult", "SkippedPicture", "predict"),
    "commands.preview": ("Preview", "preview"),
    "commands.tune": ("tune",),
    "memory.plan": ("Plan",),
    "run.progress": ("Progress",),
    "tuning.answers": ("ByUse",),
    "tuning.result": ("DoubtfulPicture", "HeadResult", "TuneResult"),
    "tuning.tuned_prompt": ("TunedPrompt",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = importlib.import_module(f".{_HOME_OF.get(name, 'errors')}", __name__)
    value = globals()[name] = getattr(home, name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
