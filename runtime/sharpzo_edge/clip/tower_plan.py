"""How the towers run, and what every way of running them takes.

A tower runs resident (the whole graph in one session, weights packed for speed, or mapped as they lie on
disk) or streamed (step by step, with one step's weights in memory). A batch is what shares one pass over
the weights; a micro-batch is what goes through one run of a graph. Bytes and seconds are arithmetic on
sizes that are known before the work begins.

    weights    of a tower: packed (a copy for the processor beside the file's pages), mapped (the file's
               pages alone), or streamed (the largest step's, in one buffer);
               frugal is streamed, and what a run frees goes back at once, which costs page faults
    run        the intermediate results of one run of a graph
    carried    what every candidate or picture of a batch carries from step to step of a streamed tower
    answers    class features of a batch, and those that are kept
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from ..process_memory import MIB
from .class_prompts import CHUNK_ROWS, chunked_rows, names_bytes
from .manifest import ImageSpec, Manifest, Step, TextSpec

Mode = Literal["packed", "mapped", "streamed", "frugal"]
STREAMING = ("streamed", "frugal")

MICRO_BATCHES = (1, 2, 4, 8, 16, 32)  # candidates or pictures in one run of a graph
BATCHES = (1, 2, 4, 8, 16, 32, 64)  # how many share one reading of a streamed tower
MOST_ROWS = 4096  # of tokens in one run: more hardly run faster

# Sizes, each from measurements of the towers that bench/memory runs; tests hold plans to them.
# What a run of the text graph takes, in float32 numbers a token row and widths of the tower: what is alive
# at once (frugal), and what onnxruntime's arenas keep beside it.
ROW_WIDTHS = {"packed": 34, "mapped": 34, "streamed": 26, "frugal": 14}
ATTENTION_COPIES = 3  # copies of what every head makes of every pair of rows
# The same for pictures, in what the manifest says is alive at once.
ALIVE = {"packed": 3.0, "mapped": 3.0, "frugal": 1.7}
RUN_BYTES = 2 * MIB  # beside them: what a run's kernels take for themselves
THREAD_BYTES = MIB // 2  # a stack, and what the kernels keep for each thread
RESIDENT_COPIES = {"packed": 2, "mapped": 1}  # of the tower's file, beside each other

# A rough machine, for choosing among plans.
FLOPS, READ_BYTES, RUN_SECONDS = 40e9, 3e9, 5e-5
SMALL_RUN_ROWS, LARGE_RUN_ROWS = 16, 40_000  # rows of a run at which a row takes twice its time
ATTENTION_ROWS = 1500  # of a sequence, at which attention takes as long as the products with weights
MODE_SLOWNESS = {"packed": 1.0, "mapped": 1.06, "streamed": 1.12, "frugal": 1.7}


@dataclass(frozen=True)
class TowerPlan:
    """How a tower runs: `micro_batch` candidates (pictures) in a run of a graph, `batch` in a pass."""

    mode: Mode
    micro_batch: int
    batch: int


RESIDENT = TowerPlan("packed", micro_batch=16, batch=16)
STREAMED = TowerPlan("streamed", micro_batch=8, batch=32)


@dataclass(frozen=True)
class TextPlan:
    """chunk_rows: most rows of a candidate in one run of the text graph; threads: 0 is one a core."""

    tower: TowerPlan
    chunk_rows: int
    threads: int


@dataclass(frozen=True)
class ImagePlan:
    """decoding_bytes: the most that decoding one picture may take; larger pictures are passed over."""

    tower: TowerPlan
    decoding_bytes: float
    threads: int


T = TypeVar("T")


@dataclass(frozen=True)
class Option(Generic[T]):
    """One way to run a tower: bytes above the floor, seconds a candidate (picture) by the rough model."""

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
) -> Iterator[Option[TextPlan]]:
    """Every way to run the text tower.

    held_bytes:     what the caller holds throughout, the names apart
    between_bytes:  the most that the caller needs at one moment between two passes
    n_kept_answers: class features (K, E) that the caller keeps beside those of a batch
    may_share_arena: whether a tower may be streamed with an arena that all its sessions share. It belongs to
                    the whole process, and is for many passes
    """
    text = manifest.text
    row_bytes = 4 * text.width
    n_shared = 1 + n_context
    unpacking = max((step.unpacking_bytes for step in text.steps), default=0)
    for chunk_rows in CHUNK_ROWS:
        rows = chunked_rows(name_lengths, n_shared, chunk_rows)
        held = names_bytes(text.width, name_lengths, n_context, chunk_rows) + held_bytes
        for tower in _tower_plans(text.steps):
            if tower.mode == "streamed" and not may_share_arena:
                continue
            if tower.micro_batch > 1 and tower.micro_batch * max(rows) > MOST_ROWS:
                continue
            row = row_bytes * ROW_WIDTHS[tower.mode] + ATTENTION_COPIES * 4 * text.heads * max(rows)
            run = tower.micro_batch * max(rows) * row + _run_bytes(threads)
            carried = tower.batch * sum(rows) * row_bytes
            n_answers = tower.batch + tower.micro_batch / len(rows) + n_kept_answers
            answers = math.ceil(n_answers * 4 * len(name_lengths) * manifest.embed_dim)
            # A resident tower's arena keeps what a run took.
            streams = tower.mode in STREAMING
            above = max(carried + run + unpacking, between_bytes) if streams else run + between_bytes
            n_bytes = _weights_bytes(manifest, text, tower.mode) + held + answers + above
            yield Option(TextPlan(tower, chunk_rows, threads), n_bytes, _seconds(manifest, text, tower, rows))


def image_options(
    manifest: Manifest, threads: int, *, held_bytes: int, decoding_bytes: float
) -> Iterator[Option[ImagePlan]]:
    """Every way to run the image tower; see text_options, and ImagePlan."""
    image = manifest.image
    n_pixels = math.prod(manifest.preprocess.size)
    for tower in _tower_plans(image.steps):
        if tower.mode == "streamed":
            continue  # the arena is for candidates; pictures were not measured with it
        pixels = 3 * 3 * 4 * n_pixels  # three copies on the way from bytes to floats
        run = tower.micro_batch * (image.activation_bytes * ALIVE[tower.mode] + pixels) + _run_bytes(threads)
        crops = tower.batch * 3 * n_pixels
        carried = crops + (tower.batch * image.carried_bytes if tower.mode in STREAMING else 0)
        n_bytes = held_bytes + _weights_bytes(manifest, image, tower.mode) + carried + run
        rows = [max(1, image.activation_bytes // 65536)]
        plan = ImagePlan(tower, decoding_bytes, threads)
        yield Option(plan, n_bytes, _seconds(manifest, image, tower, rows))


def _tower_plans(steps: tuple[Step, ...]) -> Iterator[TowerPlan]:
    """Resident ones take a micro-batch a pass: there is nothing to share."""
    for micro_batch in MICRO_BATCHES:
        yield TowerPlan("packed", micro_batch, micro_batch)
        yield TowerPlan("mapped", micro_batch, micro_batch)
    if steps:
        for micro_batch, batch in itertools.product(MICRO_BATCHES, BATCHES):
            if micro_batch <= batch:
                yield TowerPlan("streamed", micro_batch, batch)
                yield TowerPlan("frugal", micro_batch, batch)


def _seconds(manifest: Manifest, spec: TextSpec | ImageSpec, tower: TowerPlan, rows: list[int]) -> float:
    """Seconds a candidate: arithmetic, less efficient in small runs; runs; and its share of the reading."""
    file_bytes = manifest.files[spec.data].size
    arithmetic = sum(r * _slowness(r, tower.micro_batch) for r in rows) * file_bytes / 2 / FLOPS
    n_runs = len(rows) * (len(spec.steps) if tower.mode in STREAMING else 1)
    reading = file_bytes / READ_BYTES / tower.batch if tower.mode in STREAMING else 0.0
    return arithmetic * MODE_SLOWNESS[tower.mode] + n_runs * RUN_SECONDS / tower.micro_batch + reading


def _slowness(n_rows: int, micro_batch: int) -> float:
    """Of a row in a run of `micro_batch` sequences of n_rows.

    Small runs repeat what a run costs, large ones leave the caches, and attention grows with the square of
    the sequence.
    """
    n = n_rows * micro_batch
    return 1 + SMALL_RUN_ROWS / n + n / LARGE_RUN_ROWS + n_rows / ATTENTION_ROWS


def _weights_bytes(manifest: Manifest, spec: TextSpec | ImageSpec, mode: Mode) -> int:
    if mode in STREAMING:
        return max(step.span[1] for step in spec.steps)
    return RESIDENT_COPIES[mode] * manifest.files[spec.data].size


def _run_bytes(threads: int) -> int:
    return RUN_BYTES + THREAD_BYTES * (threads or os.cpu_count() or 1)
