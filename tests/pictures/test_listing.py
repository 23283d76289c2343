"""A listing is the sorted paths of a folder's files, in little memory."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpzo_edge.pictures.listing import Listing

names = st.lists(st.binary(min_size=1, max_size=20).filter(lambda b: not {0, 47} & {*b}), unique=True)


@given(names)
def test_it_is_the_sorted_paths(found: list[bytes]) -> None:
    folder = Path("photos/cat")
    listing = Listing(folder, list(found))
    expected = [folder / os.fsdecode(name) for name in sorted(found)]
    assert list(listing) == expected and len(listing) == len(expected)
    assert [listing[i] for i in range(-len(expected), len(expected))] == expected * 2
    assert listing[1:3] == expected[1:3]
    with pytest.raises(IndexError):
        listing[len(expected)]


def test_it_takes_what_it_says() -> None:
    n = 20_000
    tracemalloc.start()
    try:
        made = [f"frame_{i:07d}_2026-01-01_00-00-00.png".encode() for i in range(n)]
        listing = Listing(Path("a"), made)
        peak = tracemalloc.get_traced_memory()[1]
        del made
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held <= 1.1 * listing.n_bytes and peak <= listing.n_bytes + listing.making_bytes
