"""What the driver of a fleet and its members say to each other: one dataclass for each message, as bytes.

Each kind of `Ask` has its `Answer`. This file is the whole list of what leaves a board: an answer has no
field for a picture, a feature of one, a file's name or a path. Bytes are safetensors; what comes in is
checked against the dataclass, and never run.

K classes, E features, m context vectors of D numbers, B points, n directions, r columns of a sketch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ..errors import SharpzoError
from ..run.typed_json import Arrays, read_dataclass, take_arrays
from ..search.sketched_descent import Sketch
from ..types import Doubles, Floats, Halves

HEADER = "message"  # the name that no array has: the message without its arrays
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Hello:
    """Asks a member who it is."""


@dataclass(frozen=True)
class Member:
    """Who a member is. folders: names of its class folders;  has_int8: see processor"""

    version: str
    bundle: str
    folders: tuple[str, ...]
    has_int8: bool


@dataclass(frozen=True)
class Begin:
    """Asks a member to draw and encode its pictures for a run, and to open its towers.

    run:     a checksum of all that follows
    names:   (K,) words of the classes
    options: those of tune that decide what a member does
    """

    run: str
    names: tuple[str, ...]
    options: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Part:
    """What a member has drawn: (K,) pictures of each class.

    train:    rows to tune on: shots, in each of their views;  shots: those as they are
    val:      to validate on
    pictures: a checksum of their contents
    rank, kept_rounds: of a sketch that its memory has room for;  has_head: whether it has room to fit one
    """

    train: Counts
    shots: Counts
    val: Counts
    pictures: str
    rank: int
    kept_rounds: int
    has_head: bool

    @property
    def n_columns(self) -> int:
        """Of that sketch."""
        return Sketch(self.rank, self.kept_rounds).n_columns


@dataclass(frozen=True, eq=False)
class Features:
    """Asks for class features of contexts (B, m, D). Costs B queries."""

    run: str
    contexts: Floats


@dataclass(frozen=True, eq=False)
class FeaturesFound:
    """(B, K, E)"""

    features: Floats


@dataclass(frozen=True, eq=False)
class Tangents:
    """Asks for tangents at a context (m, D) along directions (n, m, D). Costs n queries, and one."""

    run: str
    context: Floats
    directions: Floats
    in_half: bool


@dataclass(frozen=True, eq=False)
class TangentsFound:
    """(n, K, E)"""

    tangents: Floats


@dataclass(frozen=True, eq=False)
class HalvesFound:
    """(n, K, E)"""

    tangents: Halves


@dataclass(frozen=True, eq=False)
class Judge:
    """Asks what class features (B, K, E) are worth on a member's pictures."""

    run: str
    features: Floats
    smoothing: float


@dataclass(frozen=True, eq=False)
class Judged:
    """Sums over pictures, for each of B class features.

    loss:     (B, 2, K) cross-entropy by class, on train and on validation
    right:    (B, 2, K) how many are labelled right
    smoothed: (B,) loss with label smoothing on train
    """

    loss: Doubles
    right: Counts
    smoothed: Doubles


@dataclass(frozen=True, eq=False)
class Derive:
    """Asks for the loss's derivatives at class features (K, E) along columns (n, K, E)."""

    run: str
    features: Floats
    columns: Floats
    smoothing: float


@dataclass(frozen=True, eq=False)
class Derived:
    """(n,) sums over pictures."""

    derivatives: Doubles


@dataclass(frozen=True, eq=False)
class Model:
    """Asks for loss, gradient and Gauss-Newton matrix in the subspace of columns (r, K, E)."""

    run: str
    features: Floats
    columns: Halves
    smoothing: float


@dataclass(frozen=True, eq=False)
class Modelled:
    """Sums over pictures: loss (), gradient (r,), and the upper triangle of the matrix, row by row."""

    loss: float
    gradient: Doubles
    curvature: Doubles


