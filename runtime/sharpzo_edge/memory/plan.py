"""The memory budget: what every phase of a command will take, and the fastest way that fits.

The budget is the peak resident set of the process, Python included. Everything here is arithmetic on sizes
that are known before the work begins (manifest, class names, settings, threads), so the same command gives
the same plan on every run. Nothing is watched, capped or dropped while the work goes on.

    floor      Python, numpy, onnxruntime and our own code, fixed by FLOORS
    weights    of a tower: packed (a copy for the processor beside the file's pages), mapped (the file's
               pages alone), or streamed (the largest step's, in one buffer);
               frugal is streamed, and what a run frees goes back at once, which costs page faults
    run        the intermediate results of one run of a graph
    carried    what every candidate or picture of a pass carries from step to step of a streamed tower
    held       what stays throughout: embeddings, A, features, the optimiser's matrices

A plan that fits is chosen by a rough model of time; a larger budget leaves all the plans that fitted before.
"""

from __future__ import annotations

import itertools
import math
import os
import platform
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..clip.manifest import ImageSpec, Manifest, Step, TextSpec
from ..errors import BudgetError, UsageError
from ..process_memory import DEFAULT_BUDGET, MIB
from ..search.losses import BLOCK_BYTES, COLUMNS_IN_MEMORY, SCORING_BYTES
from ..types import CLASS_BLOCK_BYTES

Mode = Literal["packed", "mapped", "streamed", "frugal"]
STREAMING = ("streamed", "frugal")

GROUPS = (1, 2, 4, 8, 16, 32)  # candidates or pictures in one run of a graph
PASSES = (1, 2, 4, 8, 16, 32, 64)  # how many share one reading of a streamed tower
CHUNK_ROWS = (256, 128, 64, 32)  # most rows of a candidate in one run of the text graph
MOST_ROWS = 4096  # of tokens in one run: more hardly run faster

# Sizes, each from measurements of the towers that bench/memory runs; tests hold plans to them.
# What a run of the text graph takes, in float32 numbers a token row and widths of the tower: what is alive
# at once (frugal), and what onnxruntime's arenas keep beside it.
ROW_WIDTHS = {"packed": 34, "mapped": 34, "streamed": 26, "frugal": 14}
SCORES = 3  # copies of what every head makes of every pair of rows
# The same for pictures, in what the manifest says is alive at once.
ALIVE = {"packed": 3.0, "mapped": 3.0, "frugal": 1.7}
RUN_BYTES = 2 * MIB  # beside them: what a run's kernels take for themselves
THREAD_BYTES = MIB // 2  # a stack, and what the kernels keep for each thread
FEATURES_IN_MEMORY = 4 * MIB  # larger sets of image features stay on disk
NAMES_IN_MEMORY = 4 * MIB  # more rows of class names are read from the bundle each time
EIGEN_MATRICES = 11  # d x d doubles alive while CMA-ES decomposes a full C, its states included
# While a sketch's minimum is sought: a block of pictures, and what a block of classes is computed with.
SKETCHING_BYTES = BLOCK_BYTES + 2 * CLASS_BLOCK_BYTES
DIRECTION_COPIES = 3  # beside a round's own, while the next begins: the kept ones, the new ones, all of them
HEAD_MATRICES = 3  # E x E doubles alive while a head is solved for: the scatter, its copy, a product
HEAD_MEANS = 3  # and K x E doubles: means, right-hand sides, solutions
PICTURE_BYTES = 12 * MIB  # a 12-megapixel JPEG at reduced scale, and its crop
RESIDENT_COPIES = {"packed": 2, "mapped": 1}  # of the tower's file, beside each other

# A rough machine, for choosing among plans.
FLOPS, READ_BYTES, RUN_SECONDS = 40e9, 3e9, 5e-5
SMALL_RUN_ROWS, LARGE_RUN_ROWS = 16, 40_000  # rows of a run at which a row takes twice its time
ATTENTION_ROWS = 1500  # of a sequence, at which attention takes as long as the products with weights
MODE_SLOWNESS = {"packed": 1.0, "mapped": 1.06, "streamed": 1.12, "frugal": 1.7}


