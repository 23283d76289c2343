"""The towers of the embedded bundle: resident and streamed agree, and no candidate sees another."""

import numpy as np
import pytest

from sharpzo_edge.clip.bundle import Bundle
from sharpzo_edge.clip.class_prompts import class_prompts, context_from_words, random_context
from sharpzo_edge.clip.tower_plan import RESIDENT, STREAMED, ImagePlan, TextPlan, TowerPlan
from sharpzo_edge.clip.towers import ImageTower, TextTower
from sharpzo_edge.errors import BundleError, NumericsError, SharpzoError

NAMES = ["red apple and green leaf", "cat", "hot dog", "dog", "a small yellow car", "flag"]
# Unit features in float32: one unit in the last place is 6e-8, and a GEMM of another shape sums in
# another order.
SAME = 1e-6
ACROSS_BATCHES = 2e-6

pytestmark = pytest.mark.oldest_onnxruntime


def text(tower: TowerPlan) -> TextPlan:
    return TextPlan(tower, chunk_rows=256, threads=1)


def image(tower: TowerPlan) -> ImagePlan:
    return ImagePlan(tower, decoding_bytes=float("inf"), threads=1)


@pytest.fixture(scope="module")
def resident(bundle: Bundle):
    with TextTower(bundle, text(RESIDENT)) as tower:
        yield tower


@pytest.fixture(scope="module")
def mapped(bundle: Bundle):
    with TextTower(bundle, text(TowerPlan("mapped", micro_batch=2, batch=2))) as tower:
        yield tower


@pytest.fixture(scope="module")
def streamed(bundle: Bundle):
    with TextTower(bundle, text(TowerPlan("streamed", micro_batch=3, batch=8))) as tower:
        yield tower


@pytest.fixture(scope="module")
def frugal(bundle: Bundle):
    with TextTower(bundle, text(TowerPlan("frugal", micro_batch=3, batch=8))) as tower:
        yield tower


@pytest.fixture(params=["resident", "mapped", "streamed", "frugal"])
def tower(request):
    return request.getfixturevalue(request.param)


def contexts(bundle, n, m):
    """n contexts of m vectors: embeddings' length, so that the tower is fed what it knows."""
    rng = np.random.default_rng(n * 100 + m)
    return np.stack([random_context(bundle, m, rng) * 2 for _ in range(n)])


@pytest.mark.parametrize("m", [1, 4, 7, 16])
@pytest.mark.parametrize("n", [1, 3, 8])
def test_streamed_and_mapped_equal_resident(bundle, resident, mapped, streamed, frugal, n, m):
    context = contexts(bundle, n, m)
    for chunk_rows in (1, 32, 256):
        prompts = class_prompts(bundle, NAMES, m, chunk_rows)
        whole = resident.class_features(context, prompts)
        assert whole.shape == (n, len(NAMES), bundle.manifest.embed_dim) and whole.dtype == np.float32
        for other in (mapped, streamed, frugal):
            np.testing.assert_allclose(other.class_features(context, prompts), whole, rtol=0, atol=SAME)


def test_features_are_unit_vectors_that_differ(bundle, tower):
    features = tower.class_features(contexts(bundle, 2, 4), class_prompts(bundle, NAMES, 4))
    np.testing.assert_allclose(np.linalg.norm(features, axis=-1), 1, atol=1e-6)
    flat = features.reshape(-1, features.shape[-1])
    similarity = flat @ flat.T - np.eye(len(flat))
    assert similarity.max() < 0.999  # neither two classes nor two contexts give the same


def test_a_class_does_not_see_the_other_classes(bundle, tower):
    context = context_from_words(bundle, "a photo of a")[None]
    together = tower.class_features(context, class_prompts(bundle, NAMES, 4))
    backwards = tower.class_features(context, class_prompts(bundle, NAMES[::-1], 4, chunk_rows=32))
    np.testing.assert_allclose(backwards[:, ::-1], together, rtol=0, atol=ACROSS_BATCHES)
    for k, name in enumerate(NAMES):
        alone = tower.class_features(context, class_prompts(bundle, [name], 4))
        np.testing.assert_allclose(alone[:, 0], together[:, k], rtol=0, atol=ACROSS_BATCHES)


