"""The bundle's contract: what open and verify accept, and that all else is a BundleError."""

import contextlib
import copy
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpzo_edge.clip.bundle import MANIFEST_FILE, TOKEN_EMBEDDING_FILE, TOKEN_IDS_FILE, Bundle
from sharpzo_edge.clip.manifest import FORMAT_VERSION, Manifest
from sharpzo_edge.errors import BundleError, ClassNameError
from sharpzo_edge.run.typed_json import from_json


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


# The manifest -------------------------------------------------------------------------------------


def test_a_manifest_survives_json(bundle):
    manifest = bundle.manifest
    again = from_json(Manifest, json.loads(manifest.to_json()))
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
            assert from_json(Manifest, json.loads(manifest.to_json())) == manifest
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


# The files ----------------------------------------------------------------------------------------


def missing(path):
    path.unlink()


def short(path):
    path.write_bytes(path.read_bytes()[:-1])


def long(path):
    path.write_bytes(path.read_bytes() + b"\0")


def symlink(path):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [missing, short, long, symlink, folder])
@pytest.mark.parametrize("name", ["text.data", "bpe.txt.gz"])
def test_a_file_that_is_not_as_listed_is_refused_by_name(bundle_copy, damage, name):
    damage(bundle_copy.folder / name)
    with pytest.raises(BundleError, match=name):
        bundle_copy.open()


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/b", "..", ".", "", "n" * 300, "a\0b"])
def test_no_file_name_leaves_the_folder(bundle_copy, name):
    (bundle_copy.folder.parent / "x").write_bytes(b"x")
    (bundle_copy.folder / "a").mkdir()
    (bundle_copy.folder / "a" / "b").write_bytes(b"x")
    manifest = bundle_copy.manifest()
    manifest["files"][name] = {"size": 1, "sha256": "0" * 64}
    bundle_copy.set_manifest(manifest)
    with pytest.raises(BundleError):
        bundle_copy.open()


def test_a_graph_that_the_manifest_does_not_list_is_refused(bundle_copy):
    manifest = bundle_copy.manifest()
    manifest["text"]["graph"] = "../text.onnx"
    bundle_copy.set_manifest(manifest)
    with pytest.raises(BundleError, match="does not list"):
        bundle_copy.open()


def test_verify_finds_a_flipped_bit_that_open_cannot_see(bundle_copy):
    bundle_copy.open().verify()
    path = bundle_copy.folder / "image.data"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    opened = bundle_copy.open()
    with pytest.raises(BundleError, match=r"image\.data"):
        opened.verify()


def test_verify_says_what_it_cannot_read(bundle_copy):
    opened = bundle_copy.open()
    (bundle_copy.folder / "image.data").unlink()
    with pytest.raises(BundleError, match=r"image\.data"):
        opened.verify()


# The token table ----------------------------------------------------------------------------------


def test_token_embeddings_are_the_tables_rows(bundle):
    table, ids = (np.load(bundle.folder / name) for name in (TOKEN_EMBEDDING_FILE, TOKEN_IDS_FILE))
    rows = [0, len(ids) - 1, 17, 17, 5]
    found = bundle.token_embeddings([int(ids[row]) for row in rows])
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, table[rows])


def test_tokens_outside_the_vocabulary_are_refused(bundle):
    ids = np.load(bundle.folder / TOKEN_IDS_FILE)
    gap = int(np.setdiff1d(np.arange(ids[-1]), ids)[0])
    for outside in (gap, -1, int(ids[-1]) + 1, 2**40):
        assert not bundle.knows([int(ids[0]), outside])
        with pytest.raises(ClassNameError, match=str(outside)):
            bundle.token_embeddings([int(ids[0]), outside])


