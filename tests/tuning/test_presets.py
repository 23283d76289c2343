"""Presets are the paper's numbers, and every value that a run cannot use is refused before it begins."""

import dataclasses

import numpy as np
import pytest

from sharpzo_edge.errors import UsageError
from sharpzo_edge.memory.plan import NO_SKETCH, Sketch
from sharpzo_edge.tuning.presets import PRESETS, SMALLEST_MU_FP32, settings_for
from sharpzo_edge.tuning.settings import AUTO, PaperSettings

# The paper's Table 8: sigma0, mu_cge, the change point T_c, and eta. The last column is the standard
# deviation of A, from the configuration files of the released code.
TABLE = {
    "pets": (0.1, 1e-3, 100, 1e-3, 0.2),
    "flowers": (0.4, 1e-3, 500, 1e-3, 0.2),
    "fgvc": (0.2, 1e-3, 400, 1e-3, 0.2),
    "dtd": (0.4, 1e-5, 300, 1e-3, 1.0),
    "eurosat": (0.4, 1e-3, 500, 1e-3, 1.0),
    "cars": (1.0, 1e-3, 100, 1e-3, 0.2),
    "food": (0.1, 1e-3, 100, 1e-3, 0.2),
    "sun": (0.4, 1e-3, 400, 1e-1, 0.2),
    "caltech": (0.4, 1e-3, 200, 1e-3, 0.2),
    "ucf": (0.1, 1e-3, 200, 1e-3, 0.2),
    "imagenet": (1.0, 1e-5, 200, 1e-1, 1.0),
}
# What all data sets share.
SHARED = {
    "population": 40,
    "dim": 512,
    "rho": 0.1,
    "mu_rge": 1e-3,
    "prune_interval": 200,
    "prune_ratio": 0.5,
    "steps": 20_000,
    "bounds": None,
    "covariance": "full",
    "patience": 0,
}


def test_a_sketch_has_at_most_as_many_directions_as_dimensions():
    settings, _ = settings_for("edge", {"dim": 10, "rank": 48})
    assert [sketch.rank for sketch in settings.sketches] == [10, 8, 6, 4, 8, 6, 4]


def test_dimensions_are_a_number_or_the_contexts():
    """The context's where w may be the context itself."""
    for whole in ("context", "0", 0):
        assert settings_for("edge", {"dim": whole})[0] == PRESETS["edge"]
    settings = settings_for("edge", {"dim": "16"})[0]
    assert settings.dim == 16 and settings.for_context(32) == settings and settings.is_projected(32)
    A = settings.projection(np.random.SeedSequence(0), np.full((4, 8), -0.02, np.float32))
    assert A.shape == (32, 16) and np.std(A) == pytest.approx(0.02, rel=0.2)
    assert settings_for("paper", {"dim": "16"})[0].dim == 16
    for preset, value, allowed in (("edge", "all", "0 or context"), ("paper", "context", "1 or more\\.")):
        with pytest.raises(UsageError, match=f"--dim {value} is not a number.*{allowed}.* Try --dim 512"):
            settings_for(preset, {"dim": value})


@pytest.mark.parametrize("dataset", TABLE)
def test_a_paper_preset_has_the_papers_values(dataset):
    found = dataclasses.asdict(PRESETS[f"paper:{dataset}"])
    sigma0, mu_cge, change_point, eta, std = TABLE[dataset]
    assert found == SHARED | {
        "preset": f"paper:{dataset}",
        "sigma0": sigma0,
        "mu_cge": mu_cge,
        "change_point": change_point,
        "eta": eta,
        "projection_std": std,
    }


