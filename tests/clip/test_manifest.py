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
    manifest["text"]["steps"] = manifest["text"]["steps"][:2]
    manifest["text"]["steps"][1]["weights"] = manifest["text"]["steps"][1]["weights"][:1]
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
    with pytest.raises(BundleError, match=f"version {FORMAT_VERSION + 1}.*reads version {FORMAT_VERSION}"):
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
