"""The planner: chunks, budgets, plans."""

import math
import platform
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpzo_edge.clip.class_prompts import chunk_sizes, chunked_rows
from sharpzo_edge.clip.manifest import BundledFile, Manifest, Step, Tensor
from sharpzo_edge.errors import BudgetError, UsageError
from sharpzo_edge.heads import fit as heads
from sharpzo_edge.machine import SYSTEM, Machine
from sharpzo_edge.memory.budget import (
    FLOORS,
    FLOORS_ON_EARLIER_KERNELS,
    Budget,
    Floor,
    floor_of,
    parse_budget,
)
from sharpzo_edge.memory.plan import Work, make_plan, plan_images, plan_text
from sharpzo_edge.process_memory import MIB
from sharpzo_edge.search.cmaes import Settings, peak_bytes
from sharpzo_edge.search.sketched_descent import NO_SKETCH, Sketch
from sharpzo_edge.tuning.objective import projection_bytes
from sharpzo_edge.tuning.presets import EDGE


def within(mib: float) -> Budget:
    return Budget(mib, Floor(imports=80.0, work=60.0), bounds_process=True)


# Chunks -------------------------------------------------------------------------------------------


@given(st.lists(st.integers(3, 72), max_size=40), st.integers(2, 17), st.integers(1, 300))
def test_chunks_hold_every_name_once_within_their_rows(lengths, n_shared, most):
    sizes, rows = chunk_sizes(lengths, n_shared, most), chunked_rows(lengths, n_shared, most)
    assert sum(sizes) == len(lengths) and all(size >= 1 for size in sizes)
    assert sum(rows) == sum(lengths) + n_shared * len(sizes)  # nothing is padded
    assert all(n <= most or size == 1 for n, size in zip(rows, sizes, strict=True))


def test_chunks_are_even_where_names_are():
    assert chunk_sizes([7] * 100, 5, 128) == [17] * 5 + [15]
    assert chunk_sizes([5] * 10, 5, 40) == [5, 5]  # not seven and three


# Budgets ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "mib"),
    [
        ("128MiB", 128),
        ("0.5GiB", 512),
        ("134217728e0MB", None),
        ("100MB", 1e8 / 2**20),
        ("1 GB", 1e9 / 2**20),
    ],
)
def test_a_budget_is_read(text, mib):
    if mib is None:
        with pytest.raises(UsageError):
            parse_budget(text)
    else:
        assert parse_budget(text) == pytest.approx(mib)


def test_no_budget_is_no_limit():
    assert parse_budget("none") == math.inf


@given(st.text(max_size=20))
def test_anything_else_is_a_usage_error(text):
    try:
        assert parse_budget(text) > 0
    except UsageError as error:
        assert "--memory-budget 128MiB" in str(error)


def test_an_unknown_version_has_the_largest_floor():
    unknown = floor_of("99.0.1")
    assert unknown.imports == max(f.imports for f in FLOORS.values())
    assert unknown.work == max(f.work for f in FLOORS.values())


@pytest.mark.parametrize(
    ("kernel", "is_measured"), [("6.12.117+deb13-arm64-16k", True), ("6.18.44", False), ("", False)]
)
def test_arm64s_floor_is_of_the_kernels_it_was_measured_on(monkeypatch, kernel, is_measured):
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(platform, "release", lambda: kernel)
    assert (floor_of("1.32.0") == FLOORS_ON_EARLIER_KERNELS["1.32", "aarch64"]) == is_measured
    assert floor_of("1.27.0").imports == max(f.imports for f in FLOORS.values())


# Plans --------------------------------------------------------------------------------------------


