"""The readers of files from elsewhere, each with a valid file, for support.mutants.

READERS: name -> a function of an empty folder that returns the Reader. What a reader needs beside its file
is the demo's: its bundle, a few small pictures. One named _resealed gets mutants whose checksum is right:
their content may be anything, and is an error of ours or of the right form.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gzip
import hashlib
import io
import json
import os
import random
import shutil
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from PIL import Image

from sharpzo_edge import cli
from sharpzo_edge.clip import class_prompts, decoding, preprocess, tokenizer, towers
from sharpzo_edge.clip.bundle import MANIFEST_FILE, MERGES_FILE, TOKEN_EMBEDDING_FILE, TOKEN_IDS_FILE, Bundle
from sharpzo_edge.clip.tower_plan import ImagePlan, Tangents, TextPlan, TowerPlan
from sharpzo_edge.clip.towers import TextTower
from sharpzo_edge.commands.inspect import inspect
from sharpzo_edge.demo import BUNDLE
from sharpzo_edge.errors import ImagesError
from sharpzo_edge.heads.head import Head, base_by
from sharpzo_edge.memory.budget import budget_of
from sharpzo_edge.memory.plan import Work, make_plan
from sharpzo_edge.pictures import encode, features
from sharpzo_edge.pictures import folder as folders
from sharpzo_edge.pictures.few_shot import FewShot
from sharpzo_edge.printing import inspect_lines, tune_lines
from sharpzo_edge.run import checkpoint, files
from sharpzo_edge.run.folder import WorkFolder
from sharpzo_edge.run.progress import Caller
from sharpzo_edge.run.typed_json import take_arrays
from sharpzo_edge.search.losses import softmax
from sharpzo_edge.tuning import resume
from sharpzo_edge.tuning.answers import ByUse
from sharpzo_edge.tuning.loop import State
from sharpzo_edge.tuning.result import DoubtfulPicture, HeadResult, NoneResult, TuneResult
from sharpzo_edge.tuning.tuned_prompt import (
    FORMAT_VERSION,
    HEADS_FORMAT_VERSION,
    METADATA_KEY,
    TunedPrompt,
    check_fits,
    load_prompt,
    save_prompt,
    threshold_of,
)
from sharpzo_edge.types import Floats
from support.mutants import Reader, mutate_bytes, mutate_json, mutate_json_file, mutate_safetensors, spelt

NAMES = ("cat", "red heart")
SHORT_MERGES = 500  # lines of the merges that a reader of names gets: the whole file takes a while


def _bundle(folder: Path) -> Path:
    """A copy of the demo's, whose files are the same ones."""
    copied = folder / "bundle"
    copied.mkdir()
    for path in BUNDLE.iterdir():
        try:
            os.link(path, copied / path.name)
        except OSError:
            shutil.copy(path, copied)
    return copied


def _replace(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)  # it may be a link to the demo's
    path.write_bytes(data)