def test_a_candidate_does_not_see_the_other_candidates(bundle, tower):
    prompts = class_prompts(bundle, NAMES, 4)
    context = contexts(bundle, 5, 4)
    before = tower.class_features(context, prompts)
    changed = context.copy()
    changed[2, 3] = -changed[2, 3]  # not a constant more: the layer norm would take that away
    after = tower.class_features(changed, prompts)
    others = [0, 1, 3, 4]
    np.testing.assert_allclose(after[others], before[others], rtol=0, atol=ACROSS_BATCHES)
    assert np.abs(after[2] - before[2]).max(axis=1).min() > 1e-3  # every class of that candidate moved
    for i in range(5):
        alone = tower.class_features(context[i : i + 1], prompts)
        np.testing.assert_allclose(alone[0], before[i], rtol=0, atol=ACROSS_BATCHES)


def test_every_context_vector_and_their_order_matter(bundle, tower):
    prompts = class_prompts(bundle, NAMES, 4)
    context = contexts(bundle, 1, 4)
    base = tower.class_features(context, prompts)
    for row in range(4):
        moved = context.copy()
        moved[0, row] = -moved[0, row]
        assert np.abs(tower.class_features(moved, prompts) - base).max() > 1e-3
    assert np.abs(tower.class_features(context[:, ::-1].copy(), prompts) - base).max() > 1e-3


def test_the_same_input_twice_gives_the_same_bits(bundle, tower):
    prompts, context = class_prompts(bundle, NAMES, 4), contexts(bundle, 3, 4)
    first = tower.class_features(context, prompts)
    kept = first.copy()
    tower.class_features(context + 0.1, prompts)
    second = tower.class_features(context, prompts)
    assert second.tobytes() == first.tobytes() == kept.tobytes()  # and a later run wrote on no answer


def test_a_new_tower_gives_the_same_bits(bundle, resident):
    prompts, context = class_prompts(bundle, NAMES, 4), contexts(bundle, 3, 4)
    with TextTower(bundle, text(RESIDENT)) as again:
        assert (
            again.class_features(context, prompts).tobytes()
            == resident.class_features(context, prompts).tobytes()
        )


@pytest.mark.parametrize("plan", [RESIDENT, TowerPlan("mapped", 4, 4), STREAMED], ids=lambda p: p.mode)
def test_image_features_are_unit_vectors_and_do_not_mix(bundle, plan):
    """A picture's features do not depend on the pictures beside it."""
    how = bundle.manifest.preprocess
    pixels = np.random.default_rng(0).standard_normal((4, 3, *how.size)).astype(np.float32)
    with ImageTower(bundle, image(plan)) as tower:
        together = tower.image_features([pixels])
        alone = tower.image_features(pixels[i : i + 1] for i in range(4))
    assert together.shape == (4, bundle.manifest.embed_dim) and together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(alone, together, rtol=0, atol=ACROSS_BATCHES)
    assert (together @ together.T - np.eye(4)).max() < 0.999


