"""What a bundle's manifest.json says: the towers, their files and steps, preprocessing, parity."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass

import numpy as np

FORMAT = "sharpzo-edge bundle"


FORMAT_VERSION = 2


PRECISIONS = ("fp32", "int8", "int4")  # of the linear layers


PACKED_BLOCK = 32  # inputs of a linear layer that share a scale, in int8 and int4


WEIGHT_DTYPES = ("float32", "float16", "int8", "uint8")


COSINE = "_cosine_to_fp32"  # ends the names of such figures in a manifest's parity


INTERPOLATIONS = ("bicubic", "bilinear")


RESIZE_MODES = ("shortest", "longest", "squash")


LARGEST_CROP = 4096


LARGEST_SCALE = 1e4  # of logits; CLIP's training stops at 100


@dataclass(frozen=True)
class Tensor:
    """Where one weight lies in its tower's data file."""

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
        """Whether it holds the numbers of a packed matrix: (out, blocks, bytes of a block)."""
        return self.name.endswith(".blocks")

    @property
    def end(self) -> int:
        """Offset of the first byte behind it."""
        return self.offset + self.n_bytes


@dataclass(frozen=True)
class Step:
    """One graph of a streamed tower, and the weights it takes as inputs (none: it has its own).

    What a step answers is, in order, what the next one takes first; its other inputs are these
    weights and the caller's masks, by name.
    """

    graph: str
    weights: tuple[Tensor, ...]

    @property
    def span(self) -> tuple[int, int]:
        """Where the weights begin in the data file, and how many bytes they take together."""
        if not self.weights:
            return 0, 0
        start = min(t.offset for t in self.weights)
        return start, max(t.end for t in self.weights) - start

    @property
    def unpacking_bytes(self) -> int:
        """The largest packed matrix in float32: onnxruntime unpacks one at a time to multiply by it."""
        sizes = [math.prod(t.shape[:2]) * PACKED_BLOCK * 4 for t in self.weights if t.is_packed]
        return max(sizes, default=0)


@dataclass(frozen=True)
class TextSpec:
    graph: str
    data: str
    steps: tuple[Step, ...]
    width: int
    heads: int
    layers: int
    context_length: int
    vocabulary: int
    activation: str


@dataclass(frozen=True)
class ImageSpec:
    """activation_bytes: alive at once in the hungriest run, for one picture, besides weights and inputs;
    carried_bytes: the most that one picture carries from step to step.
    """

    graph: str
    data: str
    steps: tuple[Step, ...]
    kind: str
    activation_bytes: int
    carried_bytes: int


@dataclass(frozen=True)
class Preprocess:
    """open_clip's PreprocessCfg: how a picture becomes pixels."""

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
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
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
        """From torch, among all stages of parity. (Cosines there say what rounding the weights did.)"""
        return max((v for stage, v in self.parity.items() if not stage.endswith(COSINE)), default=0.0)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True) + "\n"