def _replace_stated(bundle: Path, name: str, data: bytes) -> None:
    """Put a file into a bundle, and let its manifest say what that is."""
    _replace(bundle / name, data)
    manifest = json.loads((BUNDLE / MANIFEST_FILE).read_bytes())
    manifest["files"][name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    _replace(bundle / MANIFEST_FILE, json.dumps(manifest).encode())


# The bundle --------------------------------------------------------------------------------------


def manifest(folder: Path) -> Reader:
    """Opened, shown, planned for, and its text tower run step by step, with tangents where it has them."""
    bundle = _bundle(folder)
    real = tokenizer.Tokenizer(BUNDLE / MERGES_FILE).encode
    known = functools.cache(lambda text: real([text])[0])
    towers.release_library_pages = towers.return_freed_blocks = lambda: None
    class_prompts.Tokenizer.encode = lambda _, texts: [known(text) for text in texts]  # type: ignore[method-assign]

    def read(data: bytes) -> Any:
        _replace(bundle / MANIFEST_FILE, data)
        return _used(bundle)

    return Reader((bundle / MANIFEST_FILE).read_bytes(), mutate_json_file, read)


def _used(path: Path) -> Any:
    """Whatever a command does with a bundle, for two names."""
    _shown(path)
    bundle = Bundle.open(path)
    context = class_prompts.context_from_words(bundle, bundle.manifest.initial_context)
    ids = class_prompts.checked_token_ids(bundle, NAMES, len(context))
    work = Work(name_lengths=tuple(map(len, ids)), n_context=len(context), threads=1)
    plan = make_plan(bundle.manifest, work, budget_of("1GiB", ""))
    prompts = class_prompts.class_prompts(bundle, NAMES, len(context), plan.text.chunk_rows)
    found = [bundle.manifest.to_json(), dataclasses.asdict(plan)]
    spec = bundle.manifest.text.tangents
    tangents: Tangents | None = None if spec is None else "int8" if spec.data else "fp32"
    step_by_step = TextPlan(TowerPlan("streamed", 1, 1), plan.text.chunk_rows, 1, tangents)
    for text_plan in (plan.text, step_by_step):
        with TextTower(bundle, text_plan) as tower:
            found.append(tower.class_features(context[np.newaxis], prompts).tobytes())
            if text_plan.tangents:
                found.append(tower.class_feature_tangents(context, context[np.newaxis], prompts).tobytes())
    return found


def _shown(path: Path) -> None:
    """What `inspect` prints of it, to where a terminal would be."""
    result = inspect(path)
    for as_json in (True, False):
        out = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace")
        with contextlib.redirect_stdout(out):
            cli._print(as_json, result.to_json(), inspect_lines(result))


def graph(folder: Path) -> Reader:
    """The manifest has its checksum: onnxruntime, which crashes on some, must see none but the original."""
    path = _bundle(folder)
    name = Bundle.open(path).manifest.text.graph

    def read(data: bytes) -> Any:
        _replace(path / name, data)
        with TextTower(Bundle.open(path), TextPlan(TowerPlan("packed", 1, 1), 256, 1)):
            return data

    return Reader((path / name).read_bytes(), mutate_bytes, read, is_covered=True)


def tokens(folder: Path) -> Reader:
    """The tokens, with a manifest that states what they are."""
    bundle = _bundle(folder)
    some = np.load(BUNDLE / TOKEN_IDS_FILE)[:5].tolist()

    def read(data: bytes) -> Any:
        _replace_stated(bundle, TOKEN_IDS_FILE, data)
        return Bundle.open(bundle).token_embeddings(some).tobytes()

    return Reader((BUNDLE / TOKEN_IDS_FILE).read_bytes(), mutate_bytes, read)


def table(folder: Path) -> Reader:
    """The embeddings' header, of a table of few rows."""
    bundle = _bundle(folder)
    rows = np.load(BUNDLE / TOKEN_EMBEDDING_FILE, mmap_mode="r")[:3]
    _replace_stated(bundle, TOKEN_IDS_FILE, _npy(np.arange(3, dtype=np.int32)))
    manifest = json.loads((bundle / MANIFEST_FILE).read_bytes())
    original = _npy(rows)

    def read(data: bytes) -> Any:
        _replace(bundle / TOKEN_EMBEDDING_FILE, data)
        manifest["files"][TOKEN_EMBEDDING_FILE]["size"] = len(data)
        _replace(bundle / MANIFEST_FILE, json.dumps(manifest).encode())
        return Bundle.open(bundle).token_embeddings([2, 0]).tobytes()

    return Reader(original, mutate_bytes, read)


def _npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def merges(folder: Path) -> Reader:
    """As bytes of gzip, and as other text in whole gzip."""
    text = _short_merges()
    path = folder / "merges"

    def mutate(data: bytes, rng: random.Random) -> bytes:
        if rng.random() < 0.3:
            return mutate_bytes(data, rng)
        return gzip.compress(mutate_bytes(text, rng), 1, mtime=0)

    def read(data: bytes) -> Any:
        path.write_bytes(data)
        return tokenizer.Tokenizer(path).encode(["a photo of the thing", "another"])

    return Reader(gzip.compress(text, mtime=0), mutate, read)


def _short_merges() -> bytes:
    """The first lines of the merges; from here on this process takes so many for all."""
    tokenizer.MERGES = SHORT_MERGES
    with gzip.open(BUNDLE / MERGES_FILE) as lines:
        return b"".join(lines.readline() for _ in range(SHORT_MERGES))


# The prompt --------------------------------------------------------------------------------------


def _prompt(with_heads: bool) -> Callable[[Path], Reader]:
    def make(folder: Path) -> Reader:
        bundle = Bundle.open(BUNDLE)
        rng = np.random.default_rng(0)
        T = rng.standard_normal((2, bundle.manifest.embed_dim)).astype(np.float32)
        T /= np.linalg.norm(T, axis=1, keepdims=True)
        head = both = None
        if with_heads:
            made_by, bias = {"base": 0.5, "penalty": 2.0, "temperature": 3.0, "scale": 2.0}, T[0, :2]
            weights = np.ones((2, 3), np.float32)
            head = Head("kernel", base_by(made_by), weights, bias, made_by, np.vstack([T, T[:1]]))
            both = Head("ridge", base_by(made_by), T * 3, bias, made_by)
        about = {
            "format_version": HEADS_FORMAT_VERSION if with_heads else FORMAT_VERSION,
            "class_names": list(NAMES),
            "class_folders": ["cat", "red_heart"],
            "model": "a model",
            "bundle": bundle.checksum,
            "seed": 0,
            "settings": {"preset": "edge", "sigma0": 0.5, "projection_std": None},
            "queries": 12,
            "train_loss": 0.5,
            "none": 0.2,
            "known": {"head" if with_heads else "prompt": {"pictures": 4, "lowest": [-0.5, 1.25]}},
        }
        if with_heads:
            heads = {"head": {"kind": "kernel", **made_by}, "both": {"kind": "ridge", **made_by}}
            about |= {"use": "head", "left_out": {}, "words_temperature": 0.5, "heads": heads}
        path = folder / "prompt"
        context = rng.standard_normal((4, bundle.manifest.text.width)).astype(np.float32)
        save_prompt(path, TunedPrompt(context, T, about, -T if with_heads else None, head, both))

        def read(data: bytes) -> Any:
            path.write_bytes(data)
            _shown(path)
            prompt = load_prompt(path)
            check_fits(path, prompt, bundle)
            with np.errstate(over="ignore", invalid="ignore"):
                logits = [prompt.logits(T, bundle.manifest.logit_scale, use) for use in prompt.uses]
                scores = [softmax(each).tobytes() for each in logits]
            thresholds = [threshold_of(None, use, prompt, path) for use in prompt.uses]
            return [prompt.about, prompt.context.tobytes(), prompt.use, *scores, thresholds]

        mutate = functools.partial(mutate_safetensors, metadata_key=METADATA_KEY)
        return Reader(path.read_bytes(), mutate, read)

    return make


# What a run keeps --------------------------------------------------------------------------------


def _checkpoint(reseal: bool) -> Callable[[Path], Reader]:
    def make(folder: Path) -> Reader:
        path = folder / "checkpoint"
        checkpoint.save_state(path, _a_state(), {"--seed": 3, "--images": "x", "plan": [None, 256]})

        def read(data: bytes) -> Any:
            path.write_bytes(data)
            state, made_for = checkpoint.load_state(path, State)  # type: ignore[misc]
            arrays: dict[str, np.ndarray] = {}
            tree = take_arrays(state, arrays)
            return [tree, made_for, {n: (a.dtype.str, a.shape, a.tobytes()) for n, a in arrays.items()}]

        mutate = functools.partial(
            mutate_safetensors,
            metadata_key=checkpoint.METADATA_KEY,
            reseal=_resealed_checkpoint if reseal else bytes,
        )
        return Reader(path.read_bytes(), mutate, read, is_covered=not reseal)

    return make


def _a_state() -> State:
    from sharpzo_edge.search import cmaes
    from sharpzo_edge.search.losses import Score
    from sharpzo_edge.tuning.objective import Evaluation
    from sharpzo_edge.tuning.presets import PRESETS
    from sharpzo_edge.tuning.stopping import Patience, Plateau

    settings = dataclasses.replace(PRESETS["paper"], dim=3).stage1()
    origin, seed = np.zeros(3), np.random.SeedSequence(0)
    search = cmaes.SharpnessAwareCMAES.start(settings, origin, seed, lambda T: T)
    first = Evaluation(origin, np.eye(2, 4, dtype=np.float32), Score(0.5, 0.5), None, Score(0.5, 0.5))
    patience = Patience.start(first)
    return State(1, search.state, 0, 9, 2, None, first, first, first, 1, patience, Plateau(), 1.5)


def _resealed_checkpoint(data: bytes) -> bytes:
    try:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        arrays = safetensors.numpy.load(data)
        metadata = header["__metadata__"]
        metadata[checkpoint.CHECKSUM_KEY] = checkpoint._checksum(metadata[checkpoint.METADATA_KEY], arrays)
        text = json.dumps(header).encode()
    except Exception:  # no checkpoint any more, and no checksum to be right
        return data
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def _mutate_checked(data: bytes, rng: random.Random) -> bytes:
    """Of the value that a checksum covers; the checksum is right."""
    value = mutate_json(json.loads(data)["value"], rng)
    try:
        sealed = {"value": value, "checksum": files.checksum(files.canonical_json(value))}
        return files.canonical_json(sealed)
    except (ValueError, RecursionError):
        return spelt(value, rng)


def _record(reseal: bool) -> Callable[[Path], Reader]:
    def make(folder: Path) -> Reader:
        output = folder / "prompt"
        output.write_bytes(b"a prompt")
        work = WorkFolder(folder)
        made_for = {"--seed": 3, "--images": "x", "plan": [None, 256]}
        head = HeadResult("gda", 0.5, 0.75, 0.6)
        result = TuneResult(
            *(9, 5, 4, 1.5, 80.0, 7, "spent", 0.5, 0.5, 1.0, 0.5, 1.0, {"a": 1}, "prompt", head),
            *("head", ByUse(0.3, 0.5, 0.6, 0.7), ByUse(0.3, None, 0.6, None), ByUse(1.0, 0.5, 1.0, 0.5), 0.5),
            (DoubtfulPicture("cat/1.png", "cat", "red heart"),),
            NoneResult(0.05, 40, 1.5, 0.025, 0.5, 2),
        )
        resume.save_record(work, resume.Record(made_for, files.file_checksum(output), result))

        def read(data: bytes) -> Any:
            work.record.write_bytes(data)
            found = resume.finished_result(output, work, made_for)
            if found is not None:  # else the record says that the run is not finished
                with contextlib.redirect_stdout(io.StringIO()):
                    cli._print(True, found.to_json(), [])
                    cli._print(False, {}, tune_lines(found, BUNDLE, True))
            return found and found.to_json()

        mutate = _mutate_checked if reseal else mutate_json_file
        return Reader(work.record.read_bytes(), mutate, read, is_covered=not reseal)

    return make


class _NoTower:
    """Features of pictures without a network: quick, and another for every picture."""

    folder = BUNDLE

    def __init__(self, *_: object) -> None: ...
    def __enter__(self) -> _NoTower:
        return self

    def __exit__(self, *_: object) -> None: ...

    def image_features(self, batches: Iterable[Floats]) -> Floats:
        pixels = np.concatenate(list(batches)).reshape(-1, 3 * 64, 64)[:, ::2].mean(axis=2)
        return pixels.astype(np.float32)


class _UnsyncedOs:
    """`os` whose disk is never waited for: no power is cut here."""

    fsync = staticmethod(lambda _: None)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


def _kept_pictures(name: str, reseal: bool = False) -> Callable[[Path], Reader]:
    """training_features over a work folder in which one file is a mutant: the features must be the same."""

    def make(folder: Path) -> Reader:
        rng = np.random.default_rng(0)
        for k, class_ in enumerate(("cat", "dog")):
            (folder / "pictures" / class_).mkdir(parents=True)
            for i in range(3):
                noise = rng.integers(100 * k, 100 * k + 90, (9, 12, 3)).astype(np.uint8)
                Image.fromarray(noise).save(folder / "pictures" / class_ / f"{i}.png")
        (folder / "pictures" / "cat" / "note.txt").write_text("no picture")
        bundle = Bundle.open(BUNDLE)
        plan = ImagePlan(TowerPlan("packed", 1, 2), float("inf"), 1)
        labelled = folders.read_folder(folder / "pictures")
        asked = FewShot(2, 1, np.random.SeedSequence(1), 1, np.random.SeedSequence(1))
        encode.ImageTower = _NoTower  # type: ignore[misc, assignment]
        files.os = _UnsyncedOs()  # type: ignore[assignment]
        bundle.manifest = dataclasses.replace(bundle.manifest, embed_dim=96)
        assert bundle.manifest.preprocess.size == (64, 64)
        work = folder / "work"
        work.mkdir()
        at = WorkFolder(work)
        kept: dict[str, bytes] = {}

        def whole(remove: Callable[[Path], None]) -> Any:
            features.remove = remove
            made = features.training_features(bundle, labelled, asked, plan, at, Caller())
            rows = [made.train.features[:].tobytes(), made.val.features[:].tobytes()]
            return [*rows, made.train.labels.tolist(), made.val.labels.tolist(), made.checksum]

        whole(lambda path: kept.update({path.name: path.read_bytes()}))
        kept |= {path.name: path.read_bytes() for path in work.iterdir()}
        journals = (at.crops.name, at.encoded.name)
        present = [*journals, name] if name in journals else [at.features.name, at.pictures.name]

        def read(data: bytes) -> Any:
            for path in work.iterdir():
                path.unlink()
            for each in present:
                (work / each).write_bytes(data if each == name else kept[each])
            return whole(files.remove)

        mutate = _mutate_checked if reseal else mutate_json_file if name.endswith(".json") else mutate_bytes
        return Reader(kept[name], mutate, read, is_covered=not reseal)

    return make


# Words -------------------------------------------------------------------------------------------


def _words(
    original: bytes, mutate: Callable[[bytes, random.Random], bytes], is_json: bool
) -> Callable[[Path], Reader]:
    """The names of --class-names or --classes, up to their tokens."""

    def make(folder: Path) -> Reader:
        path = folder / "words"
        (folder / MERGES_FILE).write_bytes(gzip.compress(_short_merges()))
        bundle = Bundle(folder, Bundle.open(BUNDLE).manifest, "")
        bundle.verified = bundle.path  # type: ignore[method-assign]
        bundle.knows = lambda _: True  # type: ignore[method-assign, assignment]
        for name in NAMES:
            (folder / "pictures" / name).mkdir(parents=True)

        def read(data: bytes) -> Any:
            path.write_bytes(data)
            if is_json:
                names: Any = folders.read_folder(folder / "pictures", path).names
            else:
                names = cli.class_list(str(path))
            return [names, class_prompts.checked_token_ids(bundle, names, 4)]

        return Reader(original, mutate, read)

    return make


# Pictures ----------------------------------------------------------------------------------------


def _pictures(variants: Callable[[], list[bytes]], mutate: Callable[[bytes, random.Random], bytes]) -> Any:
    def make(folder: Path) -> Reader:
        originals = variants()
        how, path = Bundle.open(BUNDLE).manifest.preprocess, folder / "picture"

        def read(data: bytes) -> Any:
            path.write_bytes(data)
            try:
                crop = preprocess.read_crop(path, how, 24 << 20)
            except decoding.UnreadablePictureError as reason:
                assert 0 < len(str(reason)) < 80
                raise ImagesError(str(reason)) from reason
            assert crop.shape == (*how.size, 3) and crop.dtype == np.uint8
            return crop.tobytes()

        return Reader(originals[0], lambda _, rng: mutate(rng.choice(originals), rng), read)

    return make


def _noise(mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> Image.Image:
    levels = np.random.default_rng(0).integers(0, 256, (*size, 4)).astype(np.uint8)
    if mode == "I;16":
        return Image.fromarray(levels.astype(np.uint16)[:, :, 0] * 200)
    return Image.fromarray(levels, "RGBA").convert(mode)


def _saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[decoding.ORIENTATION] = 6
    return exif


def _jpegs() -> list[bytes]:
    return [
        _saved(_noise(), "JPEG", exif=_turned()),
        _saved(_noise(), "JPEG", progressive=True),
        _saved(_noise("L"), "JPEG"),
        _saved(_noise("CMYK"), "JPEG"),
    ]


def _pngs() -> list[bytes]:
    return [
        _saved(_noise(), "PNG", exif=_turned()),
        _saved(_noise("P"), "PNG", transparency=3),
        _saved(_noise("I;16"), "PNG"),
        _saved(_noise("RGBA"), "PNG"),
        _saved(_noise("RGBA"), "PNG", save_all=True, append_images=[_noise("RGBA").rotate(90)]),
        _saved(_noise("1"), "PNG"),
    ]


def _gifs() -> list[bytes]:
    frames = [_noise("P").rotate(turn) for turn in (90, 180)]
    return [_saved(_noise("P"), "GIF"), _saved(_noise("P"), "GIF", save_all=True, append_images=frames)]


def _webps() -> list[bytes]:
    return [
        _saved(_noise(), "WEBP", exif=_turned()),
        _saved(_noise("RGBA"), "WEBP", lossless=True),
        _saved(_noise(), "WEBP", save_all=True, append_images=[_noise().rotate(90)]),
    ]


def _others() -> list[bytes]:
    return [
        *(_saved(_noise(mode), "TIFF") for mode in ("RGB", "CMYK", "I;16")),
        *(_saved(_noise(), "TIFF", compression=kind) for kind in ("tiff_lzw", "tiff_adobe_deflate", "jpeg")),
        *(_saved(_noise(), kind) for kind in ("BMP", "PPM", "TGA", "ICO", "PCX", "SGI", "DDS", "JPEG2000")),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 30\n%%EndComments\nshowpage\n",
    ]


def _mutate_png(data: bytes, rng: random.Random) -> bytes:
    """Of bytes, or of chunks: swapped, doubled, left out, or other bytes in one; their checksums right."""
    if rng.random() < 0.2:
        return mutate_bytes(data, rng)
    chunks, place = [], 8
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    for _ in range(rng.choice((1, 1, 2))):
        i = rng.randrange(len(chunks))
        kind, inside = chunks[i]
        match rng.randrange(6):
            case 0 | 1 | 2:
                chunks[i] = kind, mutate_bytes(inside, rng)
            case 3:
                chunks.insert(rng.randrange(len(chunks)), chunks.pop(i))
            case 4:
                chunks[i:i] = [chunks[i]] * rng.choice((1, 300))
            case 5:
                chunks[i] = (
                    rng.choice((b"IHDR", b"PLTE", b"tRNS", b"iCCP", b"zTXt", b"eXIf", b"acTL")),
                    inside,
                )
    return data[:8] + b"".join(
        len(inside).to_bytes(4, "big") + kind + inside + zlib.crc32(kind + inside).to_bytes(4, "big")
        for kind, inside in chunks
    )


CLASS_NAMES = json.dumps({"cat": "a cät &amp; her kitten", "red heart": "ＲＥＤ heart"}).encode()
CLASSES = "cat\nred heart\n\ncafé au lait\nit's 42!\n".encode()
READERS: dict[str, Callable[[Path], Reader]] = {
    "manifest": manifest,
    "graph": graph,
    "tokens": tokens,
    "table": table,
    "merges": merges,
    "prompt": _prompt(with_heads=False),
    "prompt_with_heads": _prompt(with_heads=True),
    "checkpoint": _checkpoint(reseal=False),
    "checkpoint_resealed": _checkpoint(reseal=True),
    "record": _record(reseal=False),
    "record_resealed": _record(reseal=True),
    "pictures_json": _kept_pictures("pictures.json"),
    "pictures_json_resealed": _kept_pictures("pictures.json", reseal=True),
    "features": _kept_pictures("features.npy"),
    "crops_journal": _kept_pictures("crops.journal"),
    "features_journal": _kept_pictures("features.journal"),
    "class_names": _words(CLASS_NAMES, mutate_json_file, is_json=True),
    "classes": _words(CLASSES, mutate_bytes, is_json=False),
    "jpeg": _pictures(_jpegs, mutate_bytes),
    "png": _pictures(_pngs, _mutate_png),
    "gif": _pictures(_gifs, mutate_bytes),
    "webp": _pictures(_webps, mutate_bytes),
    "other_pictures": _pictures(_others, mutate_bytes),
}
