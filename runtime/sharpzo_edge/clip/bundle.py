"""A bundle: the folder that export writes on a workstation and the device reads, with its checks.

    manifest.json          the Manifest of manifest.py, as JSON
    text.onnx  text.data   from context vectors to class features of length one; weights as external data
    text_*.onnx            the same tower cut into steps: stem, halves of blocks, head. A half's weights
                           are inputs of its graph; the manifest says where they lie in text.data
    image.onnx image.data  from pixels to image features of length one
    image_*.onnx           the same tower in steps, for transformers and CLIP's ResNets
    token_embedding.npy    (rows, width) float32; read row by row, never mapped
    token_ids.npy          sorted int32: row i embeds token token_ids[i]; absent if the table has all tokens
    bpe.txt.gz             CLIP's merges, to tokenise class names on the device

Every file may be a link. The device never writes to a bundle. Nothing here imports onnxruntime or torch.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError, ClassNameError, cannot_read, is_absent
from ..run.npy import npy_offset
from ..run.reading import plain
from ..run.typed_json import read_dataclass
from .manifest import FORMAT, FORMAT_VERSION, OLDER_FORMAT, Manifest, Step, TangentStep

MANIFEST_FILE = "manifest.json"
TOKEN_EMBEDDING_FILE = "token_embedding.npy"
TOKEN_IDS_FILE = "token_ids.npy"
MERGES_FILE = "bpe.txt.gz"
MANIFEST_LIMIT_BYTES = 4 << 20


class Bundle:
    """An opened bundle. Its manifest was read; its files are there and have the sizes that it states.

    checksum: sha256 of manifest.json, which holds the sha256 of every other file
    """

    def __init__(self, folder: Path, manifest: Manifest, checksum: str):
        self.folder = folder
        self.manifest = manifest
        self.checksum = checksum

    @classmethod
    def open(cls, folder: Path) -> Bundle:
        """Read the manifest, and check it and the sizes of all files. (`verify` checks the bytes.)

        Raises BundleError when the folder is not a bundle, has another format version, or lacks a file.
        """
        folder = Path(folder)
        path = folder / MANIFEST_FILE
        try:
            with open(path, "rb", opener=plain) as file:
                raw = file.read(MANIFEST_LIMIT_BYTES + 1)
        except OSError as error:
            if not is_absent(error):
                raise cannot_read(path, error, folder) from error
            raise BundleError(
                f"No bundle at {folder}: {MANIFEST_FILE} cannot be read ({error.strerror}). "
                f"A bundle is the folder that export writes. "
                f"Check the path, or make one with: sharpzo-edge export --model ViT-B-16-quickgelu "
                f"--pretrained openai --output vit-b-16"
            ) from error
        if len(raw) > MANIFEST_LIMIT_BYTES:
            raise _damaged(folder, f"{MANIFEST_FILE} is larger than {MANIFEST_LIMIT_BYTES} bytes")
        bundle = cls(folder, _parse_manifest(folder, raw), hashlib.sha256(raw).hexdigest())
        bundle._check_files()
        return bundle

    def path(self, name: str) -> Path:
        return self.folder / name

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[None]:
        """What the system says while a file is read is said, and not called damage.

        Raises BundleError for a file that is not there, and SharpzoError for what may be well the next time.
        """
        try:
            yield
        except OSError as error:
            if is_absent(error):
                raise _missing(self.path(name), error) from error
            raise cannot_read(self.path(name), error, self.folder) from error

    def verify(self) -> None:
        """Compare every file with its sha256. This reads the whole bundle. Raises BundleError."""
        for name in self.manifest.files:
            self.verified(name)

    def verified(self, name: str) -> Path:
        """The path of a file, after its bytes were compared with its sha256. Raises BundleError."""
        expected = self.manifest.files[name].sha256
        with self.reading(name), self.path(name).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected:
            raise _damaged(self.folder, f"{name} has sha256 {found[:12]}…, not {expected[:12]}…")
        return self.path(name)

    def token_embeddings(self, token_ids: Sequence[int]) -> NDArray[np.float32]:
        """Rows of the token table: (len(token_ids), width) float32.

        Each row is read alone. If the table were mapped, its neighbours would be resident too.
        Raises ClassNameError for a token that the bundle's vocabulary does not have.
        """
        rows = self._rows_of(token_ids)
        width = self.manifest.text.width
        kept = self._kept_ids
        n_rows = self.manifest.text.vocabulary if kept is None else len(kept)
        result = np.empty((len(rows), width), np.float32)
        path = self.path(TOKEN_EMBEDDING_FILE)
        with self.reading(TOKEN_EMBEDDING_FILE), path.open("rb") as file:
            offset = self._npy_offset(file, np.float32, (n_rows, width))
            for i, row in enumerate(rows):
                data = os.pread(file.fileno(), width * 4, offset + row * width * 4)
                if len(data) != width * 4:
                    raise _damaged(self.folder, f"{TOKEN_EMBEDDING_FILE} ends before row {row}")
                result[i] = np.frombuffer(data, "<f4")
        return result

    def knows(self, token_ids: Sequence[int]) -> bool:
        """Whether the token table has a row for each of these tokens."""
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
        """The tokens that have a row, ascending; None if all tokens have one."""
        if TOKEN_IDS_FILE not in self.manifest.files:
            return None
        path = self.verified(TOKEN_IDS_FILE)
        with self.reading(TOKEN_IDS_FILE), path.open("rb") as file:
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

    def check_size(self, name: str) -> None:
        """Raises BundleError unless a file can be opened and still has the size that the manifest states.

        A mapped file that is shorter than what is read of it ends the process without a word.
        """
        with self.reading(name), self.path(name).open("rb") as file:
            found = os.fstat(file.fileno()).st_size
        if found != self.manifest.files[name].size:
            raise _damaged(self.folder, f"{name} has {found} bytes, not {self.manifest.files[name].size}")

    def _check_files(self) -> None:
        text, image = self.manifest.text, self.manifest.image
        steps = [step.graph for step in (*text.steps, *image.steps)]
        needed = {text.graph, text.data, image.graph, image.data, *steps}
        if text.tangents:
            needed |= text.tangents.graphs | ({text.tangents.data} if text.tangents.data else set())
        for name in sorted(needed | {TOKEN_EMBEDDING_FILE, MERGES_FILE}):
            if name not in self.manifest.files:
                raise _damaged(self.folder, f"the manifest does not list {name}")
        for name, expected in self.manifest.files.items():
            if PurePosixPath(name).name != name or name in ("", ".", ".."):
                raise _damaged(self.folder, f"the file name {name!r} leaves the folder")
            try:
                with self.reading(name):
                    found = os.stat(self.path(name))
            except ValueError as error:  # no file can have such a name
                raise _missing(self.path(name), error) from error
            if not stat.S_ISREG(found.st_mode):
                raise _damaged(self.folder, f"{name} is not a plain file")
            if found.st_size != expected.size:
                raise _damaged(self.folder, f"{name} has {found.st_size} bytes, not {expected.size}")
        for tower in (text, image):
            if len(tower.steps) == 1:  # a streamed tower has a first and a last step, which differ
                raise _damaged(self.folder, f"{tower.graph} is cut into a single step")
            self._check_ends(tower.data, tower.steps)
        if text.tangents:
            if len(text.tangents.steps) != len(text.steps) - 2:
                raise _damaged(self.folder, "the tangents' steps are not those of the text tower")
            kinds = {(step.int8 is not None, bool(step.weights)) for step in text.tangents.steps}
            if kinds != {(text.tangents.data is not None,) * 2}:
                raise _damaged(self.folder, "the tangents' steps are of different kinds")
            if text.tangents.data:
                self._check_ends(text.tangents.data, text.tangents.steps)

    def _check_ends(self, data: str, steps: Sequence[Step | TangentStep]) -> None:
        for weight in (w for step in steps for w in step.weights):
            if weight.end > self.manifest.files[data].size:
                raise _damaged(self.folder, f"the weight {weight.name} ends behind {data}")


def _parse_manifest(folder: Path, raw: bytes) -> Manifest:
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _damaged(folder, f"{MANIFEST_FILE} is not JSON ({error})") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise _damaged(folder, f"{MANIFEST_FILE} does not say {FORMAT!r}")
    version = data.get("format_version")
    if version not in (OLDER_FORMAT, FORMAT_VERSION):
        raise BundleError(
            f"The bundle {folder} has format version {version!r}. This program reads versions "
            f"{OLDER_FORMAT} and {FORMAT_VERSION}. Update sharpzo-edge on this machine, or export the bundle "
            f"again with the version you have."
        )
    if version == OLDER_FORMAT and isinstance(data.get("text"), dict):
        data["text"]["tangents"] = None
    try:
        return read_dataclass(Manifest, data)
    except ValueError as error:
        raise _damaged(folder, f"{MANIFEST_FILE}: {error}") from error


def _missing(path: Path, error: Exception) -> BundleError:
    try:
        is_dead_link = path.is_symlink()
    except (OSError, ValueError):
        is_dead_link = False
    if not is_dead_link:
        why = error.strerror if isinstance(error, OSError) else error
        return _damaged(path.parent, f"{path.name[:80]} is missing ({why})")
    return BundleError(
        f"The bundle {path.parent} is not complete: {path.name} is a link to {os.readlink(path)}, which "
        f"leads nowhere. A link must lead to a file that is there. Fetch that file, or copy the bundle from "
        f"where it is whole, with files in place of links. Type there: cp -rL BUNDLE COPY"
    )


def _damaged(folder: Path, what: str) -> BundleError:
    return BundleError(
        f"The bundle {folder} is damaged: {what}. Every file must be as export wrote it. "
        f"Copy the folder again from the workstation."
    )