@dataclass(frozen=True, eq=False)
class Measure:
    """Asks for what heads are fitted by.

    words, prompt: class features (K, E); prompt (0, E): nothing was tuned
    """

    run: str
    words: Floats
    prompt: Floats
    with_head: bool


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over a member's drawn pictures x: shots as they are, and validation pictures.

    counts:    (K,) how many of each class
    right:     (2, 2, K) how many the words and the prompt label right, of shots and of validation pictures
    tops:      (2, 2, 2) of their largest logits likewise: the sum, and the sum of squares
    losses:    (temperatures,) cross-entropy of the words at each
    classes:   (K, E) sums of x by class
    second:    (E (E + 1) / 2,) sum of x x^T: its upper triangle, row by row
    by_words, by_prompt: (K, E + 1) sum of logits times [x, 1]
    Without a head the last four are empty.
    """

    counts: Counts
    right: Counts
    tops: Doubles
    losses: Doubles
    classes: Doubles
    second: Doubles
    by_words: Doubles
    by_prompt: Doubles


@dataclass(frozen=True, eq=False)
class Try:
    """Asks how heads of all members' moments label a member's pictures, each left out. See Measure."""

    run: str
    kind: str
    moments: Moments
    words: Floats
    prompt: Floats


@dataclass(frozen=True, eq=False)
class Tried:
    """For words and prompt, and each option of each group of candidates, in their order:

    right:  (2, options, 2, K) how many are labelled right, of shots and of validation pictures
    tops:   (2, options, 2, 2) of their largest logits likewise: the sum, and the sum of squares
    losses: (2, options, temperatures) cross-entropy, each picture by its weight among all members'
    """

    right: Counts
    tops: Doubles
    losses: Doubles


@dataclass(frozen=True, eq=False)
class Finish:
    """Says what was chosen, and asks how many pictures' largest logits lie below each of some levels.

    The member shows its user which pictures the head on the words finds doubtful.
    tried:        with what the heads are fitted;  head, both: the option of each, None without
    temperatures: (4,) of words, prompt, head and both;  levels: (4, n) likewise, in order
    """

    run: str
    tried: Try
    head: int | None
    both: int | None
    temperatures: Doubles
    levels: Doubles


@dataclass(frozen=True, eq=False)
class Finished:
    """below: (4, n) pictures that each way is judged on, and whose largest logit is lower than each level"""

    below: Counts


@dataclass(frozen=True)
class Refused:
    """A member cannot do what it was asked. is_other_run: it has not begun this one, or has ended"""

    reason: str
    is_other_run: bool


Ask = Hello | Begin | Features | Tangents | Judge | Derive | Model | Measure | Try | Finish
Answer = (
    Member
    | Part
    | FeaturesFound
    | TangentsFound
    | HalvesFound
    | Judged
    | Derived
    | Modelled
    | Moments
    | Tried
    | Finished
    | Refused
)
KINDS: Mapping[str, type[Any]] = {kind.__name__: kind for kind in (*Ask.__args__, *Answer.__args__)}
M = TypeVar("M")


def packed(message: Ask | Answer) -> bytes:
    """A message as bytes."""
    arrays: Arrays = {}
    tree = take_arrays(message, arrays)
    text = json.dumps([type(message).__name__, tree], allow_nan=False).encode()
    return save({HEADER: np.frombuffer(text, np.uint8), **arrays})


def unpacked(data: bytes) -> Any:
    """The message that these bytes are: one of Ask or Answer. Raises SharpzoError when they are none."""
    try:
        arrays: Arrays = load(data)
        name, tree = json.loads(arrays.pop(HEADER).tobytes())
        found = read_dataclass(KINDS[name], tree, arrays)
        if arrays:
            raise ValueError(f"nothing knows {', '.join(sorted(arrays))}")
        return found
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise SharpzoError(
            f"A message in the fleet cannot be read ({error}). All its machines must have one version of "
            f"sharpzo-edge. Compare them with: sharpzo-edge --version"
        ) from error