# Damage -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tower", ["text", "image"])
@pytest.mark.parametrize("plan", [RESIDENT, STREAMED], ids=lambda p: p.mode)
@pytest.mark.parametrize("cut", [0, 1, 2])
def test_a_damaged_graph_is_a_bundle_error(bundle_copy, tower, plan, cut):
    manifest = bundle_copy.open().manifest
    steps = [step.graph for step in (*manifest.text.steps, *manifest.image.steps)]
    for name in ("text.onnx", "image.onnx", *dict.fromkeys(steps)):
        data = (bundle_copy.folder / name).read_bytes()
        bundle_copy.replace(name, [data[: len(data) // 2], b"", b"no graph"][cut])
    with pytest.raises(BundleError, match=r"sharpzo-edge doctor --bundle"):
        TextTower(bundle_copy.open(), text(plan)) if tower == "text" else ImageTower(
            bundle_copy.open(), image(plan)
        )


def test_a_graph_of_another_tower_is_a_bundle_error(bundle_copy):
    bundle_copy.replace("image.onnx", (bundle_copy.folder / "text_head.onnx").read_bytes())
    pixels = np.zeros((1, 3, 64, 64), np.float32)
    with pytest.raises(BundleError), ImageTower(bundle_copy.open(), image(RESIDENT)) as tower:
        tower.image_features([pixels])


@pytest.mark.parametrize("plan", [RESIDENT, STREAMED], ids=lambda p: p.mode)
def test_features_of_another_width_are_a_bundle_error(bundle_copy, plan):
    """Another width than the manifest says."""
    manifest = bundle_copy.manifest()
    manifest["embed_dim"] -= 1
    bundle_copy.set_manifest(manifest)
    opened = bundle_copy.open()
    said = r"gives 128 numbers .* its manifest says 127\. .* Copy the bundle again"
    with TextTower(opened, text(plan)) as tower, pytest.raises(BundleError, match=said):
        tower.class_features(contexts(opened, 1, 4), class_prompts(opened, NAMES, 4))
    with ImageTower(opened, image(plan)) as tower, pytest.raises(BundleError, match=said):
        tower.image_features([np.zeros((1, 3, 64, 64), np.float32)])


def test_short_weights_are_a_bundle_error_when_streamed(bundle_copy):
    opened = bundle_copy.open()
    data = bundle_copy.folder / "text.data"
    with TextTower(opened, text(STREAMED)) as tower:
        data.write_bytes(data.read_bytes()[:-400_000])  # a copy that broke off after the check
        with pytest.raises(BundleError, match=r"text\.data"):
            tower.class_features(contexts(opened, 1, 4), class_prompts(opened, NAMES, 4))


def test_short_weights_are_a_bundle_error_when_resident(bundle_copy):
    bundle_copy.replace("text.data", (bundle_copy.folder / "text.data").read_bytes()[:-400_000])
    with pytest.raises(BundleError, match=r"text\.(onnx|data)"):
        TextTower(bundle_copy.open(), text(RESIDENT))


def test_a_tower_that_cannot_be_streamed_says_so(bundle_copy):
    manifest = bundle_copy.manifest()
    manifest["image"]["steps"] = []
    bundle_copy.set_manifest(manifest)
    with pytest.raises(BundleError, match="no steps for its image tower"):
        ImageTower(bundle_copy.open(), image(STREAMED))


def test_no_memory_is_not_a_damaged_bundle(bundle, monkeypatch):
    def starved(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr("onnxruntime.InferenceSession", starved)
    with pytest.raises(MemoryError):
        TextTower(bundle, text(RESIDENT))


def test_a_missing_proc_is_not_a_damaged_bundle(bundle, monkeypatch):
    """onnxruntime's own words, from its version 1.32 in a sandbox without /proc."""

    def without_proc(*arguments, **options):
        raise RuntimeError("Secure opened-file canonicalization requires procfs at /proc/self/fd/3.")

    monkeypatch.setattr("onnxruntime.InferenceSession", without_proc)
    with pytest.raises(SharpzoError, match="mount -t proc proc /proc") as raised:
        TextTower(bundle, text(RESIDENT))
    assert not isinstance(raised.value, BundleError)


@pytest.mark.parametrize("plan", [RESIDENT, STREAMED], ids=lambda p: p.mode)
def test_onnxruntime_never_sees_a_changed_graph(bundle_copy, plan, monkeypatch):
    """The checksum in the manifest is compared before onnxruntime gets the file."""
    graph = bundle_copy.manifest()["text"]["steps"][0]["graph"] if plan is STREAMED else "text.onnx"
    data = bytearray((bundle_copy.folder / graph).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle_copy.folder / graph).write_bytes(data)
    monkeypatch.setattr("onnxruntime.InferenceSession.__init__", lambda *_, **__: pytest.fail("it saw one"))
    with pytest.raises(BundleError, match=f"{graph} has sha256"), TextTower(bundle_copy.open(), text(plan)):
        pass


def test_image_features_that_are_not_finite_are_an_error(bundle):
    h, w = bundle.manifest.preprocess.size
    with ImageTower(bundle, image(RESIDENT)) as tower, pytest.raises(NumericsError, match="NaN among"):
        tower.image_features([np.full((1, 3, h, w), np.nan, np.float32)])


def test_a_closed_tower_answers_no_more(bundle):
    with TextTower(bundle, text(RESIDENT)) as tower:
        pass
    with pytest.raises(ValueError, match="closed"):
        tower.class_features(contexts(bundle, 1, 4), class_prompts(bundle, NAMES, 4))
