"""The manifest: what it says is checked, value by value and key by key."""

import copy
import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpzo_edge.clip.bundle import MANIFEST_FILE, Bundle
from sharpzo_edge.clip.manifest import FORMAT_VERSION, Manifest, Preprocess
from sharpzo_edge.errors import BundleError
from sharpzo_edge.run.typed_json import read_dataclass


def test_a_manifest_survives_json(bundle):
    manifest = bundle.manifest
    again = read_dataclass(Manifest, json.loads(manifest.to_json()))
    assert again == manifest
    assert again.to_json() == (bundle.folder / MANIFEST_FILE).read_text()


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["", ".", "../x", "a" * 300, "\0", "\ud800", "float16", "object", "text.onnx"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(value, path=()):
    """Every path into a JSON value."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list):
        for i in range(len(value)):
            yield from places(value[i], (*path, i))


@st.composite
def mutants(draw, original):
    """A JSON value with one to three things in it deleted, inserted or replaced."""
    value = copy.deepcopy(original)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(sorted(places(value), key=str)))
        parent = value
        for key in path[:-1]:
            parent = parent[key]
        kind = draw(st.sampled_from(["delete", "insert", "replace"]))
        here = parent[path[-1]] if path else value
        if kind == "insert" and isinstance(here, dict):
            here[draw(st.text(max_size=5) | st.just("n" * 300))] = draw(json_values)
        elif kind == "insert" and isinstance(here, list):
            here.append(draw(json_values))
        elif kind == "delete" and path:
            del parent[path[-1]]
        elif path:
            alike = {str: st.text(max_size=5), int: st.integers(0, 2**40), float: st.floats(0.1, 9)}
            parent[path[-1]] = draw(alike.get(type(here), json_values) | json_values)
        else:
            value = draw(json_values)
    return value


@pytest.fixture
def short_manifest(bundle_copy):
    """The manifest with fewer steps and tensors, so that mutations find the other fields too."""
    manifest = bundle_copy.manifest()
    text = manifest["text"]
    text["steps"], text["tangents"]["steps"] = text["steps"][:3], text["tangents"]["steps"][:1]
    for step in (*text["steps"][1:], *text["tangents"]["steps"]):
        step["weights"] = step["weights"][:1]
    bundle_copy.set_manifest(manifest)
    bundle_copy.open()
    return manifest


def test_a_mutated_manifest_is_valid_or_a_bundle_error(bundle_copy, short_manifest):
    outcomes = {"valid": 0, "refused": 0}

    @given(mutant=mutants(short_manifest))
    @settings(max_examples=300, deadline=None, database=None)
    def check(mutant):
        bundle_copy.set_manifest(mutant)
        try:
            manifest = bundle_copy.open().manifest
        except BundleError:
            outcomes["refused"] += 1
        else:
            assert read_dataclass(Manifest, json.loads(manifest.to_json())) == manifest
            # Nothing but the value of a leaf can differ: not a key, not a type.
            assert json.loads(manifest.to_json()).keys() == mutant.keys()
            outcomes["valid"] += 1

    check()
    assert min(outcomes.values()) > 0, outcomes


@pytest.mark.parametrize("depth", [500, 900, 100_000])
def test_deep_nesting_is_a_bundle_error(bundle_copy, depth):
    text = json.dumps(bundle_copy.manifest()).replace('"demo"', "[" * depth + "]" * depth)
    (bundle_copy.folder / MANIFEST_FILE).write_text(text)
    with pytest.raises(BundleError):
        bundle_copy.open()


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"format": "other"}', "\xff", "[" * 100])
def test_what_is_no_manifest_is_refused(bundle_copy, text):
    (bundle_copy.folder / MANIFEST_FILE).write_text(text, encoding="latin-1")
    with pytest.raises(BundleError, match="Copy the folder again"):
        bundle_copy.open()


def test_a_newer_format_is_refused_by_its_version(bundle_copy):
    manifest = bundle_copy.manifest() | {"format_version": FORMAT_VERSION + 1, "a_key_of_the_future": 1}
    bundle_copy.set_manifest(manifest)
    with pytest.raises(BundleError, match=f"version {FORMAT_VERSION + 1}.*versions 2 and {FORMAT_VERSION}"):
        bundle_copy.open()


def test_a_folder_that_is_no_bundle_says_how_to_make_one(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(BundleError, match="sharpzo-edge export"):
            Bundle.open(folder)


# What the device computes with must make sense, not only have the right type.
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("interpolation", "nearest-ish"),
        ("resize_mode", "sideways"),
        ("mode", "CMYK"),
        ("size", [0, 64]),
        ("mean", [0.5]),
        ("std", [0.2, 0.0, 0.2]),
        ("fill_color", 256),
    ],
)
def test_preprocessing_that_cannot_be_done_is_refused(bundle_copy, key, value):
    manifest = bundle_copy.manifest()
    manifest["preprocess"][key] = value
    bundle_copy.set_manifest(manifest)
    with pytest.raises(BundleError):
        bundle_copy.open()


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "nonsense"},
        {"dtype": "object"},
        {"shape": [2**40, 2**40]},
        {"shape": [2**31]},
        {"offset": 2**61},
    ],
)
def test_a_weight_that_does_not_lie_in_the_data_file_is_refused(bundle_copy, change):
    manifest = bundle_copy.manifest()
    manifest["text"]["steps"][1]["weights"][0] |= change
    bundle_copy.set_manifest(manifest)
    with pytest.raises(BundleError):
        bundle_copy.open()


def drop_a_step(tangents, files):
    del tangents["steps"][1]


def drop_the_numbers(tangents, files):
    tangents["steps"][0] |= {"int8": None, "weights": []}


def lengthen_the_numbers(tangents, files):
    tangents["steps"][-1]["weights"][0]["shape"][0] *= 100


def drop_a_graph(tangents, files):
    del files[tangents["steps"][0]["primal"]]


def drop_the_head(tangents, files):
    del files[tangents["head"]]


def drop_the_data(tangents, files):
    del files[tangents["data"]]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (drop_a_step, "tangents' steps are not those of the text tower"),
        (drop_the_numbers, "tangents' steps are of different kinds"),
        (lengthen_the_numbers, r"ends behind text_int8\.data"),
        (drop_a_graph, r"does not list text_primal_attention\.onnx"),
        (drop_the_head, r"does not list text_tangent_head\.onnx"),
        (drop_the_data, r"does not list text_int8\.data"),
    ],
)
def test_damaged_tangents_are_refused(bundle_copy, damage, said):
    manifest = bundle_copy.manifest()
    damage(manifest["text"]["tangents"], manifest["files"])
    bundle_copy.set_manifest(manifest)
    with pytest.raises(BundleError, match=said):
        bundle_copy.open()


def test_format_2_is_read_and_has_no_tangents(bundle_copy, bundle):
    bundle_copy.make_format_2()
    opened = bundle_copy.open()
    opened.verify()
    assert opened.manifest.format_version == 2 and opened.manifest.text.tangents is None
    assert opened.manifest.text.steps == bundle.manifest.text.steps


@pytest.mark.parametrize("part", ["text", "image"])
def test_a_tower_of_a_single_step_is_refused(bundle_copy, part):
    manifest = bundle_copy.manifest()
    manifest[part]["steps"] = manifest[part]["steps"][:1]
    bundle_copy.set_manifest(manifest)
    with pytest.raises(BundleError, match="single step"):
        bundle_copy.open()


@pytest.mark.parametrize("scale", [0.0, -1.0, 1e299])
def test_a_logit_scale_out_of_range_is_refused(bundle_copy, scale):
    bundle_copy.set_manifest(bundle_copy.manifest() | {"logit_scale": scale})
    with pytest.raises(BundleError, match="logit scale"):
        bundle_copy.open()


def test_the_figure_of_parity_is_that_of_features(bundle_copy):
    """Cosines, and the relative figures of tangents, are no differences of features."""
    manifest = bundle_copy.manifest()
    manifest["parity"] = {"pixels": 1e-6, "tangents_int8": 0.02, "class_features_cosine_to_fp32": 0.99}
    bundle_copy.set_manifest(manifest)
    assert bundle_copy.open().manifest.largest_difference == 1e-6


KEYS = [field.name for field in dataclasses.fields(Preprocess)]


def test_an_unknown_key_is_refused_by_its_name(bundle_copy):
    manifest = bundle_copy.manifest()
    manifest["preprocess"]["antialias"] = False
    bundle_copy.set_manifest(manifest)
    with pytest.raises(BundleError, match="antialias"):
        bundle_copy.open()


@pytest.mark.parametrize("key", KEYS)
def test_a_missing_key_is_refused_by_its_name(bundle_copy, key):
    manifest = bundle_copy.manifest()
    del manifest["preprocess"][key]
    bundle_copy.set_manifest(manifest)
    with pytest.raises(BundleError, match=key):
        bundle_copy.open()