@dataclass(frozen=True)
class Floor:
    """MiB resident with no tower: at the end of the imports; and later, when pages that only they read
    were dropped (process_memory.release_library_pages) and sessions are open.
    """

    imports: float
    work: float


# By onnxruntime's version and the processor's kind. The largest seen in many processes, page cache cold and
# warm, rounded up; versions and processors that are not listed count as the largest.
FLOORS = {
    ("1.31", "x86_64"): Floor(80, 60),
    ("1.32", "x86_64"): Floor(82, 62),  # 2 MiB more of its library's pages
}


@dataclass(frozen=True)
class TowerPlan:
    """How a tower runs: `group` candidates (pictures) in a run of a graph, `together` in a pass."""

    mode: Mode
    group: int
    together: int


RESIDENT = TowerPlan("packed", group=16, together=16)
STREAMED = TowerPlan("streamed", group=8, together=32)


@dataclass(frozen=True)
class Sketch:
    """New directions a round of stage 2, and rounds whose columns are kept; rank 0: no sketch."""

    rank: int
    kept_rounds: int

    @property
    def n_columns(self) -> int:
        return self.rank * (1 + self.kept_rounds)


NO_SKETCH = Sketch(0, 0)


@dataclass(frozen=True)
class Work:
    """What is to be done, in sizes.

    name_lengths: tokens of every class name, "." and EOT included; empty when no text tower runs
    images:       whether the image tower runs
    n_features:   image features that tuning holds or reads
    dim:          of w; 0 when nothing is tuned
    projected:    whether a matrix A maps w to the context
    full_covariance: whether stage 1 decomposes a d x d matrix
    sketches:     what may be held of the class features' Jacobian, the most wanted first
    head:         whether a closed-form head is made of the image features
    """

    name_lengths: tuple[int, ...] = ()
    images: bool = True
    n_context: int = 4
    n_features: int = 0
    dim: int = 0
    projected: bool = True
    full_covariance: bool = False
    sketches: tuple[Sketch, ...] = (NO_SKETCH,)
    head: bool = False
    threads: int = 0


@dataclass(frozen=True)
class Plan:
    """What a command will do, and what it will take.

    text, image: None when the tower is not needed
    chunk_rows:  most rows of a candidate in one run of the text graph
    sketch:      the first that fits of those that the work allows
    phases:      MiB by phase, floor included; the largest is the peak that the plan promises
    query_seconds: by the rough model that plans are compared with; not a forecast for this machine
    decoding_bytes: the most that decoding one picture may take; larger pictures are passed over
    features_on_disk: image features stay there, and are read in blocks
    """

    text: TowerPlan | None
    image: TowerPlan | None
    chunk_rows: int
    sketch: Sketch
    phases: dict[str, float]
    query_seconds: float
    decoding_bytes: float
    features_on_disk: bool

    @property
    def peak_mib(self) -> float:
        return max(self.phases.values())

    def report(self) -> dict[str, Any]:
        """For --json and the log."""
        parts = {"text": self.text, "image": self.image}
        return {
            **{name: asdict(tower) if tower else None for name, tower in parts.items()},
            "chunk_rows": self.chunk_rows,
            "sketch": asdict(self.sketch),
            "phases_mib": {name: round(mib, 1) for name, mib in self.phases.items()},
            "peak_mib": round(self.peak_mib, 1),
        }

    def lines(self) -> list[str]:
        """For people: how the towers run, and what every phase may take."""
        towers = [
            f"{name} tower {tower.mode}, {tower.group} {what} a run, {tower.together} a pass"
            for name, what, tower in (("image", "pictures", self.image), ("text", "candidates", self.text))
            if tower
        ]
        phases = ", ".join(f"{name} {mib:.0f}" for name, mib in self.phases.items())
        rank, kept = self.sketch.rank, self.sketch.kept_rounds
        sketch = [f"sketches of {rank} directions, and those of {kept} rounds before"] if rank else []
        return [*towers, *sketch, f"memory at most {self.peak_mib:.0f} MiB ({phases})"]


