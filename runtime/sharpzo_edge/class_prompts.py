"""From class names to the rows that stand behind the context: name, ".", EOT.

A prompt is [SOS, v_1 … v_m, name, ".", EOT]; only v_1 … v_m are tuned. Names are tokenised together
with their full stop, as in a whole sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .bundle import MERGES_FILE, Bundle
from .errors import ClassNameError, UsageError
from .memory import CLASS_CHUNKS, chunk_sizes
from .tokenizer import EOT_ID, SOS_ID, Tokenizer, clean_text, split_words

RANDOM_CONTEXT_STD = 0.02  # as CoOp starts contexts without words


@dataclass(frozen=True)
class NameChunk:
    """Names of similar length that go through the tower together.

    classes (k,) int64: their places among all; embeddings (k, L, D) float32, zero behind EOT;
    eot_index (k,) int64.
    """

    classes: NDArray[np.int64]
    embeddings: NDArray[np.float32]
    eot_index: NDArray[np.int64]


@dataclass(frozen=True)
class ClassPrompts:
    """All classes, sorted by length into chunks so that little is padded."""

    names: tuple[str, ...]
    chunks: tuple[NameChunk, ...]


def name_token_ids(bundle: Bundle, names: Sequence[str], folders: Sequence[str] = ()) -> list[list[int]]:
    """Token ids of `name.` and EOT, one list a name. Raises ClassNameError for an empty name.

    folders: which the names come from, for its message
    """
    encoded = Tokenizer(bundle.path(MERGES_FILE)).encode([f"{name}." for name in names])
    for name, called, ids in zip(names, _called(names, folders), encoded, strict=True):
        if not split_words(clean_text(name)) or {SOS_ID, EOT_ID} & set(ids):
            raise ClassNameError(
                f"The class name {called} is empty, or holds a mark of the tokeniser. A class needs at least "
                f"one plain word. Rename its folder, or give it words with --class-names FILE"
            )
    return [[*ids, EOT_ID] for ids in encoded]


def class_prompts(
    bundle: Bundle, names: Sequence[str], n_context: int, class_chunk: int = CLASS_CHUNKS[0]
) -> ClassPrompts:
    """Fetch the embeddings of the class names. Costs no query.

    class_chunk: most names in one run of the text graph
    Raises ClassNameError as `checked_token_ids` does.
    """
    ids = checked_token_ids(bundle, names, n_context)
    by_length = sorted(range(len(ids)), key=lambda k: (len(ids[k]), k))
    chunks, start = [], 0
    for size, _ in chunk_sizes([len(tokens) for tokens in ids], 1 + n_context, class_chunk):
        chunks.append(_chunk(bundle, by_length[start : start + size], ids))
        start += size
    return ClassPrompts(tuple(names), tuple(chunks))


def checked_token_ids(
    bundle: Bundle, names: Sequence[str], n_context: int, folders: Sequence[str] = ()
) -> list[list[int]]:
    """Token ids of `name.` and EOT behind n_context vectors, one list a name.

    folders: which the names come from, for the messages

    Raises ClassNameError for a name that is empty, the same words as another, longer than the model's
    context leaves room for, or outside the bundle's vocabulary.
    """
    ids = name_token_ids(bundle, names, folders)
    room = bundle.manifest.text.context_length - 1 - n_context
    seen: dict[tuple[int, ...], str] = {}
    for name, tokens in zip(_called(names, folders), ids, strict=True):
        if (twin := seen.get(tuple(tokens))) is not None:
            raise ClassNameError(
                f"The class names {twin} and {name} are the same words to the model. Every class needs "
                f"words of its own. Rename a folder, or give it words with --class-names FILE"
            )
        seen[tuple(tokens)] = name
        if len(tokens) > room:
            raise ClassNameError(
                f"The class name {name} has {len(tokens)} tokens with its full stop and end mark. "
                f"With {n_context} context vectors there is room for {room}. "
                f"Shorten the name (--class-names FILE), or use fewer context vectors"
            )
        if not bundle.knows(tokens):
            raise ClassNameError(
                f"The class name {name} has words outside this bundle's vocabulary, which was cut "
                f"at export. Only words of the --vocabulary file are allowed. Use other words "
                f"(--class-names FILE), or export the bundle with a larger vocabulary"
            )
    return ids


def _called(names: Sequence[str], folders: Sequence[str]) -> list[str]:
    """What messages call the classes."""
    if not folders:
        return [repr(name) for name in names]
    return [f"{name!r} (of the folder {folder!r})" for name, folder in zip(names, folders, strict=True)]


def _chunk(bundle: Bundle, classes: list[int], ids: list[list[int]]) -> NameChunk:
    lengths = [len(ids[k]) for k in classes]
    embeddings = np.zeros((len(classes), max(lengths), bundle.manifest.text.width), np.float32)
    is_token = np.arange(max(lengths)) < np.asarray(lengths)[:, None]
    embeddings[is_token] = bundle.token_embeddings([token for k in classes for token in ids[k]])
    return NameChunk(np.asarray(classes), embeddings, np.asarray(lengths) - 1)


def context_from_words(bundle: Bundle, words: str) -> NDArray[np.float32]:
    """The context vectors p0 that spell `words`: (m, D) float32.

    Raises UsageError for words without tokens, too many, or outside the bundle's vocabulary.
    """
    (ids,) = Tokenizer(bundle.path(MERGES_FILE)).encode([words])
    longest = bundle.manifest.text.context_length - 4  # SOS, one token of name, ".", EOT
    if not 1 <= len(ids) <= longest:
        raise UsageError(
            f"--context-init {words!r} has {len(ids)} tokens. From 1 to {longest} fit this model. "
            f'The usual choice is --context-init "{bundle.manifest.initial_context}"'
        )
    if not bundle.knows(ids):
        raise UsageError(
            f"--context-init {words!r} has words outside this bundle's vocabulary. "
            f'It was cut at export. Use --context-init "{bundle.manifest.initial_context}", or '
            f"--context-tokens N"
        )
    return bundle.token_embeddings(ids)


def random_context(bundle: Bundle, n_context: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """n_context vectors ~ N(0, 0.02²): (m, D) float32. Raises UsageError when they do not fit."""
    longest = bundle.manifest.text.context_length - 4
    if not 1 <= n_context <= longest:
        raise UsageError(
            f"--context-tokens {n_context} does not fit this model. From 1 to {longest} are allowed. "
            f"Try --context-tokens 4"
        )
    shape = (n_context, bundle.manifest.text.width)
    return (rng.standard_normal(shape) * RANDOM_CONTEXT_STD).astype(np.float32)
