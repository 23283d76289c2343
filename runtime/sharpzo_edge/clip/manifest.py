"""The contents of a bundle's manifest.json: towers, files, steps, preprocessing, parity."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass

import numpy as np

FORMAT = "sharpzo-edge bundle"
FORMAT_VERSION = 3

OLDER_FORMAT = 2  # without tangents; it is read too
PRECISIONS = ("fp32", "int8", "int4")  # of the linear layers' weights
PACKED_BLOCK = 32  # inputs of a linear layer with one common scale, in int8 and int4
WEIGHT_DTYPES = ("float32", "float16", "int8", "uint8")
COSINE = "_cosine_to_fp32"  # the end of a name in parity whose figure is a cosine
OF_TANGENTS = "tangents_"  # the beginning of a name whose figure is relative: a share of the tangents' norm
INTERPOLATIONS = ("bicubic", "bilinear")
RESIZE_MODES = ("shortest", "longest", "squash")
LARGEST_CROP = 4096  # pixels along an edge
LARGEST_SCALE = 1e4  # of the logit scale; CLIP's training stops at 100


@dataclass(frozen=True)
class Tensor:
    """One weight, and where it lies in its tower's data file. offset: its first byte.

    Raises ValueError for a dtype that is not one of WEIGHT_DTYPES.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int

    def __post_init__(self) -> None:
        if self.dtype not in WEIGHT_DTYPES:
            raise ValueError(f"the weight {self.name} has dtype {self.dtype!r}, not one of {WEIGHT_DTYPES}")

    @property
    def n_bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def is_packed(self) -> bool:
        """Whether it is a packed matrix (int8, int4): (out, blocks, bytes of a block)."""
        return self.name.endswith(".blocks")

    @property
    def end(self) -> int:
        """Offset of the first byte after it."""
        return self.offset + self.n_bytes


def _span(weights: tuple[Tensor, ...]) -> tuple[int, int]:
    if not weights:
        return 0, 0
    start = min(t.offset for t in weights)
    return start, max(t.end for t in weights) - start


@dataclass(frozen=True)
class Step:
    """One graph of a streamed tower, and the weights that it takes as inputs.

    weights is empty if the graph has its weights inside. The outputs of a step are, in order, the first
    inputs of the next. Its other inputs are these weights and the caller's masks, by name.
    """

    graph: str
    weights: tuple[Tensor, ...]

    @property
    def span(self) -> tuple[int, int]:
        """Where the step's weights begin in the data file, and how many bytes they take together."""
        return _span(self.weights)

    @property
    def unpacking_bytes(self) -> int:
        """Bytes of the largest packed matrix as float32: onnxruntime unpacks one at a time for a product."""
        sizes = [math.prod(t.shape[:2]) * PACKED_BLOCK * 4 for t in self.weights if t.is_packed]
        return max(sizes, default=0)


@dataclass(frozen=True)
class TangentStep:
    """The graphs for the tangents of one half of a block.

    primal:     the half itself. Its first output are its rows; the others are inputs of the tangents' graphs,
                which have the same names. Its weights are those of the text tower's step
    fp32, int8: the tangents, with float32 products and the same weights, or with 8-bit products
    weights:    of the 8-bit products
    """

    primal: str
    fp32: str
    int8: str | None
    weights: tuple[Tensor, ...]

    @property
    def span(self) -> tuple[int, int]:
        """Where the weights begin in the tangents' data file, and how many bytes they take together."""
        return _span(self.weights)

    def graph(self, in_8_bits: bool) -> str:
        """The graph of the tangents. in_8_bits: only where it has one."""
        found = self.int8 if in_8_bits else self.fp32
        assert found
        return found


@dataclass(frozen=True)
class TangentSpec:
    """How class features change along directions of the context, in forward passes alone.

    steps: one for each half of a block, so for each step of the text tower but its first and its last
    head:  the graph that takes EOT rows and their tangents
    data:  the file with the weights of 8-bit products; None without them
    """

    steps: tuple[TangentStep, ...]
    head: str
    data: str | None

    @property
    def graphs(self) -> set[str]:
        """The files of all its graphs."""
        named = {name for each in self.steps for name in (each.primal, each.fp32, each.int8) if name}
        return named | {self.head}


@dataclass(frozen=True)
class TextSpec:
    """The text tower: its files and steps, and the sizes of the transformer.

    tangents: None where there are no graphs of them
    """

    graph: str
    data: str
    steps: tuple[Step, ...]
    width: int
    heads: int
    layers: int
    context_length: int
    vocabulary: int
    activation: str
    tangents: TangentSpec | None


@dataclass(frozen=True)
class ImageSpec:
    """The image tower: its files and steps.

    activation_bytes: in use at once in the largest run, for one picture, besides weights and inputs
    carried_bytes:    the most that one picture carries from step to step
    """

    graph: str
    data: str
    steps: tuple[Step, ...]
    kind: str
    activation_bytes: int
    carried_bytes: int


@dataclass(frozen=True)
class Preprocess:
    """How a picture becomes pixels: open_clip's PreprocessCfg.

    Raises ValueError for a value that this program cannot use.
    """

    size: tuple[int, int]
    mode: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    resize_mode: str
    fill_color: int

    def __post_init__(self) -> None:
        for name, ok in (
            ("size", all(1 <= edge <= LARGEST_CROP for edge in self.size)),
            ("mode", self.mode == "RGB"),
            ("mean", len(self.mean) == 3),
            ("std", len(self.std) == 3 and all(s > 0 for s in self.std)),
            ("interpolation", self.interpolation in INTERPOLATIONS),
            ("resize_mode", self.resize_mode in RESIZE_MODES),
            ("fill_color", self.fill_color <= 255),
        ):
            if not ok:
                raise ValueError(f"preprocessing cannot be done with {name} {getattr(self, name)!r}")


@dataclass(frozen=True)
class BundledFile:
    """A file of the bundle. size: in bytes."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """All of manifest.json.

    weights: precision of the linear layers, one of PRECISIONS
    parity:  largest differences from torch at export, by stage; those of tangents are relative, and their
             names begin with OF_TANGENTS; and cosines, whose names end with COSINE
    Raises ValueError for a precision or a logit scale that this program cannot use.
    """

    format: str
    format_version: int
    model: str
    pretrained: str | None
    weights: str
    embed_dim: int
    logit_scale: float
    initial_context: str
    text: TextSpec
    image: ImageSpec
    preprocess: Preprocess
    files: dict[str, BundledFile]
    parity: dict[str, float]
    exporter: dict[str, str]

    def __post_init__(self) -> None:
        if self.weights not in PRECISIONS:
            raise ValueError(f"its weights are {self.weights!r}, not one of {PRECISIONS}")
        if not 0 < self.logit_scale <= LARGEST_SCALE:
            raise ValueError(f"its logit scale is {self.logit_scale}, not above 0 and up to {LARGEST_SCALE}")

    @property
    def largest_difference(self) -> float:
        """The largest difference from torch over all stages of parity; cosines and tangents are left out."""
        others = {s: v for s, v in self.parity.items() if not s.startswith(OF_TANGENTS)}
        return max((v for stage, v in others.items() if not stage.endswith(COSINE)), default=0.0)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True) + "\n"
