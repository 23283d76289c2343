"""The bundle's files and its token table: as the manifest lists them, or refused by name."""

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpzo_edge.clip.bundle import TOKEN_EMBEDDING_FILE, TOKEN_IDS_FILE, Bundle
from sharpzo_edge.errors import BundleError, ClassNameError


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


# The files ----------------------------------------------------------------------------------------


def missing(path):
    path.unlink()


def short(path):
    path.write_bytes(path.read_bytes()[:-1])


def long(path):
    path.write_bytes(path.read_bytes() + b"\0")


def dead_link(path):
    path.unlink()
    path.symlink_to("elsewhere")


def circle(path):
    path.unlink()
    path.symlink_to(path.name)


def folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [missing, short, long, dead_link, circle, folder])
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


def test_other_tokens_of_the_right_size_are_refused(bundle_copy):
    path = bundle_copy.folder / TOKEN_IDS_FILE
    data = bytearray(path.read_bytes())
    data[-2] += 1  # still ascending
    path.write_bytes(data)
    with pytest.raises(BundleError, match="sha256"):
        bundle_copy.open().token_embeddings([0])