def manifest_of(real: Manifest, width: int, layers: int, image_mib: float, activation_mib: float) -> Manifest:
    """A manifest with towers of other sizes; a block has 12 width² weights, as transformers have."""
    block_bytes = 12 * width**2 * 4

    def steps(n: int, n_bytes: int) -> tuple[Step, ...]:
        blocks = tuple(
            Step("block.onnx", (Tensor("w", "float32", (n_bytes // 4,), i * n_bytes),)) for i in range(n)
        )
        return (Step("stem.onnx", ()), *blocks, Step("head.onnx", ()))

    image_block = int(image_mib * 2**20 / layers) // 4 * 4
    files = dict(real.files)
    files[real.text.data] = BundledFile(layers * block_bytes, "")
    files[real.image.data] = BundledFile(layers * image_block, "")
    return replace(
        real,
        files=files,
        text=replace(real.text, width=width, layers=layers, steps=steps(layers, block_bytes)),
        image=replace(
            real.image,
            steps=steps(layers, image_block),
            activation_bytes=int(activation_mib * 2**20),
            carried_bytes=int(activation_mib * 2**17),
        ),
    )


manifests = st.tuples(
    st.sampled_from([64, 128, 512, 768]), st.integers(1, 24), st.floats(1, 1200), st.floats(0.1, 30)
)
works = st.builds(
    Work,
    name_lengths=st.lists(st.integers(3, 12), min_size=2, max_size=60).map(tuple),
    n_context=st.integers(1, 16),
    n_features=st.integers(0, 20_000),
    dim=st.sampled_from([0, 32, 512]),
    search_bytes=st.sampled_from([0, peak_bytes(Settings(dim=512))]),
    sketches=st.sampled_from([(NO_SKETCH,), (Sketch(32, 0),), EDGE.sketches]),
    threads=st.integers(1, 4),
    head_bytes=st.sampled_from([0, 30 * MIB]),
    may_do_without_head=st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(manifests, works, st.floats(40, 4000), st.floats(1, 3))
def test_a_larger_budget_never_gives_a_slower_plan(bundle, sizes, work, budget, factor):
    manifest = manifest_of(bundle.manifest, *sizes)
    try:
        small = make_plan(manifest, work, within(budget))
    except BudgetError:
        return
    large = make_plan(manifest, work, within(budget * factor))
    assert small.peak_mib <= budget and large.peak_mib <= budget * factor
    largest = make_plan(manifest, work, within(math.inf))
    assert largest.sketch == work.sketches[0]
    for less, more in ((small, large), (large, largest)):
        places = [work.sketches.index(plan.sketch) for plan in (less, more)]
        assert places[1] <= places[0]
        assert more.query_seconds <= less.query_seconds or places[1] < places[0]


@settings(max_examples=60, deadline=None)
@given(manifests, works, st.floats(1, 4000))
def test_a_refusal_names_the_smallest_budget_that_is_accepted(bundle, sizes, work, budget):
    manifest = manifest_of(bundle.manifest, *sizes)
    try:
        make_plan(manifest, work, within(budget))
    except BudgetError as error:
        assert error.exit_code == 3
        smallest = int(str(error).rsplit("--memory-budget ")[-1].removesuffix("MiB"))
        assert smallest > budget
        assert make_plan(manifest, work, within(smallest)).peak_mib <= smallest
        with pytest.raises(BudgetError):
            make_plan(manifest, work, within(smallest - 1.01))


def test_the_same_work_gives_the_same_plan(bundle):
    work = Work(name_lengths=(3, 4, 5), dim=32, threads=2)
    assert make_plan(bundle.manifest, work, within(128)) == make_plan(bundle.manifest, work, within(128))


def test_a_sketch_has_fewer_directions_where_memory_is_small(bundle):
    work = Work(name_lengths=(4,) * 10_000, dim=512, sketches=EDGE.sketches, threads=2)
    sketches = [make_plan(bundle.manifest, work, within(budget)).sketch for budget in (300, 600, math.inf)]
    small, middle, large = (sketch.n_columns for sketch in sketches)
    assert small < middle < large and sketches[2] == EDGE.sketches[0]


def test_a_long_contexts_matrix_or_directions_are_planned(bundle):
    def mib(**of_w):
        work = Work(name_lengths=(4,) * 5, threads=2, **of_w)
        return make_plan(bundle.manifest, work, within(math.inf)).phases["text tower"]

    edge = EDGE.for_context(16_384)
    without = mib(dim=512)
    directions = edge.sketches[0].n_columns * 16_384 * 8 / MIB
    sketched = mib(dim=edge.dim, sketches=edge.sketches)
    assert sketched - without > 3 * directions
    n_numbers = 4 * bundle.manifest.text.width
    projected = mib(dim=512, projection_bytes=projection_bytes(n_numbers, 512))
    assert projected - without == pytest.approx(n_numbers * 512 * 4 / MIB)


@pytest.mark.parametrize(("n_features", "on_disk"), [(1_000, False), (20_000, True)])
def test_a_thousand_classes_fit_the_default(bundle, n_features, on_disk):
    """Of RN50, whose class features are the widest of the backbones that must run in 128 MiB."""
    manifest = replace(manifest_of(bundle.manifest, 512, 12, 150, 10), embed_dim=1024)
    work = Work(name_lengths=(5,) * 1_000, n_features=n_features, dim=512, sketches=EDGE.sketches, threads=4)
    plan = make_plan(manifest, work, within(128))
    assert plan.sketch.rank >= 4 and plan.features_on_disk == on_disk


@pytest.mark.parametrize(("n_classes", "embed_dim"), [(1_000, 512), (1_000, 1_024)])
def test_the_head_of_a_thousand_classes_fits_the_default(bundle, n_classes, embed_dim):
    manifest = replace(manifest_of(bundle.manifest, 512, 12, 150, 10), embed_dim=embed_dim)
    n_bytes = heads.peak_bytes(n_classes, embed_dim, 16_000)
    work = Work(name_lengths=(5,) * n_classes, n_features=16_000, dim=512, sketches=EDGE.sketches, threads=4)
    plan = make_plan(manifest, replace(work, head_bytes=n_bytes, may_do_without_head=True), within(128))
    assert plan.has_head and plan.features_on_disk and plan.phases["head"] <= 128


def test_a_head_without_room_is_left_out_or_refused(bundle):
    """Left out, the plan is the one without a head."""
    work = Work(name_lengths=(5,) * 9, n_features=100, dim=32, threads=2)
    may = replace(work, head_bytes=200 * MIB, may_do_without_head=True)
    without, plan = (make_plan(bundle.manifest, each, within(128)) for each in (work, may))
    assert plan == without and not plan.has_head
    assert make_plan(bundle.manifest, may, within(400)).has_head
    with pytest.raises(BudgetError, match="is too small"):
        make_plan(bundle.manifest, replace(may, may_do_without_head=False), within(128))


def test_a_tower_alone_runs_as_beside_the_other(bundle):
    work = Work(name_lengths=(3, 4), threads=1)
    both = make_plan(bundle.manifest, work, within(200))
    assert plan_text(bundle.manifest, work, within(200)) == both.text
    alone = plan_images(bundle.manifest, 1, within(200))
    assert alone.tower == both.image.tower and alone.decoding_bytes >= both.image.decoding_bytes


def test_a_step_without_weights_spans_nothing():
    assert Step("stem.onnx", ()).span == (0, 0)
    weights = (Tensor("a", "float32", (4,), 64), Tensor("b", "uint8", (3,), 128))
    assert Step("block.onnx", weights).span == (64, 67)


def test_a_slow_disk_makes_passes_that_share_more(bundle):
    """Where the weights do not fit in the page cache, every pass reads them from the disk."""
    manifest = manifest_of(bundle.manifest, width=512, layers=12, image_mib=150, activation_mib=3)
    work = Work(name_lengths=(6,) * 100, n_features=200, threads=1, dim=64)

    def text_tower(free_mib, reading):
        machine = Machine(1, free_mib, 128.0, SYSTEM, reading)
        return make_plan(manifest, work, replace(within(128.0), machine=machine)).text.tower

    from_cache = text_tower(900.0, 2.0**24)
    assert from_cache == text_tower(100.0, None)
    from_disk = text_tower(100.0, 2.0**24)
    assert from_disk.mode == from_cache.mode == "streamed"
    assert from_disk.batch > from_cache.batch