def test_the_plain_paper_preset_and_the_list_of_all():
    assert {name for name in PRESETS if name.startswith("paper:")} == {f"paper:{name}" for name in TABLE}
    plain = dataclasses.asdict(PRESETS["paper"])
    assert plain == SHARED | {
        "preset": "paper",
        "sigma0": 0.4,
        "mu_cge": 1e-3,
        "change_point": 100,
        "eta": 1e-3,
        "projection_std": 1.0,
    }


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_can_be_run(preset):
    settings = settings_for(preset, {})[0].for_context(32)
    assert PRESETS[preset].preset == preset
    second = settings.stage2(7) if isinstance(settings, PaperSettings) else settings.stage2()
    assert settings.stage1().dim == second.dim == settings.dim
    stage1_queries = settings.n_generations * settings.queries_a_generation
    assert 0 < stage1_queries < settings.expected_queries
    A = settings.projection(np.random.SeedSequence(0), np.full((4, 8), 0.02, np.float32))
    assert A.shape == ((32, 512) if isinstance(settings, PaperSettings) else ()) and A.dtype == np.float32


def test_our_own_presets_are_limited_and_hold_no_matrices():
    """They scale the projection A to the context's own size."""
    for preset in ("edge", "demo"):
        settings, notes = settings_for(preset, {})
        settings = settings.for_context(32)
        assert not notes
        assert 0 < settings.default_queries <= 8000
        assert settings.dim == 32 and not settings.is_projected(32) and settings.is_projected(64)
        context = np.full((4, 8), -0.02, np.float32)
        length = settings.projection(np.random.SeedSequence(0), context)
        assert length == pytest.approx(np.linalg.norm(context))
        assert settings.stage1().covariance == "identity"
    assert PRESETS["paper"].default_queries is None and PRESETS["paper"].sketches == (NO_SKETCH,)


def test_a_sketch_holds_what_it_can_use_or_falls_back():
    """Where memory is short, it has as many directions and keeps none of earlier rounds."""
    edge = PRESETS["edge"].for_context(2_048)
    assert edge.sketches[0] == Sketch(32, 3)
    assert [s.rank for s in edge.sketches if not s.kept_rounds] == [32, 24, 16, 12, 8, 6, 4]
    assert PRESETS["edge"].for_context(80).sketches[0] == Sketch(32, 2)  # 32 and 48 are all dimensions
    pruned = dataclasses.replace(edge, prune_ratio=0.5)
    assert pruned.stage2().n_kept == 0 and {s.kept_rounds for s in pruned.sketches} == {0}


@pytest.mark.parametrize(
    ("given", "option"),
    [
        ({"prune_interval": 3}, "--prune-interval 3"),
        ({"prune_ratio": 0.0, "prune_interval": 3}, "--prune-interval 3"),
        ({"prune_ratio": 0.5, "kept_rounds": 2}, "--kept-rounds 2"),
    ],
)
def test_an_option_that_another_one_makes_useless_is_refused(given, option):
    with pytest.raises(UsageError, match=f"{option} means nothing"):
        settings_for("edge", given)


@pytest.mark.parametrize(
    ("preset", "option", "value"), [("edge", "eta", 0.1), ("demo", "bounds", "5"), ("paper", "rank", 4)]
)
def test_an_option_that_a_preset_does_not_use_is_refused(preset, option, value):
    """The message names those that it uses."""
    taken = {"edge": "--rank", "demo": "--rank", "paper": "--eta"}[preset]
    known = {"eta": None, "rank": None, "bounds": None, option: value}
    with pytest.raises(
        UsageError, match=f"--{option} {value} means nothing to --preset {preset}.*takes: .*{taken}.*Leave"
    ):
        settings_for(preset, known)
    with pytest.raises(UsageError, match=f"takes: .*{taken}"):
        settings_for(preset, {option: value})


def test_options_replace_what_they_name_and_nothing_else():
    settings, notes = settings_for("paper:eurosat", {"eta": 0.5, "rho": 0.0, "sigma0": None})
    assert settings == dataclasses.replace(PRESETS["paper:eurosat"], eta=0.5, rho=0.0)
    assert notes == []


