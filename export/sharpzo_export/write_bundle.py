"""open_clip model -> bundle folder: written beside, proved by parity, renamed."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from open_clip.tokenizer import default_bpe

from sharpzo_edge import __version__
from sharpzo_edge.clip.bundle import (
    MANIFEST_FILE,
    MERGES_FILE,
    TOKEN_EMBEDDING_FILE,
    TOKEN_IDS_FILE,
    Bundle,
)
from sharpzo_edge.clip.manifest import (
    FORMAT,
    FORMAT_VERSION,
    INTERPOLATIONS,
    PRECISIONS,
    RESIZE_MODES,
    BundledFile,
    Manifest,
    Preprocess,
)
from sharpzo_edge.clip.tokenizer import EOT_ID, MERGES, SOS_ID
from sharpzo_edge.errors import UsageError
from sharpzo_edge.run.files import cannot, sync_folder
from sharpzo_edge.tuning.settings import TANGENTS

from .image_graph import write_image_graphs
from .linear_weights import LinearWeights
from .load_clip import LoadedClip, load_clip
from .parity import check_parity
from .text_graph import INITIAL_CONTEXT, find_text_tower, write_text_graphs
from .transformer import refuse


def export(
    model: str,
    pretrained: str | None,
    output: Path,
    *,
    vocabulary: Path | None = None,
    quick_gelu: bool | None = None,
    weights: str = "fp32",
    tangents: str = "int8",
    say: Callable[[str], None] = lambda line: None,
) -> tuple[Bundle, tuple[str, ...]]:
    """Write the bundle of `model` to the folder `output`; returns it, and notes for the user.

    `say` hears of each step before it begins: together they may take minutes.

    `weights` is the precision of the linear layers; the rest, and all activations, are float32. `tangents`
    says which graphs of tangents there are: with products in 8 bits and float32, in float32 alone, or none.
    Raises UsageError when the model, its weights or the output cannot be used, and ParityError when the
    exported graphs differ from torch; then `output` does not exist.
    """
    if weights not in PRECISIONS:
        raise UsageError(
            f"--weights {weights} is not known. The linear layers' weights can be "
            f"{', '.join(PRECISIONS)}; activations are fp32 always. Use --weights fp32"
        )
    if tangents not in TANGENTS:
        raise UsageError(
            f"--tangents {tangents} is not known. It can be {', '.join(TANGENTS)}. Use --tangents int8: it "
            f"holds the float32 ones too, so it is right for every board"
        )
    if os.path.lexists(output):  # also a link that leads nowhere: no folder can take its place
        raise UsageError(
            f"The output {output} exists already. Export writes a new folder and replaces none. "
            f"Remove it first, or choose another --output"
        )
    kept = _read_vocabulary(vocabulary) if vocabulary else None
    beside = output.with_name(f".{secrets.token_hex(8)}.part")
    new = [folder for folder in (output, *output.parents) if not os.path.lexists(folder)]
    try:
        _take_place(output, beside)
        say(f"loading {model}")
        clip = load_clip(model, pretrained, quick_gelu)
        try:
            _write(beside, clip, kept, weights, tangents, say)
            for path in beside.iterdir():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            sync_folder(beside)
            os.rename(beside, output)
        except OSError as error:
            raise cannot("write", output, error) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        if not os.path.lexists(output):
            _remove_empty(new)
    written = Bundle.open(output)
    return written, clip.notes + _notes(written.manifest)


def _take_place(output: Path, beside: Path) -> None:
    """Make the folder that becomes the output, before the model is loaded. Raises SharpzoError.

    It has the output's own name first: whether a name is too long, only the file system knows.
    """
    try:
        output.mkdir(parents=True)
        output.rename(beside)
    except OSError as error:
        raise cannot("write", output, error) from error


def _remove_empty(folders: list[Path]) -> None:
    """Those that were made for an output that there is none of, from the lowest one up."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _notes(manifest: Manifest) -> tuple[str, ...]:
    if manifest.weights == "fp32" or manifest.image.kind != "traced":
        return ()
    return (
        f"The weights of the image tower stay fp32: torch traced it, and only graphs that export builds "
        f"itself can be {manifest.weights}. The text tower's are {manifest.weights}.",
    )


