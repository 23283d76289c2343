"""The contract between workstation and device: a folder with a versioned manifest.

    manifest.json          this file's `Manifest`, as JSON
    text.onnx  text.data   context vectors in, unit class features out; weights as external data
    text_*.onnx            the same tower cut into steps: stem, halves of blocks, head; a half's weights
                           are graph inputs, which the manifest finds in text.data
    image.onnx image.data  pixels in, unit image features out
    image_*.onnx           the same in steps, for transformers and CLIP's ResNets
    token_embedding.npy    (rows, width) float32; fetched row by row, never mapped
    token_ids.npy          sorted int32: row i embeds token token_ids[i]; absent when the table is full
    bpe.txt.gz             CLIP's merges, for class names chosen on the device

Export writes it once; the device only reads. Nothing here imports onnxruntime or torch.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import os
import stat
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from .arrays import npy_offset
from .errors import BundleError, ClassNameError

FORMAT = "sharpzo-edge bundle"
FORMAT_VERSION = 2
MANIFEST_FILE = "manifest.json"
TOKEN_EMBEDDING_FILE = "token_embedding.npy"
TOKEN_IDS_FILE = "token_ids.npy"
MERGES_FILE = "bpe.txt.gz"
MANIFEST_LIMIT_BYTES = 4 << 20
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


class Bundle:
    """An opened bundle: its manifest is read, its files are there and have the stated sizes."""

    def __init__(self, folder: Path, manifest: Manifest, checksum: str):
        self.folder = folder
        self.manifest = manifest
        self.checksum = checksum

    @classmethod
    def open(cls, folder: Path) -> Bundle:
        """Read and check the manifest and the files' sizes (`verify` checks the bytes).

        Raises BundleError when the folder is not a bundle, is newer than this program, or lacks a file.
        """
        folder = Path(folder)
        path = folder / MANIFEST_FILE
        try:
            with path.open("rb") as file:
                raw = file.read(MANIFEST_LIMIT_BYTES + 1)
        except OSError as error:
            raise BundleError(
                f"No bundle at {folder}: {MANIFEST_FILE} cannot be read ({error.strerror}). "
                f"A bundle is the folder that export writes. "
                f"Make one with: sharpzo-edge export --model ViT-B-16-quickgelu --pretrained openai "
                f"--output {folder}"
            ) from error
        if len(raw) > MANIFEST_LIMIT_BYTES:
            raise _damaged(folder, f"{MANIFEST_FILE} is larger than {MANIFEST_LIMIT_BYTES} bytes")
        bundle = cls(folder, _parse_manifest(folder, raw), hashlib.sha256(raw).hexdigest())
        bundle._check_files()
        return bundle

    def path(self, name: str) -> Path:
        return self.folder / name

    def verify(self) -> None:
        """Compare every file with its sha256. Reads the whole bundle. Raises BundleError."""
        for name in self.manifest.files:
            self.verified(name)

    def verified(self, name: str) -> Path:
        """A file whose bytes were compared with its sha256. Raises BundleError."""
        expected = self.manifest.files[name].sha256
        try:
            with self.path(name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise _damaged(self.folder, f"{name} cannot be read ({error.strerror})") from error
        if found != expected:
            raise _damaged(self.folder, f"{name} has sha256 {found[:12]}…, not {expected[:12]}…")
        return self.path(name)

    def token_embeddings(self, token_ids: Sequence[int]) -> NDArray[np.float32]:
        """Rows of the token table: (len(token_ids), width) float32.

        Each row is one pread: mapping the table would make its neighbours resident too.
        Raises ClassNameError for a token that the bundle's vocabulary leaves out.
        """
        rows = self._rows_of(token_ids)
        width = self.manifest.text.width
        kept = self._kept_ids
        n_rows = self.manifest.text.vocabulary if kept is None else len(kept)
        result = np.empty((len(rows), width), np.float32)
        path = self.path(TOKEN_EMBEDDING_FILE)
        with path.open("rb") as file:
            offset = self._npy_offset(file, np.float32, (n_rows, width))
            for i, row in enumerate(rows):
                data = os.pread(file.fileno(), width * 4, offset + row * width * 4)
                if len(data) != width * 4:
                    raise _damaged(self.folder, f"{TOKEN_EMBEDDING_FILE} ends before row {row}")
                result[i] = np.frombuffer(data, "<f4")
        return result

    def knows(self, token_ids: Sequence[int]) -> bool:
        """Whether every one of these tokens has a row."""
        kept = self._kept_ids
        if kept is None:
            return all(0 <= token < self.manifest.text.vocabulary for token in token_ids)
        return bool(np.isin(token_ids, kept).all())

    def _rows_of(self, token_ids: Sequence[int]) -> list[int]:
        if not self.knows(token_ids):
            raise ClassNameError(
                f"The bundle {self.folder} has no embedding for the tokens {list(token_ids)}. "
                f"Its vocabulary was cut at export. "
                f"Use other words, or export again without --vocabulary."
            )
        kept = self._kept_ids
        return [int(row) for row in (token_ids if kept is None else np.searchsorted(kept, token_ids))]

    @functools.cached_property
    def _kept_ids(self) -> NDArray[np.int32] | None:
        """The tokens that have a row, ascending; None when all have."""
        if TOKEN_IDS_FILE not in self.manifest.files:
            return None
        with self.verified(TOKEN_IDS_FILE).open("rb") as file:
            self._npy_offset(file, np.int32, (None,))
            ids = np.fromfile(file, "<i4")
        if ids.size == 0 or ids[0] < 0 or (ids[1:] <= ids[:-1]).any():
            raise _damaged(self.folder, f"{TOKEN_IDS_FILE} is not in ascending order")
        return ids

    def _npy_offset(self, file: BinaryIO, dtype: type[np.generic], expected: tuple[int | None, ...]) -> int:
        try:
            return npy_offset(file, dtype, expected)
        except ValueError as error:
            raise _damaged(self.folder, f"{Path(file.name).name} {error}") from error

    def _check_files(self) -> None:
        text, image = self.manifest.text, self.manifest.image
        steps = [step.graph for step in (*text.steps, *image.steps)]
        needed = {text.graph, text.data, image.graph, image.data, *steps}
        for name in sorted(needed | {TOKEN_EMBEDDING_FILE, MERGES_FILE}):
            if name not in self.manifest.files:
                raise _damaged(self.folder, f"the manifest does not list {name}")
        for name, expected in self.manifest.files.items():
            if PurePosixPath(name).name != name or name in ("", ".", ".."):
                raise _damaged(self.folder, f"the file name {name!r} leaves the folder")
            try:
                found = os.lstat(self.path(name))
            except (OSError, ValueError) as error:  # ValueError: a name that no file can have
                raise _damaged(self.folder, f"{name[:80]} is missing ({error})") from error
            if not stat.S_ISREG(found.st_mode):
                raise _damaged(self.folder, f"{name} is not a plain file")
            if found.st_size != expected.size:
                raise _damaged(self.folder, f"{name} has {found.st_size} bytes, not {expected.size}")
        for tower in (text, image):
            if len(tower.steps) == 1:  # what is streamed begins with one step and ends with another
                raise _damaged(self.folder, f"{tower.graph} is cut into a single step")
            for weight in (w for step in tower.steps for w in step.weights):
                if weight.end > self.manifest.files[tower.data].size:
                    raise _damaged(self.folder, f"the weight {weight.name} ends behind {tower.data}")


def _parse_manifest(folder: Path, raw: bytes) -> Manifest:
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _damaged(folder, f"{MANIFEST_FILE} is not JSON ({error})") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise _damaged(folder, f"{MANIFEST_FILE} does not say {FORMAT!r}")
    version = data.get("format_version")
    if version != FORMAT_VERSION:
        raise BundleError(
            f"The bundle {folder} has format version {version!r}. This program reads version "
            f"{FORMAT_VERSION}. Update sharpzo-edge on this machine, or export the bundle again "
            f"with the version you have."
        )
    try:
        manifest = from_json(Manifest, data)
    except ValueError as error:
        raise _damaged(folder, f"{MANIFEST_FILE}: {error}") from error
    assert isinstance(manifest, Manifest)
    return manifest


def from_json(kind: Any, value: Any, where: str = "") -> Any:
    """Build a dataclass (or a field of one) from parsed JSON, by its type annotations.

    Raises ValueError, naming the place, for a missing or unknown key and for a value of another type.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, dict):
            raise ValueError(f"{where or 'the file'} must be an object")
        hints = typing.get_type_hints(kind)
        if odd := sorted(set(hints) ^ set(value)):
            raise ValueError(f"{where or 'the file'} lacks or does not know: {', '.join(odd)}")
        return kind(**{k: from_json(h, value[k], f"{where}.{k}".lstrip(".")) for k, h in hints.items()})
    if origin is types.UnionType:
        return None if value is None else from_json(arguments[0], value, where)
    if origin is tuple and isinstance(value, list):
        if arguments[-1] is not Ellipsis and len(value) != len(arguments):
            raise ValueError(f"{where} must have {len(arguments)} entries")
        return tuple(from_json(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {str(k): from_json(arguments[1], v, f"{where}.{k}") for k, v in value.items()}
    if kind is float and type(value) in (int, float) and abs(value) < 1e300:
        return float(value)
    if kind in (int, str, bool) and type(value) is kind and (kind is not int or 0 <= value < 2**62):
        return value
    raise ValueError(f"{where} must be {getattr(kind, '__name__', kind)}, not {str(value)[:40]!r}")


def _damaged(folder: Path, what: str) -> BundleError:
    return BundleError(
        f"The bundle {folder} is damaged: {what}. Every file must be as export wrote it. "
        f"Copy the folder again from the workstation."
    )