def parse_budget(text: str) -> float:
    """`128MiB`, `0.5GiB`, `200MB` or `none` -> MiB; infinite for none. Raises UsageError."""
    if text == "none":
        return math.inf
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?) ?(MiB|GiB|MB|GB)", text)
    if not match or not float(match[1]) > 0:
        raise UsageError(
            f"--memory-budget {text} is not a size. It takes a number with MiB, GiB, MB or GB, or none. "
            f"Try --memory-budget {DEFAULT_BUDGET}"
        )
    return float(match[1]) * {"MiB": MIB, "GiB": MIB << 10, "MB": 1e6, "GB": 1e9}[match[2]] / MIB


def floor_of(onnxruntime_version: str) -> Floor:
    """By version and processor; where those were not measured, the largest of all."""
    key = (".".join(onnxruntime_version.split(".")[:2]), platform.machine())
    known = FLOORS.values()
    return FLOORS.get(key) or Floor(max(f.imports for f in known), max(f.work for f in known))


def make_plan(manifest: Manifest, work: Work, budget_mib: float, floor: Floor) -> Plan:
    """The fastest plan that fits. Raises BudgetError, naming the smallest budget that would do."""
    chosen = _fastest(manifest, work, budget_mib, floor)
    if chosen.peak_mib > budget_mib:
        smallest = math.ceil(_fastest(manifest, work, 0.0, floor).peak_mib)
        raise BudgetError(
            f"--memory-budget {budget_mib:.0f}MiB is too small for {manifest.model} on this work. The "
            f"smallest that would do is {smallest}MiB. Type the command again with "
            f"--memory-budget {smallest}MiB"
        )
    return chosen


def _fastest(manifest: Manifest, work: Work, limit: float, floor: Floor) -> Plan:
    """Of every tower the fastest option that fits, or the smallest when none does."""
    phases = {"imports": floor.imports}
    text = image = None
    sketch = NO_SKETCH
    names = max((_names_bytes(manifest.text, work, chunk) for chunk in CHUNK_ROWS), default=0)
    if work.images:
        image = _choose(_image_options(manifest, work, names), limit - floor.work)
        phases["pictures"] = floor.work + (names + PICTURE_BYTES) / MIB
        phases["image tower"] = floor.work + image.n_bytes / MIB
    if work.head:
        phases["head"] = floor.work + (names + _head_bytes(manifest, work)) / MIB
    if work.name_lengths:
        for sketch in work.sketches:
            text = _choose(_text_options(manifest, work, sketch), limit - floor.work)
            if text.n_bytes <= (limit - floor.work) * MIB:
                break
        assert text is not None  # there is always one
        phases["text tower"] = floor.work + text.n_bytes / MIB
    return Plan(
        text=text.tower if text else None,
        image=image.tower if image else None,
        chunk_rows=text.chunk_rows if text else CHUNK_ROWS[0],
        sketch=sketch,
        phases=phases,
        query_seconds=text.seconds if text else 0.0,
        decoding_bytes=max(PICTURE_BYTES, (limit - floor.work) * MIB - names),
        features_on_disk=work.n_features > 0 and not _features_bytes(manifest, work),
    )


@dataclass(frozen=True)
class _Option:
    """One way to run a tower: bytes above the floor, seconds a candidate (picture) by the rough model."""

    tower: TowerPlan
    chunk_rows: int
    n_bytes: float
    seconds: float


def _choose(options: Iterable[_Option], limit_mib: float) -> _Option:
    options = list(options)
    fitting = [o for o in options if o.n_bytes <= limit_mib * MIB]
    if fitting:
        return min(fitting, key=lambda o: (o.seconds, o.n_bytes))
    return min(options, key=lambda o: (o.n_bytes, o.seconds))


def _text_options(manifest: Manifest, work: Work, sketch: Sketch) -> Iterator[_Option]:
    text = manifest.text
    row_bytes = 4 * text.width
    n_shared = 1 + work.n_context
    unpacking = max((step.unpacking_bytes for step in text.steps), default=0)
    between = _between_bytes(manifest, work, sketch)
    for chunk in CHUNK_ROWS:
        rows = chunked_rows(work.name_lengths, n_shared, chunk)
        held = _held_bytes(manifest, work, chunk) + _sketch_bytes(manifest, work, sketch)
        for tower in _tower_plans(text.steps):
            if tower.mode == "streamed" and not work.dim:
                continue  # an arena is for many passes; here one query is all there is
            if tower.group > 1 and tower.group * max(rows) > MOST_ROWS:
                continue
            row = row_bytes * ROW_WIDTHS[tower.mode] + SCORES * 4 * text.heads * max(rows)
            run = tower.group * max(rows) * row + _run_bytes(work)
            carried = tower.together * sum(rows) * row_bytes
            # A pass's, and those of a run; the look, the best one and, with sketches, the best trial.
            n_answers = tower.together + tower.group / len(rows) + 2 + (sketch.rank > 0)
            answers = math.ceil(n_answers * _class_bytes(manifest, work))
            # A resident tower's arena keeps what a run took.
            streams = tower.mode in STREAMING
            above = max(carried + run + unpacking, between) if streams else run + between
            n_bytes = _weights_bytes(manifest, text, tower.mode) + held + answers + above
            yield _Option(tower, chunk, n_bytes, _seconds(manifest, text, tower, rows))


