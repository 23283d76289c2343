"""How derivatives along directions are computed: who decides, and what stays the same without tangents."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sharpzo_edge.clip.bundle import Bundle
from sharpzo_edge.commands.tune import tune_request as tune
from sharpzo_edge.demo import BUNDLE
from sharpzo_edge.errors import BudgetError, InterruptedRunError, UsageError
from sharpzo_edge.printing import plan_lines
from sharpzo_edge.processor import Processor
from sharpzo_edge.requests import TuneRequest
from sharpzo_edge.tuning.prepare import choose_tangents, prepare
from sharpzo_edge.tuning.tuned_prompt import load_prompt
from support import disk
from support.bundle_copy import BundleCopy

WITH = Processor("x86_64", "new", int8_dot=("avx_vnni",), int8_matrix=())
WITHOUT = Processor("x86_64", "old", int8_dot=(), int8_matrix=())
UNKNOWN = Processor("aarch64", None, int8_dot=None, int8_matrix=None)


def on(monkeypatch: pytest.MonkeyPatch, processor: Processor) -> None:
    monkeypatch.setattr("sharpzo_edge.tuning.prepare.this_processor", lambda: processor)


@pytest.mark.parametrize(
    ("processor", "chosen"),
    [
        (WITH, ["int8", "fp32", "none"]),
        (WITHOUT, ["fp32", "fp32", "none"]),
        (UNKNOWN, ["fp32", "fp32", "none"]),
    ],
)
def test_auto_takes_8_bits_where_the_processor_multiplies_them(
    processor: Processor, chosen: list[str], bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a bundle with all tangents, with float32 ones alone, and without any."""
    on(monkeypatch, processor)
    fp32, none = BundleCopy(tmp_path / "fp32"), BundleCopy(tmp_path / "none")
    fp32.keep_float32_tangents()
    none.make_format_2()
    bundles = [bundle, fp32.open(), none.open()]
    assert [choose_tangents(each, "auto") for each in bundles] == chosen
    for each, least in zip(bundles, ("int8", "fp32", "none"), strict=True):
        assert choose_tangents(each, least) == least and choose_tangents(each, "none") == "none"


@pytest.mark.parametrize(("wanted", "has"), [("int8", "none, fp32"), ("fp32", "none")])
def test_tangents_that_a_bundle_lacks_are_refused(wanted: str, has: str, bundle_copy: BundleCopy) -> None:
    bundle_copy.keep_float32_tangents() if wanted == "int8" else bundle_copy.make_format_2()
    said = rf"^--tangents {wanted} cannot .* has no graphs .* It has: {has}\. .* export the bundle again$"
    with pytest.raises(UsageError, match=said):
        choose_tangents(bundle_copy.open(), wanted)


def test_the_choice_is_part_of_what_a_run_was_made_for(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a run that another kind of processor began is not gone on with, unless that is asked for."""
    request = disk.tiny("edge", BUNDLE, images, tmp_path / "prompt")
    on(monkeypatch, WITH)
    assert prepare(request).made_for["--tangents"] == "int8"
    with pytest.raises(InterruptedRunError):
        tune(replace(request, stop=lambda: True))
    on(monkeypatch, WITHOUT)
    assert prepare(request).made_for["--tangents"] == "fp32"
    with pytest.raises(UsageError, match=r"another --tangents: 'int8', now 'fp32'.*--restart"):
        tune(request)
    assert tune(replace(request, tangents="int8")).queries > 10


def test_without_tangents_a_bundle_is_as_before_them(
    images: Path, tmp_path: Path, bundle_copy: BundleCopy
) -> None:
    """A run with differences on a new bundle makes the prompt that one on an old bundle makes."""
    bundle_copy.make_format_2()
    prompts = []
    for name, folder in (("new", BUNDLE), ("old", bundle_copy.folder)):
        request = disk.tiny("edge", folder, images, tmp_path / name)
        tune(replace(request, tangents="none" if name == "new" else None))
        prompts.append(load_prompt(tmp_path / name))
        prompts[-1].about.pop("bundle")
    new, old = prompts
    assert new.about == old.about
    assert new.context.tobytes() == old.context.tobytes()
    assert np.array_equal(new.class_features, old.class_features)


def test_a_sketch_of_tangents_takes_one_query_more(images: Path, tmp_path: Path) -> None:
    """A sketch of 2 directions: 4 + 2 queries a round without tangents, 4 + 3 with."""
    request: TuneRequest = disk.tiny("edge", BUNDLE, images, tmp_path / "none")
    found = [prepare(replace(request, tangents=kind)) for kind in ("none", "fp32", "int8")]
    assert [each.settings.primal_queries for each in found] == [0, 1, 1]
    assert [each.plan.text.tangents for each in found] == [None, "fp32", "int8"]
    assert [each.plan.to_json()["tangents"] for each in found] == ["none", "fp32", "int8"]
    said = ["differences of class features", "products in float32", "products in 8 bits"]
    assert all(words in "\n".join(plan_lines(p.plan)) for words, p in zip(said, found, strict=True))
    # 2 before the stages, 1 generation of 4 candidates, a sketch and a look, and rounds up to 24 queries.
    queries = [
        tune(replace(request, tangents=kind, output=tmp_path / kind)).queries for kind in ("none", "fp32")
    ]
    assert queries == [2 + 7 + 2 * 6, 2 + 8 + 2 * 7]


def test_auto_takes_differences_where_tangents_have_no_room(images: Path, tmp_path: Path) -> None:
    """A budget that was enough for a run before there were tangents is enough with them."""
    request = disk.tiny("edge", BUNDLE, images, tmp_path / "prompt")

    def smallest(kind: str | None) -> int:
        with pytest.raises(BudgetError) as refused:
            prepare(replace(request, tangents=kind, memory_budget="1MiB"))
        return int(str(refused.value).rsplit("--memory-budget ")[-1].removesuffix("MiB"))

    sizes = {kind: smallest(kind) for kind in ("none", "fp32", "int8", None)}
    assert sizes[None] == sizes["none"] < sizes["fp32"] < sizes["int8"]
    ready = prepare(replace(request, memory_budget=f"{sizes['none']}MiB"))
    assert ready.plan.text.tangents is None and ready.made_for["--tangents"] == "none"
    assert any("tangents are left out" in note for note in ready.notes)
