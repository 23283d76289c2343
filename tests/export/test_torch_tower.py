"""CoOp's text tower in torch, made from a bundle: the device's own answers, and their derivatives."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from accuracy.methods.torch_tower import TorchTower
from sharpzo_edge.clip.bundle import Bundle
from sharpzo_edge.clip.class_prompts import class_prompts, context_from_words
from sharpzo_edge.clip.tower_plan import RESIDENT
from sharpzo_edge.demo import BUNDLE
from sharpzo_edge.errors import UsageError
from support.open_towers import text_tower

NAMES = ["cat", "fire engine", "place building"]
DIFFERENCE = 1e-6  # of unit features
RECIPES = (
    "quick_gelu",
    "gelu_tanh",
    "layer_scale, no ln_pre",
    "one text layer, other epsilon, tall pictures",
    "custom text with bias, avg pool then norm",
    "custom text without projection, eos, wide pictures",
)
SLOPE_DIFFERENCE = 2e-2  # of a derivative: what a central difference in float32 leaves


def device_features(bundle, contexts):
    with text_tower(bundle, RESIDENT) as tower:
        return tower.class_features(contexts, class_prompts(bundle, NAMES, contexts.shape[1]))


def moved_contexts(bundle, n=3):
    start = context_from_words(bundle, "a photo of a")
    steps = np.random.default_rng(0).standard_normal((n, *start.shape)) * np.abs(start).mean()
    return (start + steps * np.arange(n)[:, None, None]).astype(np.float32)  # the words themselves first


@pytest.mark.parametrize("recipe", ["demo", *RECIPES])
def test_it_answers_as_the_device_does(recipe, exported):
    bundle = Bundle.open(BUNDLE) if recipe == "demo" else exported(recipe).bundle
    contexts = moved_contexts(bundle)
    features = TorchTower(bundle).classes(NAMES, contexts.shape[1])
    for context, expected in zip(contexts, device_features(bundle, contexts), strict=True):
        assert np.abs(features(torch.from_numpy(context)).numpy() - expected).max() < DIFFERENCE


def test_its_gradient_is_the_slope_of_the_devices_answers():
    bundle = Bundle.open(BUNDLE)
    context, wanted = moved_contexts(bundle)[1], np.random.default_rng(1).standard_normal((3, 128))
    variable = torch.from_numpy(context.copy()).requires_grad_()
    features = TorchTower(bundle).classes(NAMES, len(context))(variable)
    (features * torch.from_numpy(wanted)).sum().backward()
    gradient = variable.grad.numpy()
    step = (0.01 / np.linalg.norm(gradient) * gradient).astype(np.float32)
    plus, minus = device_features(bundle, np.stack([context + step, context - step])).astype(np.float64)
    slope = float(((plus - minus) * wanted).sum()) / (2 * float(np.linalg.norm(step)))
    assert slope == pytest.approx(np.linalg.norm(gradient), rel=SLOPE_DIFFERENCE)


def test_rounded_weights_are_refused(exported):
    with pytest.raises(UsageError, match="int8"):
        TorchTower(exported("gelu", "int8").bundle)