def _image_options(manifest: Manifest, work: Work, names: int) -> Iterator[_Option]:
    image = manifest.image
    n_pixels = math.prod(manifest.preprocess.size)
    for tower in _tower_plans(image.steps):
        if tower.mode == "streamed":
            continue  # the arena is for candidates; pictures were not measured with it
        pixels = 3 * 3 * 4 * n_pixels  # three copies on the way from bytes to floats
        run = tower.group * (image.activation_bytes * ALIVE[tower.mode] + pixels) + _run_bytes(work)
        crops = tower.together * 3 * n_pixels
        carried = crops + (tower.together * image.carried_bytes if tower.mode in STREAMING else 0)
        n_bytes = names + _weights_bytes(manifest, image, tower.mode) + carried + run
        rows = [max(1, image.activation_bytes // 65536)]
        yield _Option(tower, CHUNK_ROWS[0], n_bytes, _seconds(manifest, image, tower, rows))


def _tower_plans(steps: tuple[Step, ...]) -> Iterator[TowerPlan]:
    """Resident ones take a group a pass: there is nothing to share."""
    for group in GROUPS:
        yield TowerPlan("packed", group, group)
        yield TowerPlan("mapped", group, group)
    if steps:
        for group, together in itertools.product(GROUPS, PASSES):
            if group <= together:
                yield TowerPlan("streamed", group, together)
                yield TowerPlan("frugal", group, together)


def _seconds(manifest: Manifest, spec: TextSpec | ImageSpec, tower: TowerPlan, rows: list[int]) -> float:
    """Seconds a candidate: arithmetic, less efficient in small runs; runs; and its share of the reading."""
    file_bytes = manifest.files[spec.data].size
    arithmetic = sum(r * _slowness(r, tower.group) for r in rows) * file_bytes / 2 / FLOPS
    n_runs = len(rows) * (len(spec.steps) if tower.mode in STREAMING else 1)
    reading = file_bytes / READ_BYTES / tower.together if tower.mode in STREAMING else 0.0
    return arithmetic * MODE_SLOWNESS[tower.mode] + n_runs * RUN_SECONDS / tower.group + reading


def _slowness(n_rows: int, group: int) -> float:
    """Of a row in a run of `group` sequences of n_rows: small runs repeat what a run costs, large ones
    leave the caches, and attention grows with the square of the sequence.
    """
    n = n_rows * group
    return 1 + SMALL_RUN_ROWS / n + n / LARGE_RUN_ROWS + n_rows / ATTENTION_ROWS


def _weights_bytes(manifest: Manifest, spec: TextSpec | ImageSpec, mode: Mode) -> int:
    if mode in STREAMING:
        return max(span(step)[1] for step in spec.steps)
    return RESIDENT_COPIES[mode] * manifest.files[spec.data].size


def _held_bytes(manifest: Manifest, work: Work, chunk_rows: int) -> int:
    """What stays throughout the text tower's phase."""
    A = work.n_context * manifest.text.width * work.dim * 4 if work.projected else 0
    head = _class_bytes(manifest, work) if work.head else 0
    return _names_bytes(manifest.text, work, chunk_rows) + A + _features_bytes(manifest, work) + head


def _class_bytes(manifest: Manifest, work: Work) -> int:
    """Of class features (K, E) in float32."""
    return 4 * len(work.name_lengths) * manifest.embed_dim


def _features_bytes(manifest: Manifest, work: Work) -> int:
    """Image features, as many as can be drawn; 0 when they stay on disk."""
    n_bytes = 4 * work.n_features * manifest.embed_dim
    return n_bytes if n_bytes <= FEATURES_IN_MEMORY else 0


def _sketch_bytes(manifest: Manifest, work: Work, sketch: Sketch) -> int:
    """Of a whole sketch: its columns and its directions."""
    return _columns_bytes(manifest, work, sketch) + _directions_bytes(work, sketch)


def _directions_bytes(work: Work, sketch: Sketch) -> int:
    """A whole sketch's directions in float64."""
    return 8 * min(sketch.n_columns, work.dim) * work.dim


def _columns_bytes(manifest: Manifest, work: Work, sketch: Sketch) -> int:
    """A whole sketch's columns in float16."""
    return min(sketch.n_columns, work.dim) * _class_bytes(manifest, work) // 2


def _between_bytes(manifest: Manifest, work: Work, sketch: Sketch) -> int:
    """The most that is needed at one moment between two passes, beside what is there all the time."""
    if not work.dim:
        return 0
    columns = _columns_bytes(manifest, work, sketch)
    if not columns:
        return max(SCORING_BYTES, _eigen_bytes(work))
    # In float32 too where they are few; the linear model's class features, and the loss's gradient by them,
    # are doubles where those are.
    single = 2 * columns if 2 * columns <= COLUMNS_IN_MEMORY else 0
    model = 2 * min(2 * _class_bytes(manifest, work), max(CLASS_BLOCK_BYTES, _class_bytes(manifest, work)))
    # An interrupted run's columns are copied once, which is more than those that a new round keeps.
    next_round = columns + DIRECTION_COPIES * _directions_bytes(work, sketch)
    return max(SCORING_BYTES, _eigen_bytes(work), single + model + SKETCHING_BYTES, next_round)


def _names_bytes(text: TextSpec, work: Work, chunk_rows: int) -> int:
    """The names' embeddings, at least a chunk of them, and the masks of their chunks."""
    chunks = chunked_rows(work.name_lengths, 1 + work.n_context, chunk_rows)
    row_bytes = 4 * text.width
    embeddings = min(sum(work.name_lengths) * row_bytes, NAMES_IN_MEMORY + max(chunks, default=0) * row_bytes)
    return embeddings + sum(rows**2 for rows in chunks) * 4


def _eigen_bytes(work: Work) -> int:
    return EIGEN_MATRICES * work.dim**2 * 8 if work.full_covariance else 0


def _head_bytes(manifest: Manifest, work: Work) -> int:
    """While a head is made: no tower is open then."""
    embed_dim, n_classes = manifest.embed_dim, len(work.name_lengths)
    features = _features_bytes(manifest, work) + SCORING_BYTES
    return features + 8 * embed_dim * (HEAD_MATRICES * embed_dim + HEAD_MEANS * n_classes)


def _run_bytes(work: Work) -> int:
    return RUN_BYTES + THREAD_BYTES * (work.threads or os.cpu_count() or 1)


def span(step: Step) -> tuple[int, int]:
    """Where a step's weights begin in the data file, and how many bytes they take together."""
    if not step.weights:
        return 0, 0
    start = min(t.offset for t in step.weights)
    return start, max(t.end for t in step.weights) - start


def chunk_sizes(lengths: Sequence[int], n_shared: int, most_rows: int) -> list[int]:
    """How many names go through the text graph together, in their order: at most most_rows rows with the
    n_shared that every chunk repeats, and as even as that allows; a name that is longer goes alone.
    """
    room = max(1, most_rows - n_shared)
    even = sum(lengths) / max(1, math.ceil(sum(lengths) / room))
    sizes: list[int] = []
    rows = 0
    for length in lengths:
        if not sizes or rows >= even or rows + length > room:
            sizes.append(0)
            rows = 0
        sizes[-1] += 1
        rows += length
    return sizes


def chunked_rows(lengths: Sequence[int], n_shared: int, most_rows: int) -> list[int]:
    """The rows of a sequence that each of those chunks makes."""
    ends = itertools.accumulate(chunk_sizes(lengths, n_shared, most_rows), initial=0)
    return [n_shared + sum(lengths[start:end]) for start, end in itertools.pairwise(ends)]
