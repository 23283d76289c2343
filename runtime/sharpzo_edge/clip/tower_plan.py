"""The ways to run a tower, and what each way takes in bytes and seconds.

A resident tower is in memory as a whole, in one session: packed for speed, or mapped as it lies on disk. A
streamed tower runs step by step, with the weights of one step in memory. A batch is all candidates or
pictures that share one reading of the weights. A micro-batch is those in one run, which is one call of a
graph. Bytes and seconds are arithmetic on sizes that are known before the work begins. The bytes have these
parts:

    weights    packed: the file's pages, and a copy arranged for the processor. mapped: the file's pages.
               streamed: those of the largest step, in one buffer. frugal: as streamed; what a run frees
               returns to the system at once, and the page faults that follow cost time
    run        the intermediate results of one run
    carried    what every candidate or picture of a batch carries from step to step of a streamed tower
    answers    class features of a batch, and those that the caller keeps
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from ..machine import usable_cores
from ..process_memory import MIB
from .class_prompts import CHUNK_ROWS, chunked_rows, names_bytes
from .manifest import ImageSpec, Manifest, Step, TextSpec

Mode = Literal["packed", "mapped", "streamed", "frugal"]
Tangents = Literal["int8", "fp32"]  # how the products of tangents are computed
STREAMING = ("streamed", "frugal")

MICRO_BATCHES = (1, 2, 4, 8, 16, 32)  # to choose from: candidates or pictures in one run of a graph
BATCHES = (1, 2, 4, 8, 16, 32, 64)  # to choose from: how many share one reading of a streamed tower
MOST_ROWS = 4096  # token rows in one run: more are hardly faster

# Sizes, each from measurements of the towers that bench/memory runs; tests compare plans with measurements.
# A run of the text graph takes this many float32 numbers for each token row and each unit of width.
# frugal: what is in use at once. The others: also what onnxruntime's arenas keep.
ROW_WIDTHS = {"packed": 34, "mapped": 34, "streamed": 26, "frugal": 14}
ATTENTION_COPIES = 3  # copies of a number for each head and each pair of rows
TANGENT_ATTENTION_COPIES = 5  # the same in a run of tangents
# What the primal pass of a chunk hands over to its tangents, for one half of a block: so many numbers for
# each row and each unit of width, and one for each head and each pair of rows.
HANDED_OVER_WIDTHS = 6
# What the sessions of tangents take for themselves, and their kernels for products.
TANGENT_SESSIONS_BYTES = {"fp32": 3 * MIB, "int8": 5 * MIB}
# The same for pictures, as a multiple of the manifest's activation_bytes.
ALIVE = {"packed": 3.0, "mapped": 3.0, "frugal": 1.7}
RUN_BYTES = 2 * MIB  # more for each run: what its kernels take for themselves
THREAD_BYTES = MIB // 2  # a stack, and what the kernels keep for each thread
RESIDENT_COPIES = {"packed": 2, "mapped": 1}  # copies of the tower's file in memory

# A rough model of a machine, only to compare plans.
FLOPS, RUN_SECONDS = 40e9, 5e-5
CACHE_READING = 3e9  # bytes a second from the page cache
SMALL_RUN_ROWS, LARGE_RUN_ROWS = 16, 40_000  # rows of a run at which a row takes twice its ideal time
ATTENTION_ROWS = 1500  # rows of a sequence at which attention takes as long as the products with weights
MODE_SLOWNESS = {"packed": 1.0, "mapped": 1.06, "streamed": 1.12, "frugal": 1.7}


@dataclass(frozen=True)
class TowerPlan:
    """How a tower runs.

    micro_batch: candidates or pictures in one run of a graph
    batch:       candidates or pictures that share one reading of the weights
    """

    mode: Mode
    micro_batch: int
    batch: int


PRIMAL = TowerPlan("streamed", micro_batch=1, batch=1)  # the pass that a sketch's directions share
RESIDENT = TowerPlan("packed", micro_batch=16, batch=16)
STREAMED = TowerPlan("streamed", micro_batch=8, batch=32)


@dataclass(frozen=True)
class TextPlan:
    """How the text tower runs.

    chunk_rows: most rows of a candidate in one run of the text graph
    threads:    0 is one a core
    tangents:   how tangents are computed; None: not at all
    """

    tower: TowerPlan
    chunk_rows: int
    threads: int
    tangents: Tangents | None = None


@dataclass(frozen=True)
class ImagePlan:
    """How the image tower runs.

    decoding_bytes: the most memory for decoding one picture; larger pictures are left out
    threads:        0 is one a core
    """

    tower: TowerPlan
    decoding_bytes: float
    threads: int


T = TypeVar("T")


@dataclass(frozen=True)
class Option(Generic[T]):
    """One way to run a tower.

    n_bytes: above the floor
    seconds: a candidate or picture, by the rough model
    """

    plan: T
    n_bytes: float
    seconds: float


def text_options(
    manifest: Manifest,
    name_lengths: Sequence[int],
    n_context: int,
    threads: int,
    *,
    held_bytes: int,
    between_bytes: int,
    n_kept_answers: int,
    may_share_arena: bool,
    reading: float,
    tangents: Tangents | None = None,
    n_directions: int = 1,
) -> Iterator[Option[TextPlan]]:
    """Yields every way to run the text tower.

    held_bytes:     what the caller holds all the time, without the class names
    between_bytes:  the most that the caller needs at one moment between two batches
    n_kept_answers: class features (K, E) that the caller keeps beside those of a batch
    may_share_arena: whether "streamed" is allowed. It has one arena for all sessions, which belongs to the
                    whole process and pays when there are many batches
    reading:        bytes a second at which weights are read again
    tangents:       as in TextPlan
    n_directions:   of a sketch
    """
    text = manifest.text
    row_bytes = 4 * text.width
    n_shared = 1 + n_context
    unpacking = max((step.unpacking_bytes for step in text.steps), default=0)
    for chunk_rows in CHUNK_ROWS:
        rows = chunked_rows(name_lengths, n_shared, chunk_rows)
        held = names_bytes(text.width, name_lengths, n_context, chunk_rows) + held_bytes
        for tower in _tower_plans(text.steps, tangents is not None):
            if tower.mode == "streamed" and not may_share_arena:
                continue
            if tower.micro_batch > 1 and tower.micro_batch * max(rows) > MOST_ROWS:
                continue
            row = row_bytes * ROW_WIDTHS[tower.mode] + ATTENTION_COPIES * 4 * text.heads * max(rows)
            run = tower.micro_batch * max(rows) * row + _run_bytes(threads)
            carried = tower.batch * sum(rows) * row_bytes
            n_answers = tower.batch + tower.micro_batch / len(rows) + n_kept_answers
            answers = math.ceil(n_answers * 4 * len(name_lengths) * manifest.embed_dim)
            streams = tower.mode in STREAMING
            at_once: list[float] = [carried + run + unpacking if streams else run]
            fixed = _weights_bytes(manifest, text, tower.mode) + held + answers
            if tangents:
                fixed += _tangent_weights_bytes(text, tower.mode, tangents)
                at_once.append(_tangents_bytes(text, rows, tower) + _run_bytes(threads) + unpacking)
            # A resident tower's arenas keep what a run took, so it adds to what the caller needs.
            above = max(*at_once, between_bytes) if streams else sum(at_once) + between_bytes
            plan = TextPlan(tower, chunk_rows, threads, tangents)
            seconds = _seconds(manifest, text, tower, rows, reading)
            if tangents:
                seconds += _seconds(manifest, text, PRIMAL, rows, reading) / min(tower.batch, n_directions)
            yield Option(plan, fixed + above, seconds)


def _tangents_bytes(text: TextSpec, rows: list[int], tower: TowerPlan) -> float:
    """What directions take on their way through the tower: carried ones, and a run beside its primal pass.

    rows: of each chunk
    """
    pairs = 4 * text.heads * max(rows)
    row = 4 * text.width * ROW_WIDTHS[tower.mode] + TANGENT_ATTENTION_COPIES * pairs
    handed_over = max(rows) * (4 * text.width * HANDED_OVER_WIDTHS + pairs)
    carried = (tower.batch + 1) * sum(rows) * 4 * text.width
    return carried + handed_over + tower.micro_batch * max(rows) * row


def _tangent_weights_bytes(text: TextSpec, mode: Mode, tangents: Tangents) -> int:
    """Sessions, and weights that are held: of one step in a streamed tower, which has a buffer for the plain
    ones already, and of all in a resident one.
    """
    assert text.tangents  # asked for where they are
    rounded = [step.span[1] for step in text.tangents.steps] if tangents == "int8" else [0]
    plain = [step.span[1] for step in text.steps]
    held = max(rounded) if mode in STREAMING else sum(rounded) + sum(plain)
    return TANGENT_SESSIONS_BYTES[tangents] + held


def image_options(
    manifest: Manifest, threads: int, *, held_bytes: int, decoding_bytes: float, reading: float
) -> Iterator[Option[ImagePlan]]:
    """Yields every way to run the image tower.

    held_bytes:     what the caller holds all the time
    decoding_bytes: for each ImagePlan
    reading:        bytes a second at which weights are read again
    """
    image = manifest.image
    n_pixels = math.prod(manifest.preprocess.size)
    for tower in _tower_plans(image.steps):
        if tower.mode == "streamed":
            continue  # the arena was measured with the text tower only
        pixels = 3 * 3 * 4 * n_pixels  # three copies of float32, while bytes become floats
        run = tower.micro_batch * (image.activation_bytes * ALIVE[tower.mode] + pixels) + _run_bytes(threads)
        crops = tower.batch * 3 * n_pixels
        carried = crops + (tower.batch * image.carried_bytes if tower.mode in STREAMING else 0)
        n_bytes = held_bytes + _weights_bytes(manifest, image, tower.mode) + carried + run
        rows = [max(1, image.activation_bytes // 65536)]
        plan = ImagePlan(tower, decoding_bytes, threads)
        yield Option(plan, n_bytes, _seconds(manifest, image, tower, rows, reading))


def _tower_plans(steps: tuple[Step, ...], has_tangents: bool = False) -> Iterator[TowerPlan]:
    """Every mode with every micro-batch and batch.

    For a resident tower the batch is a micro-batch, unless its directions share a primal pass.
    """
    for micro_batch, batch in itertools.product(MICRO_BATCHES, BATCHES):
        if micro_batch == batch or (has_tangents and micro_batch < batch):
            yield TowerPlan("packed", micro_batch, batch)
            yield TowerPlan("mapped", micro_batch, batch)
        if steps and micro_batch <= batch:
            yield TowerPlan("streamed", micro_batch, batch)
            yield TowerPlan("frugal", micro_batch, batch)


def _seconds(
    manifest: Manifest, spec: TextSpec | ImageSpec, tower: TowerPlan, rows: list[int], reading: float
) -> float:
    """Seconds a candidate or picture: arithmetic, calls of graphs, and its share of reading the weights.

    rows: token rows of each run, for one candidate
    """
    file_bytes = manifest.files[spec.data].size
    arithmetic = sum(r * _slowness(r, tower.micro_batch) for r in rows) * file_bytes / 2 / FLOPS
    n_runs = len(rows) * (len(spec.steps) if tower.mode in STREAMING else 1)
    again = file_bytes / reading / tower.batch if tower.mode in STREAMING else 0.0
    return arithmetic * MODE_SLOWNESS[tower.mode] + n_runs * RUN_SECONDS / tower.micro_batch + again


def _slowness(n_rows: int, micro_batch: int) -> float:
    """How many times longer than ideal a row takes, in a run of `micro_batch` sequences of n_rows.

    In small runs the fixed cost of a run counts, large runs leave the processor's caches, and attention grows
    with the square of the sequence.
    """
    n = n_rows * micro_batch
    return 1 + SMALL_RUN_ROWS / n + n / LARGE_RUN_ROWS + n_rows / ATTENTION_ROWS


def _weights_bytes(manifest: Manifest, spec: TextSpec | ImageSpec, mode: Mode) -> int:
    if mode in STREAMING:
        return max(step.span[1] for step in spec.steps)
    return RESIDENT_COPIES[mode] * manifest.files[spec.data].size


def _run_bytes(threads: int) -> int:
    return RUN_BYTES + THREAD_BYTES * (threads or usable_cores())