def _write(
    folder: Path,
    clip: LoadedClip,
    vocabulary: list[int] | None,
    weights: str,
    tangents: str,
    say: Callable[[str], None],
) -> None:
    say("writing the graphs of both towers")
    tower = find_text_tower(clip.model, clip.tokenizer)
    if tower.embed_dim != clip.embed_dim:
        raise refuse(
            "text",
            f"its features have {tower.embed_dim} numbers, the model's {clip.embed_dim}",
            "towers with features of one size",
        )
    preprocess = _preprocess(clip.preprocess)
    linear = LinearWeights(weights)
    text = write_text_graphs(folder, tower, SOS_ID, linear, tangents)
    image = write_image_graphs(folder, clip.model.visual, preprocess.size, tower.embed_dim, linear)
    _write_token_table(folder, tower.token_embedding, _kept_tokens(vocabulary, clip.tokenizer))
    _write_merges(folder / MERGES_FILE)
    manifest = Manifest(
        format=FORMAT,
        format_version=FORMAT_VERSION,
        model=clip.name,
        pretrained=clip.pretrained,
        weights=weights,
        embed_dim=tower.embed_dim,
        logit_scale=float(clip.model.logit_scale.exp().reshape(-1)[0]),
        initial_context=INITIAL_CONTEXT,
        text=text,
        image=image,
        preprocess=preprocess,
        files={p.name: _describe(p) for p in sorted(folder.iterdir())},
        parity={},
        exporter={
            "sharpzo-edge": __version__,
            **{name: version(name) for name in ("open_clip_torch", "torch", "onnx", "onnxruntime")},
        },
    )
    _write_manifest(folder, manifest)
    say("comparing their answers with torch's, which takes longest")
    parity = check_parity(Bundle.open(folder), clip, linear)
    _write_manifest(folder, dataclasses.replace(manifest, parity=parity))


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    (folder / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")


def _describe(path: Path) -> BundledFile:
    with path.open("rb") as file:
        return BundledFile(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def _preprocess(config: dict[str, Any]) -> Preprocess:
    """open_clip's PreprocessCfg as a dict -> ours. Raises UsageError for what the device does not do."""
    fields = {f.name for f in dataclasses.fields(Preprocess)}
    if odd := set(config) ^ fields:
        raise refuse("image", f"its preprocessing has {sorted(odd)}", f"{sorted(fields)}")
    size, interpolation = config["size"], config["interpolation"]
    as_three = {k: [v] * 3 if isinstance(v, (int, float)) else v for k, v in config.items()}
    try:
        height, width = (size, size) if isinstance(size, int) else size
        return Preprocess(
            size=(int(height), int(width)),
            mode=config["mode"],
            mean=tuple(map(float, as_three["mean"])),
            std=tuple(map(float, as_three["std"])),
            # open_clip reads "random" as bicubic when it evaluates.
            interpolation="bicubic" if interpolation == "random" else interpolation,
            resize_mode=config["resize_mode"],
            fill_color=int(config["fill_color"]),
        )
    except (TypeError, ValueError) as error:
        known = (*INTERPOLATIONS, *RESIZE_MODES)
        raise refuse("image", str(error), f"RGB, {', '.join(known)}, and three means and stds") from error


def _read_vocabulary(path: Path) -> list[int]:
    """The token ids in a vocabulary file. Raises UsageError."""
    try:
        ids = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(ids, list) or not all(type(i) is int and 0 <= i <= EOT_ID for i in ids):
            raise ValueError("it is not a list of token ids")
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(
            f"The vocabulary file {path} cannot be used: {error}. It must hold a JSON list of token "
            f"ids from 0 to {EOT_ID}. Correct it, or leave out --vocabulary to keep all words"
        ) from error
    return ids


def _kept_tokens(vocabulary: list[int] | None, tokenizer: Any) -> np.ndarray | None:
    """Sorted token ids of a vocabulary, with what every prompt needs; None keeps all."""
    if vocabulary is None:
        return None
    always = [SOS_ID, EOT_ID, *tokenizer.encode("."), *tokenizer.encode(INITIAL_CONTEXT)]
    return np.unique(np.array([*vocabulary, *always], np.int32))


def _write_token_table(folder: Path, table: np.ndarray, kept: np.ndarray | None) -> None:
    rows = table if kept is None else table[kept]
    np.save(folder / TOKEN_EMBEDDING_FILE, rows.astype("<f4"), allow_pickle=False)
    if kept is not None:
        np.save(folder / TOKEN_IDS_FILE, kept.astype("<i4"), allow_pickle=False)


def _write_merges(path: Path) -> None:
    """The merges that CLIP uses, out of the longer list that open_clip ships; same bytes every time."""
    with gzip.open(default_bpe(), "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")[1 : MERGES + 1]
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed:
        packed.write("".join(f"{line}\n" for line in lines).encode())