def test_a_full_table_is_indexed_by_the_token_itself(bundle_copy):
    manifest = bundle_copy.manifest()
    del manifest["files"][TOKEN_IDS_FILE]
    table = np.load(bundle_copy.folder / TOKEN_EMBEDDING_FILE)
    manifest["text"]["vocabulary"] = len(table)
    bundle_copy.set_manifest(manifest)
    opened = bundle_copy.open()
    np.testing.assert_array_equal(opened.token_embeddings([7, len(table) - 1]), table[[7, -1]])
    with pytest.raises(ClassNameError):
        opened.token_embeddings([len(table)])


table = np.arange(4489 * 192, dtype=np.float32).reshape(4489, 192)


@pytest.mark.parametrize(
    "data",
    [
        npy(table.astype(np.float64)),
        npy(np.asfortranarray(table)),
        npy(table.astype(">f4")),
        npy(table.ravel()),
        npy(np.ascontiguousarray(table.T)),
        npy(table[:, :-1]),
        npy(table[:-1]),
        npy(np.array([{"a": 1}], object)),
        npy(table)[:-4],
        npy(table) + b"\0",
        b"",
        b"\x93NUMPY\x01\x00\xff\xff{",
        b"\x93NUMPY\x09\x00",
        npy(table).replace(b"(4489, 192)", b"(2**9,2**9)"),
        npy(table).replace(b"(4489, 192)", b"(-4489,-192"),
    ],
    ids=lambda data: f"{len(data)} bytes {data[6:70]!r}",
)
def test_a_damaged_token_table_is_a_bundle_error(bundle_copy, data):
    bundle_copy.replace(TOKEN_EMBEDDING_FILE, data)
    with pytest.raises(BundleError):
        bundle_copy.open().token_embeddings([49407])


@pytest.mark.parametrize(
    "damage",
    [
        lambda ids: ids.astype(np.int64),
        lambda ids: ids[:, None],
        lambda ids: ids[:-1],
        lambda ids: ids[::-1].copy(),
        lambda ids: np.zeros_like(ids),
    ],
    ids=["int64", "two axes", "a row less", "descending", "all equal"],
)
def test_a_damaged_list_of_ids_is_a_bundle_error(bundle_copy, damage):
    ids = np.load(bundle_copy.folder / TOKEN_IDS_FILE)
    bundle_copy.replace(TOKEN_IDS_FILE, npy(damage(ids)))
    with pytest.raises(BundleError):
        bundle_copy.open().token_embeddings([0, 320])


def test_a_mutated_npy_header_is_harmless(bundle_copy):
    """Success with rows of the right width, or BundleError, or a token that is not there."""
    ids = np.load(bundle_copy.folder / TOKEN_IDS_FILE)
    path = bundle_copy.folder / TOKEN_IDS_FILE
    original = npy(ids)

    @given(st.lists(st.tuples(st.integers(0, 127), st.integers(0, 255)), min_size=1, max_size=4))
    @settings(max_examples=300, deadline=None, database=None)
    def check(changes):
        data = bytearray(original)
        for at, byte in changes:
            data[at] = byte
        path.write_bytes(data)
        with contextlib.suppress(BundleError, ClassNameError):
            assert Bundle(opened.folder, opened.manifest, "").token_embeddings([320]).shape == (1, width)

    opened = bundle_copy.open()
    width = opened.manifest.text.width
    check()


@pytest.mark.parametrize("scale", [0.0, -1.0, 1e299])
def test_a_logit_scale_out_of_range_is_refused(bundle_copy, scale):
    bundle_copy.set_manifest(bundle_copy.manifest() | {"logit_scale": scale})
    with pytest.raises(BundleError, match="logit scale"):
        bundle_copy.open()


def test_other_tokens_of_the_right_size_are_refused(bundle_copy):
    path = bundle_copy.folder / TOKEN_IDS_FILE
    data = bytearray(path.read_bytes())
    data[-2] += 1  # still ascending
    path.write_bytes(data)
    with pytest.raises(BundleError, match="sha256"):
        bundle_copy.open().token_embeddings([0])
