"""States come back as they were, or not at all."""

import dataclasses
import json
from dataclasses import dataclass

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpzo_edge.errors import SharpzoError
from sharpzo_edge.run.checkpoint import CHECKSUM_KEY, METADATA_KEY, _checksum, load_state, save_state


@dataclass
class Inner:
    weights: np.ndarray
    step: int
    nothing: np.ndarray | None


@dataclass
class Outer:
    name: str
    here: Inner
    maybe: Inner | None
    none: Inner | None
    mean: np.ndarray
    loss: float
    best: float | None
    rng: dict[str, object]


def a_state():
    return Outer(
        name="wörd",
        here=Inner(np.arange(3.0), 3, None),
        maybe=Inner(np.zeros((0, 5)), 0, np.array([True, False])),
        none=None,
        mean=np.random.default_rng(0).standard_normal(4),
        loss=0.1 + 0.2,
        best=None,
        rng=dict(np.random.default_rng(5).bit_generator.state),  # 128-bit integers
    )


def assert_same(found, expected):
    assert type(found) is type(expected)
    if dataclasses.is_dataclass(expected):
        for field in dataclasses.fields(expected):
            assert_same(getattr(found, field.name), getattr(expected, field.name))
    elif isinstance(expected, np.ndarray):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert found.tobytes() == np.ascontiguousarray(expected).tobytes()
        assert found.flags.c_contiguous
    else:
        assert found == expected


def test_a_state_comes_back_as_it_was(tmp_path):
    save_state(tmp_path / "a", a_state(), {"seed": 3, "preset": "paper"})
    found, made_for = load_state(tmp_path / "a", Outer)
    assert_same(found, a_state())
    assert made_for == {"seed": 3, "preset": "paper"}
    generator = np.random.Generator(np.random.PCG64(0))
    generator.bit_generator.state = found.rng
    assert generator.integers(2**60) == np.random.default_rng(5).integers(2**60)
    save_state(tmp_path / "b", found, made_for)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_an_array_that_a_state_holds_twice_comes_back_as_one(tmp_path):
    both = np.array([0.0, np.nan])
    state = dataclasses.replace(a_state(), mean=both, here=Inner(both, 0, -both))
    save_state(tmp_path / "a", state, {})
    found, _ = load_state(tmp_path / "a", Outer)
    assert_same(found, state)
    assert found.mean is found.here.weights and found.mean is not found.here.nothing


@pytest.mark.parametrize(
    "array",
    [
        np.array(2.5),
        np.array(True),
        np.empty(0),
        np.empty((3, 0), np.float32),
        np.array([2**62, -(2**62)]),
        np.arange(12.0).reshape(3, 4).T,
        np.arange(12.0)[::-2],
        np.array([np.nan, np.inf, -0.0]),
    ],
    ids=["0-d", "0-d bool", "empty", "empty 2-d", "int64", "transposed", "backwards", "not finite"],
)
def test_arrays_of_every_kind_come_back(tmp_path, array):
    state = dataclasses.replace(a_state(), mean=array)
    save_state(tmp_path / "state", state, {})
    found, _ = load_state(tmp_path / "state", Outer)
    assert_same(found.mean, array)


def test_no_checkpoint_is_none(tmp_path):
    assert load_state(tmp_path / "state", Outer) is None


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 100, b"\xff" * 100, b"\x02" + b"\0" * 7 + b"{}"], ids=lambda d: repr(d[:4])
)
def test_other_bytes_are_an_error(tmp_path, data):
    (tmp_path / "state").write_bytes(data)
    with pytest.raises(SharpzoError, match="--restart"):
        load_state(tmp_path / "state", Outer)


def rewritten(path, change_arrays=lambda a: a, change_tree=lambda t: t, text=None):
    """Save a_state() with its parts changed on the way."""
    save_state(path, a_state(), {"seed": 3})
    data = path.read_bytes()
    arrays = safetensors.numpy.load(data)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    parts = json.loads(header["__metadata__"][METADATA_KEY])
    change_arrays(arrays)
    change_tree(parts)
    text = json.dumps(parts) if text is None else text
    metadata = {METADATA_KEY: text, CHECKSUM_KEY: _checksum(text, arrays)}
    path.write_bytes(safetensors.numpy.save(arrays, metadata))


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", '{"state": 3, "made_for": {}}', "[" * 10**5])
def test_metadata_of_another_form_is_an_error(tmp_path, text):
    rewritten(tmp_path / "state", text=text)
    with pytest.raises(SharpzoError, match="--restart"):
        load_state(tmp_path / "state", Outer)


@pytest.mark.parametrize(
    "change",
    [
        {"change_arrays": lambda a: a.pop("mean")},
        {"change_arrays": lambda a: a.pop("here.weights")},
        {"change_arrays": lambda a: a.update(stranger=np.zeros(2))},
        {"change_arrays": lambda a: a.update(name=np.zeros(2))},
        {"change_arrays": lambda a: a.update(none=np.zeros(2))},
        {"change_arrays": lambda a: a.update({"": np.zeros(2)})},
        {"change_tree": lambda t: t["state"].pop("loss")},
        {"change_tree": lambda t: t["state"].update(stranger=1)},
        {"change_tree": lambda t: t["state"].update(name=5)},
        {"change_tree": lambda t: t["state"].update(loss="low")},
        {"change_tree": lambda t: t["state"]["here"].update(step=None)},
        {"change_tree": lambda t: t["state"]["here"].update(step=True)},
        {"change_tree": lambda t: t["state"].update(here=None)},
        {"change_tree": lambda t: t["state"].update(rng=[])},
        {"change_tree": lambda t: t.update(made_for=[])},
    ],
    ids=[
        "an array is missing",
        "an inner array is missing",
        "an array too many",
        "an array for a word",
        "an array for a state",
        "an array for all",
        "a value is missing",
        "a value too many",
        "a number for a word",
        "a word for a number",
        "none for a number",
        "true for a count",
        "none for a state",
        "a list for an object",
        "made for a list",
    ],
)
def test_a_state_of_another_form_is_an_error(tmp_path, change):
    rewritten(tmp_path / "state")
    load_state(tmp_path / "state", Outer)
    rewritten(tmp_path / "state", **change)
    with pytest.raises(SharpzoError, match="--restart"):
        load_state(tmp_path / "state", Outer)


def test_a_mutated_file_is_a_state_or_an_error(tmp_path):
    path = tmp_path / "state"
    save_state(path, a_state(), {"seed": 3})
    whole = path.read_bytes()

    @given(
        changes=st.lists(
            st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), min_size=1, max_size=4
        ),
        cut=st.just(0) | st.integers(0, len(whole)),
    )
    @settings(max_examples=300, deadline=None, database=None)
    def check(changes, cut):
        data = bytearray(whole)
        for at, byte in changes:
            data[at] = byte
        path.write_bytes(data[: len(data) - cut])
        try:
            found, _ = load_state(path, Outer)
        except SharpzoError:
            return
        assert_same(found.mean, a_state().mean)
        assert found.rng == a_state().rng

    check()


@dataclass
class Circle:
    radius: float


@dataclass
class Square:
    edge: float


@dataclass
class Shape:
    kind: Circle | Square | None


@pytest.mark.parametrize("kind", [Circle(1.0), Square(2.0), None])
def test_one_of_several_states_comes_back_as_what_it_was(tmp_path, kind):
    save_state(tmp_path / "a", Shape(kind), {})
    found, _ = load_state(tmp_path / "a", Shape)
    assert found == Shape(kind)