@pytest.mark.parametrize("name", ["mu_cge", "mu_rge"])
def test_a_mu_that_drowns_in_float32_is_raised_and_said(name):
    settings, notes = settings_for("paper", {name: 1e-5})
    assert getattr(settings, name) == SMALLEST_MU_FP32 == 1e-3
    (note,) = notes
    assert all(part in note for part in (name.replace("_", "-"), "1e-05", "raised to 0.001"))


@pytest.mark.parametrize("preset", ["paper:dtd", "paper:imagenet"])
def test_the_papers_own_small_mu_is_raised_and_said(preset):
    settings, notes = settings_for(preset, {})
    assert settings.mu_cge == 1e-3 and len(notes) == 1
    assert settings_for(preset, {"mu_cge": 1e-2})[1] == []


def test_an_unknown_preset_is_refused_with_the_known_ones():
    for preset in ("papers", "paper:mnist", ""):
        with pytest.raises(UsageError, match=r"--preset .*paper:eurosat"):
            settings_for(preset, {})


@pytest.mark.parametrize(("given", "kept"), [("auto", AUTO), ("0", 0), ("500", 500), (7, 7)])
def test_change_points(given, kept):
    assert settings_for("paper", {"change_point": given})[0].change_point == kept


@pytest.mark.parametrize("given", ["-1", "1.5", "", "soon", "1e2", -5])
def test_change_points_that_are_none(given):
    with pytest.raises(UsageError, match=r"--change-point .*Try --change-point 100"):
        settings_for("paper", {"change_point": given})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("steps", 0),
        ("dim", 0),
        ("population", 3),
        ("sigma0", 0.0),
        ("sigma0", float("nan")),
        ("rho", -0.1),
        ("mu_cge", 0.0),
        ("mu_rge", -1e-3),
        ("mu_rge", float("nan")),
        ("covariance", "round"),
        ("prune_interval", 0),
        ("prune_ratio", 1.0),
        ("eta", 0.0),
        ("eta", float("inf")),
        ("projection_std", 0.0),
        ("projection_std", -1.0),
        ("projection_std", float("nan")),
    ],
)
def test_a_value_that_a_stage_cannot_use_is_refused(option, value):
    """Before the run begins: not after the pictures are encoded, or when stage 2 begins hours later."""
    with pytest.raises(UsageError, match=f"--{option.replace('_', '-')} "):
        settings_for("paper", {option: value})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("rank", 0),
        ("label_smoothing", -0.1),
        ("label_smoothing", 1.0),
        ("label_smoothing", float("nan")),
        ("dim", -1),
        ("rho", -1.0),
        ("prune_ratio", 1.0),
    ],
)
def test_a_value_that_edge_cannot_use_is_refused(option, value):
    """Before the run begins."""
    with pytest.raises(UsageError, match=f"--{option.replace('_', '-')} "):
        settings_for("edge", {option: value})


def test_bounds():
    paper = PRESETS["paper"]
    assert settings_for("paper", {"bounds": "5"})[0] == dataclasses.replace(paper, bounds=5.0)
    assert settings_for("paper", {"bounds": "none"})[0] == paper
    assert settings_for("paper", {"bounds": None})[0] == paper


@pytest.mark.parametrize("value", ["", "five", "-5", "0", "nan", "inf", "-5,5"])
def test_bounds_that_are_no_box(value):
    with pytest.raises(UsageError, match=r"--bounds .*Try --bounds 5"):
        settings_for("paper", {"bounds": value})


def test_patience_is_a_number_or_none():
    assert settings_for("paper", {"patience": "10"})[0].patience == 10
    assert settings_for("edge", {"patience": "none"})[0].patience == 0
    assert settings_for("edge", {"patience": "0"})[0].patience == 0
    with pytest.raises(UsageError, match="--patience -1 is not a number of evaluations"):
        settings_for("edge", {"patience": "-1"})
    with pytest.raises(UsageError, match="1 or more; 0 or none"):
        settings_for("edge", {"patience": "x"})
