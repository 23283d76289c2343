"""Exported tangents against torch's own derivatives in float64, whatever the tower, context and chunks."""

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("open_clip")
onnx = pytest.importorskip("onnx")

from sharpzo_edge.clip.class_prompts import class_prompts
from sharpzo_edge.clip.tower_plan import RESIDENT, STREAMED, TextPlan, TowerPlan
from sharpzo_edge.clip.towers import TextTower
from sharpzo_edge.errors import UsageError
from sharpzo_export import tangent_graphs
from sharpzo_export.agreement import ParityError
from sharpzo_export.jacobian import directional_derivatives
from sharpzo_export.quantize import BITS
from sharpzo_export.write_bundle import export
from support.open_clip_reference import float64, prompt_ids, torch_class_features, with_rounded_linears
from support.tiny_clip import RECIPES, name_of

OTHER_PICTURE_TOWERS = ("resnet", "traced vit", "traced timm")  # their text tower is that of "gelu"
TEXT_RECIPES = [recipe for recipe in RECIPES if recipe not in OTHER_PICTURE_TOWERS]
NAME_LENGTHS = (3, 40, 1, 2, 9, 1)  # unsorted, and two of a length
N = 3  # directions
WAYS = (RESIDENT, STREAMED, TowerPlan("mapped", 2, 4), TowerPlan("frugal", 1, 3))


def off(found, true):
    return np.linalg.norm(found - true) / np.linalg.norm(true)


def inputs(bundle, m):
    """A context and directions of a context's length, and class names."""
    text, rng = bundle.manifest.text, np.random.default_rng(m)
    context, *directions = rng.normal(0, 0.05, (1 + N, m, text.width)).astype(np.float32)
    longest = text.context_length - m - 3  # beside SOS, the context, "." and EOT
    return context, np.array(directions), [name_of(min(n, longest), i) for i, n in enumerate(NAME_LENGTHS)]


def tangents(bundle, context, directions, names, chunk_rows=60, precision="fp32", way=STREAMED):
    prompts = class_prompts(bundle, names, len(context), chunk_rows)
    with TextTower(bundle, TextPlan(way, chunk_rows, threads=1, tangents=precision)) as tower:
        return tower.class_feature_tangents(context, directions, prompts)


def by_torch(model, context, directions, names):
    return directional_derivatives(model, prompt_ids(model, len(context), names), context, directions)


@pytest.mark.parametrize("recipe", TEXT_RECIPES)
def test_tangents_equal_torchs_forward_mode(exported, recipe):
    """Every context length with every chunking."""
    it = exported(recipe)
    for m in (1, 4, 16):
        given = inputs(it.bundle, m)
        true = by_torch(it.model, *given)
        for chunk_rows in (1, 24, 256):
            assert off(tangents(it.bundle, *given, chunk_rows), true) <= 1e-5, (m, chunk_rows)


@pytest.mark.parametrize("weights", BITS)
def test_packed_weights_have_the_tangents_of_their_values(exported, weights):
    it = exported("layer_scale, no ln_pre", weights)
    given = inputs(it.bundle, 4)
    true = by_torch(with_rounded_linears(it.model, BITS[weights]), *given)
    assert off(tangents(it.bundle, *given), true) <= 1e-5
    assert off(tangents(it.bundle, *given, precision="int8"), true) <= 0.03


def test_torchs_forward_mode_is_the_slope_of_its_features(exported):
    """By central differences in float64, and the model is as before."""
    it = exported("custom text with bias, avg pool then norm")
    before = {name: value.clone() for name, value in it.model.state_dict().items()}
    context, directions, names = inputs(it.bundle, 4)
    found = by_torch(it.model, context, directions, names)
    both = np.concatenate([context + sign * 1e-4 * directions.astype(np.float64) for sign in (1, -1)])
    plus, minus = np.split(torch_class_features(float64(it.model), both, names), 2)
    assert off(found, (plus - minus) / 2e-4) < 1e-7
    after = it.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in after)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize(
    "recipe",
    [
        "odd widths, 20 positions, norm then avg pool",
        "custom text without projection, eos, wide pictures",
        "one text layer, other epsilon, tall pictures",
    ],
)
def test_a_directions_bits_do_not_depend_on_its_run(exported, recipe, precision):
    """Where widths and numbers of rows are no multiples of what a processor takes at once, too."""
    it = exported(recipe)
    for m, chunk_rows in ((1, 1), (4, 24), (3, 256)):
        context, directions, names = inputs(it.bundle, m)
        found = set()
        for way, n_together in itertools.product(WAYS, (1, 2, N)):
            parts = [directions[i : i + n_together] for i in range(0, N, n_together)]
            answers = [tangents(it.bundle, context, p, names, chunk_rows, precision, way) for p in parts]
            found.add(np.concatenate(answers).tobytes())
        assert len(found) == 1, (m, chunk_rows)


# What is exported --------------------------------------------------------------------------------


def test_a_bundle_has_the_tangents_that_were_asked_for(exported, tmp_path):
    it = exported("gelu")
    found = {"int8": it.bundle}
    for kind in ("fp32", "none"):
        found[kind], _ = export(f"local-dir:{it.source}", None, tmp_path / kind, tangents=kind)
    spec = {kind: bundle.manifest.text.tangents for kind, bundle in found.items()}
    files = {kind: {n for n in b.manifest.files if "tangent" in n or "8" in n} for kind, b in found.items()}
    assert spec["none"] is None and files["none"] == set()
    assert spec["fp32"].data is None and not any("8" in name for name in files["fp32"])
    assert spec["int8"].data == "text_int8.data" and files["fp32"] < files["int8"]
    given = inputs(it.bundle, 4)
    assert tangents(found["fp32"], *given).tobytes() == tangents(found["int8"], *given).tobytes()
    measured = [{n for n in b.manifest.parity if n.startswith("tangents")} for b in found.values()]
    assert measured == [{"tangents_fp32", "tangents_int8"}, {"tangents_fp32"}, set()]
    assert it.bundle.manifest.largest_difference < 1e-5 < it.bundle.manifest.parity["tangents_int8"] < 0.03


def test_other_tangents_are_refused_before_any_loading(tmp_path, monkeypatch):
    monkeypatch.setattr("sharpzo_export.write_bundle.load_clip", lambda *a: pytest.fail("loaded"))
    with pytest.raises(UsageError, match=r"--tangents int4 is not known.* int8, fp32, none.*--tangents int8"):
        export("RN50", "none", tmp_path / "bundle", tangents="int4")


def steeper(g, x, kind, slope=tangent_graphs.slope):
    return g.op("Mul", slope(g, x, kind), g.number(1.01))


def coarse(matrix, round_by_column=tangent_graphs.round_by_column):
    numbers, scales = round_by_column(matrix)
    return numbers // 16 * 16, scales


@pytest.mark.parametrize(
    ("part", "wrong", "stage"),
    [("slope", steeper, "tangents fp32"), ("round_by_column", coarse, "tangents int8")],
)
def test_wrong_tangents_are_not_exported(exported, tmp_path, monkeypatch, part, wrong, stage):
    source = exported("gelu").source
    monkeypatch.setattr(tangent_graphs, part, wrong)
    with pytest.raises(ParityError, match=f"differs from torch in {stage},.* Nothing was written"):
        export(f"local-dir:{source}", None, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []
