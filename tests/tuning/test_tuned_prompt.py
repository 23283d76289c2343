"""The prompt file: the same bytes for the same prompt, and nothing else is ever taken for one."""

import dataclasses
import json
import struct

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpzo_edge.errors import PromptFileError
from sharpzo_edge.tuning.tuned_prompt import (
    FORMAT_VERSION,
    HEADS_FORMAT_VERSION,
    METADATA_KEY,
    TunedPrompt,
    check_fits,
    load_prompt,
    save_prompt,
)


def prompt_for(bundle, n_classes=9):
    rng = np.random.default_rng(0)
    features = rng.standard_normal((n_classes, bundle.manifest.embed_dim)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return TunedPrompt(
        context=rng.standard_normal((4, bundle.manifest.text.width)).astype(np.float32),
        class_features=features,
        about={
            "format_version": FORMAT_VERSION,
            "class_names": [f"wörd {k}" for k in range(n_classes)],
            "class_folders": [f"folder_{k}" for k in range(n_classes)],
            "model": bundle.manifest.model,
            "bundle": bundle.checksum,
            "seed": 0,
            "settings": {"preset": "paper", "bounds": None, "eta": 1e-3},
            "queries": 1234,
            "train_loss": 0.75,
        },
    )


@pytest.fixture
def prompt(bundle):
    return prompt_for(bundle)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "prompt.safetensors"


def write(path, prompt, about=None, metadata=None, **tensors):
    """A file of the same form, with parts of it replaced (a tensor of None is left out)."""
    parts = {"context": prompt.context, "class_features": prompt.class_features} | tensors
    text = json.dumps(prompt.about | (about or {}))
    metadata = {METADATA_KEY: text} if metadata is None else metadata
    path.write_bytes(safetensors.numpy.save({k: v for k, v in parts.items() if v is not None}, metadata))


def test_a_prompt_survives_its_file(file, prompt, bundle):
    save_prompt(file, prompt)
    again = load_prompt(file)
    check_fits(file, again, bundle)
    assert again.about == prompt.about
    assert again.class_names == prompt.about["class_names"]
    for name in ("context", "class_features"):
        assert getattr(again, name).tobytes() == getattr(prompt, name).tobytes()
    assert file.stat().st_size < 16_000


def test_the_same_prompt_gives_the_same_bytes(tmp_path, prompt):
    backwards = dict(reversed(prompt.about.items()))
    strided = np.repeat(prompt.context, 2, axis=1)[:, ::2]  # the same numbers, not contiguous
    save_prompt(tmp_path / "a", prompt)
    save_prompt(tmp_path / "b", dataclasses.replace(prompt, about=backwards, context=strided))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_prompt_of_another_bundle_is_refused(file, prompt, bundle):
    other = dataclasses.replace(prompt, about=prompt.about | {"bundle": "0" * 64, "model": "ViT-X"})
    with pytest.raises(PromptFileError, match=f"ViT-X.*{bundle.manifest.model}"):
        check_fits(file, other, bundle)


@pytest.mark.parametrize("name", ["context", "class_features"])
def test_vectors_of_another_width_are_refused(file, prompt, bundle, name):
    narrow = dataclasses.replace(prompt, **{name: getattr(prompt, name)[:, :-1]})
    with pytest.raises(PromptFileError, match="widths"):
        check_fits(file, narrow, bundle)


def test_a_newer_format_is_refused_by_its_version(file, prompt):
    newer = HEADS_FORMAT_VERSION + 1
    write(file, prompt, about={"format_version": newer})
    with pytest.raises(PromptFileError, match=f"version {newer}.*reads {FORMAT_VERSION} to"):
        load_prompt(file)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 7,
        np.random.default_rng(0).bytes(5000),
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 99_999_999) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 60_000) + b"[" * 60_000,
        struct.pack("<Q", 2) + b"{}",
    ],
    ids=["empty", "short", "random", "huge header", "large header", "a list", "deep", "no tensors"],
)
def test_other_bytes_are_refused(file, data):
    file.write_bytes(data)
    with pytest.raises(PromptFileError, match="sharpzo-edge tune"):
        load_prompt(file)


def test_no_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(PromptFileError):
            load_prompt(path)


def test_every_truncation_is_refused(file, prompt):
    save_prompt(file, prompt)
    whole = file.read_bytes()
    for length in {*range(0, len(whole), 97), len(whole) - 1}:
        file.write_bytes(whole[:length])
        with pytest.raises(PromptFileError):
            load_prompt(file)


def test_a_large_file_is_refused_before_it_is_read(file, prompt):
    save_prompt(file, prompt)
    with file.open("r+b") as out:
        out.truncate(1 << 40)  # sparse
    with pytest.raises(PromptFileError, match="more than"):
        load_prompt(file)


@pytest.mark.parametrize("name", ["context", "class_features"])
@pytest.mark.parametrize(
    "change",
    [
        lambda a: None,
        lambda a: a.astype(np.float64),
        lambda a: a.astype(np.float16),
        lambda a: a.view(np.int32),
        lambda a: a[0],
        lambda a: a[None],
        lambda a: a[:0],
        lambda a: a[:, :0],
        lambda a: np.where(a == a[1, 1], np.nan, a).astype(np.float32),
        lambda a: np.where(a == a[1, 1], np.inf, a).astype(np.float32),
    ],
    ids=["missing", "float64", "float16", "int32", "1 axis", "3 axes", "no rows", "no columns", "nan", "inf"],
)
def test_tensors_that_are_no_prompt_are_refused(file, prompt, name, change):
    about = {}
    tensor = change(getattr(prompt, name))
    if name == "class_features" and tensor is not None and len(tensor) == 0:
        about = {"class_names": [], "class_folders": []}  # consistent, and still no prompt
    write(file, prompt, about, **{name: tensor})
    with pytest.raises(PromptFileError):
        load_prompt(file)


@pytest.mark.parametrize(
    "about",
    [
        {"class_names": ["a"]},
        {"class_folders": [str(k) for k in range(10)]},
        {"class_names": [1] * 9},
        {"class_names": ["same"] * 9},
        {"class_names": "abcdefghi"},
        {"class_names": None},
        {"bundle": 5},
        {"model": None},
        {"seed": "0"},
        {"seed": True},
        {"settings": []},
        {"queries": 1.5},
        {"train_loss": None},
        {"train_loss": float("nan")},
        {"train_loss": float("inf")},
        {"settings": {"eta": float("nan")}},
    ],
    ids=str,
)
def test_descriptions_that_do_not_fit_are_refused(file, prompt, about):
    write(file, prompt, about)
    with pytest.raises(PromptFileError):
        load_prompt(file)


@pytest.mark.parametrize(
    "metadata", [{}, {"other": "{}"}, *({METADATA_KEY: t} for t in ("", "[]", "null", "3", "[" * 10**5))]
)
def test_metadata_of_another_form_is_refused(file, prompt, metadata):
    write(file, prompt, metadata=metadata)
    with pytest.raises(PromptFileError):
        load_prompt(file)


def test_class_features_must_be_unit_vectors(file, prompt):
    write(file, prompt, class_features=prompt.class_features * np.float32(1.5))
    with pytest.raises(PromptFileError, match="unit"):
        load_prompt(file)


def test_a_mutated_file_is_a_prompt_or_refused(file, prompt, bundle):
    save_prompt(file, prompt)
    whole = file.read_bytes()
    header = struct.unpack("<Q", whole[:8])[0] + 8
    place = st.integers(0, header - 1) | st.integers(0, len(whole) - 1)
    outcomes = {"prompt": 0, "refused": 0}
    width = bundle.manifest.text.width

    @given(
        changes=st.lists(st.tuples(place, st.integers(0, 255)), min_size=1, max_size=4),
        cut=st.just(0) | st.integers(0, 40),
    )
    @settings(max_examples=500, deadline=None, database=None)
    def check(changes, cut):
        data = bytearray(whole)
        for at, byte in changes:
            data[at] = byte
        file.write_bytes(data[: len(data) - cut])
        try:
            loaded = load_prompt(file)
            check_fits(file, loaded, bundle)
        except PromptFileError:
            outcomes["refused"] += 1
        else:
            assert np.isfinite(loaded.context).all() and loaded.context.shape[1] == width
            json.dumps(loaded.about, allow_nan=False)
            outcomes["prompt"] += 1

    check()
    assert outcomes["refused"] > 50


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3", "F8_E5M2", "F64", "U64", "BOOL", "C64", "F4", "X"])
def test_other_tensor_kinds_are_refused(file, dtype):
    """Kinds that numpy may not have."""
    header = {
        "__metadata__": {METADATA_KEY: "{}"},
        "context": {"dtype": dtype, "shape": [2, 2], "data_offsets": [0, 8]},
    }
    text = json.dumps(header).encode()
    for n_bytes in (2, 4, 8, 16, 32):
        header["context"]["data_offsets"] = [0, n_bytes]
        text = json.dumps(header).encode()
        file.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * n_bytes)
        with pytest.raises(PromptFileError):
            load_prompt(file)


def test_a_number_beyond_all_numbers_is_refused(file, prompt):
    text = json.dumps(prompt.about).replace("0.75", "1e999")
    write(file, prompt, metadata={METADATA_KEY: text})
    with pytest.raises(PromptFileError, match="damaged"):
        load_prompt(file)
