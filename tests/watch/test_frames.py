"""JPEGs are found in a stream whatever they hold, however the stream is cut, and whatever lies between."""

from __future__ import annotations

import tracemalloc
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sharpzo_edge.watch.frames import Frames
from sharpzo_edge.watch.reader import PIECE_BYTES
from sharpzo_edge.watch.stream import MOST_FRAME_BYTES, Stream

MOST = 4000
SOI, EOI = b"\xff\xd8", b"\xff\xd9"


def segment(kind: int, body: bytes) -> bytes:
    return bytes([0xFF, kind]) + (len(body) + 2).to_bytes(2) + body


BODIES = st.one_of(
    st.binary(max_size=60),
    st.sampled_from([SOI + b"\xff\xe0" + EOI, EOI, b"\xff", SOI + b"\xff" + segment(0xE1, EOI) + EOI]),
)
SEGMENTS = st.one_of(
    st.builds(segment, st.sampled_from([0xC0, 0xC2, 0xC4, 0xDB, 0xDC, 0xDD, 0xE0, 0xE1, 0xFE]), BODIES),
    st.sampled_from([b"\xff", b"\xff\xff", b"\xff\x01"]),  # fill bytes, and a marker without a length
)
PIXELS = st.lists(
    st.one_of(
        st.binary(max_size=30).map(lambda data: data.replace(b"\xff", b"\xff\x00")),
        st.sampled_from([b"\xff\x00", b"\xff\xd0", b"\xff\xd7"]),
    ),
    max_size=8,
).map(b"".join)
SCANS = st.builds(lambda header, pixels: segment(0xDA, header) + pixels, BODIES, PIXELS)
JPEGS = st.builds(
    lambda before, parts: SOI + segment(0xE0, b"") + b"".join(before) + b"".join(parts) + EOI,
    st.lists(SEGMENTS, max_size=4),
    st.lists(st.one_of(SEGMENTS, SCANS), max_size=4),
)
BETWEEN = st.binary(max_size=40).map(lambda data: data.replace(SOI, b"--").rstrip(b"\xff"))


def found_in(stream: bytes, cuts: list[int], most: int = MOST) -> tuple[list[bytes], int]:
    frames, found, start = Frames(most), [], 0
    for end in [*sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]:
        found += frames.feed(stream[start:end])
        assert len(frames._data) <= most + end - start
        start = end
    return found, frames.broken


@given(st.lists(st.tuples(BETWEEN, JPEGS), max_size=4), BETWEEN, st.lists(st.integers(0, 9999), max_size=30))
def test_every_jpeg_is_found_whole(parts: list, last: bytes, cuts: list[int]) -> None:
    stream = b"".join(between + jpeg for between, jpeg in parts) + last
    assert found_in(stream, cuts) == ([jpeg for _, jpeg in parts], 0)


@given(
    st.lists(
        st.one_of(JPEGS, st.binary(max_size=50), st.sampled_from([SOI, EOI, b"\xff", b"\xff\xda\x00"]))
    ).map(b"".join),
    st.lists(st.integers(0, 9999), max_size=30),
    st.sampled_from([30, 200, MOST]),
)
def test_the_cuts_of_any_stream_change_nothing(stream: bytes, cuts: list[int], most: int) -> None:
    whole = found_in(stream, [], most)
    assert found_in(stream, cuts, most) == whole
    assert found_in(stream, list(range(len(stream))), most) == whole
    assert all(len(jpeg) <= most and jpeg.endswith(EOI) for jpeg in whole[0])


@given(JPEGS, JPEGS, st.integers(3, 9999))
def test_after_one_that_broke_off_the_next_is_found(torn: bytes, whole: bytes, at: int) -> None:
    """Where a segment is cut, so much of what follows is lost as its length says: up to 64 KiB."""
    long = SOI + segment(0xDA, b"") + b"x" * (1 << 16) + EOI
    found, broken = found_in(torn[: at % len(torn)] + long + whole, [], 1 << 20)
    assert found[-1] == whole and broken <= 2


def real(**options: object) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    data = BytesIO()
    Image.fromarray(noise).save(data, "JPEG", **options)
    return data.getvalue()


def with_thumbnail() -> bytes:
    """EXIF that holds a JPEG, as cameras write it."""
    return real(exif=b"Exif\0\0II*\0" + real(quality=20))


@pytest.mark.parametrize("step", [1, 7, 1000, 10**6])
def test_pillows_own_jpegs_in_a_multipart_stream(step: int) -> None:
    jpegs = [real(), real(progressive=True), with_thumbnail(), real(quality=100, comment=SOI + b"\xff" + EOI)]
    stream = b"".join(
        b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n" % (len(jpeg), jpeg)
        for jpeg in jpegs
    )
    assert found_in(stream, list(range(0, len(stream), step)), 1 << 20) == (jpegs, 0)


def test_one_that_is_too_long_is_passed_over_and_not_held() -> None:
    long, short = SOI + segment(0xDA, b"") + b"x" * 10_000 + EOI, real(quality=1)
    assert found_in(long + short + long + short, list(range(0, 25_000, 50)), 2000) == ([short, short], 2)


def test_the_stream_holds_no_more_than_it_says() -> None:
    frame = SOI + segment(0xDA, b"") + b"x" * (MOST_FRAME_BYTES - 8) + EOI
    pieces = [(frame * 2)[i : i + PIECE_BYTES] for i in range(0, 2 * len(frame), PIECE_BYTES)]
    frames = Frames(MOST_FRAME_BYTES)
    tracemalloc.start()
    try:
        found = [len(jpeg) for piece in pieces for jpeg in frames.feed(piece)]
        assert tracemalloc.get_traced_memory()[1] <= Stream.held_bytes
    finally:
        tracemalloc.stop()
    assert found == [len(frame)] * 2
