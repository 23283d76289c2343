"""From class names to the rows of the text tower that follow the context: name, ".", EOT.

A prompt is [SOS, v_1 … v_m, name, ".", EOT]. Tuning changes only v_1 … v_m. A name is tokenised together with
its full stop, as in a whole sentence.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..errors import ClassNameError, UsageError
from ..types import Floats
from .bundle import MERGES_FILE, Bundle
from .tokenizer import EOT_ID, SOS_ID, Tokenizer, clean_text, split_words

CHUNK_ROWS = (256, 128, 64, 32)  # sizes to choose from: most rows of a candidate in one run of the graph
NAMES_IN_MEMORY = 4 << 20  # bytes; if the names' rows take more, they are read anew each time
LONGEST_NAME = 2000  # characters; longer names fit no model. Tokenising time grows with the square
MOST_NAMED = 10  # names in one message
RANDOM_CONTEXT_STD = 0.02  # CoOp's, for a context that starts without words


@dataclass(frozen=True)
class NameChunk:
    """Class names that go through the text tower in one sequence, one after the other.

    The sequence begins with P shared rows, SOS and the context. Then come R rows of names.
    classes:    which of all classes these are
    embeddings: () -> (R, D) float32, the rows of the names: from memory, or read anew if they are many
    positions:  (R,) int64, each row's position in its own prompt
    eot_rows:   (k,) int64, each name's EOT row in the sequence
    mask:       (P + R, P + R) float32, 0 where a row may see another, else -inf. A row sees the shared rows
                and the rows of its own name, up to itself
    """

    classes: slice
    embeddings: Callable[[], Floats]
    positions: NDArray[np.int64]
    eot_rows: NDArray[np.int64]
    mask: Floats


@dataclass(frozen=True)
class ClassPrompts:
    """All class names, and the chunks that they are divided into, in the same order."""

    names: tuple[str, ...]
    chunks: tuple[NameChunk, ...]

    @property
    def n_rows(self) -> int:
        """Rows that one context has in the text tower, all chunks together."""
        return sum(len(chunk.mask) for chunk in self.chunks)


def name_token_ids(bundle: Bundle, names: Sequence[str], folders: Sequence[str] = ()) -> list[list[int]]:
    """Token ids of `name.` and EOT, one list a name.

    folders: the folders that the names come from, for the messages
    Raises ClassNameError for a name that is too long, is empty, or has a mark of the tokeniser.
    """
    for name, called in zip(names, _called(names, folders), strict=True):
        if len(name) > LONGEST_NAME:
            raise ClassNameError(
                f"The class name {called[:80]}… has {len(name):,} characters. A name may have "
                f"{LONGEST_NAME:,}. Shorten the name (--class-names FILE), or rename its folder"
            )
    encoded = Tokenizer(bundle.verified(MERGES_FILE)).encode([f"{name}." for name in names])
    for name, called, ids in zip(names, _called(names, folders), encoded, strict=True):
        if not split_words(clean_text(name)) or {SOS_ID, EOT_ID} & set(ids):
            raise ClassNameError(
                f"The class name {called} is empty, or holds a mark of the tokeniser. A class needs at least "
                f"one plain word. Rename its folder, or give it words with --class-names FILE"
            )
    return [[*ids, EOT_ID] for ids in encoded]


def class_prompts(
    bundle: Bundle, names: Sequence[str], n_context: int, chunk_rows: int = CHUNK_ROWS[0]
) -> ClassPrompts:
    """Tokenise the class names and fetch their embeddings. Costs no query.

    chunk_rows: most rows of a candidate in one run of the text graph
    Raises ClassNameError as `checked_token_ids` does.
    """
    return prompts_of(bundle, names, checked_token_ids(bundle, names, n_context), n_context, chunk_rows)


def prompts_of(
    bundle: Bundle, names: Sequence[str], ids: Sequence[list[int]], n_context: int, chunk_rows: int
) -> ClassPrompts:
    """As class_prompts, for names that `checked_token_ids` has tokenised already."""
    n_shared, lengths = 1 + n_context, [len(tokens) for tokens in ids]
    is_small = 4 * bundle.manifest.text.width * sum(lengths) <= NAMES_IN_MEMORY
    chunks, start = [], 0
    for size in chunk_sizes(lengths, n_shared, chunk_rows):
        classes = slice(start, start + size)
        rows = partial(bundle.token_embeddings, [token for tokens in ids[classes] for token in tokens])
        if is_small:
            rows = partial(_itself, rows())
        chunks.append(_chunk(classes, rows, lengths[classes], n_shared))
        start += size
    return ClassPrompts(tuple(names), tuple(chunks))


def checked_token_ids(
    bundle: Bundle, names: Sequence[str], n_context: int, folders: Sequence[str] = ()
) -> list[list[int]]:
    """Token ids of `name.` and EOT, one list a name, checked for prompts with n_context vectors.

    folders: the folders that the names come from, for the messages
    Raises ClassNameError for a name that is empty, has the same tokens as another, is longer than the model's
    context leaves room for, or is outside the bundle's vocabulary.
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
    _refuse_unknown(
        [name for name, tokens in zip(_called(names, folders), ids, strict=True) if not bundle.knows(tokens)]
    )
    return ids


def _refuse_unknown(called: Sequence[str]) -> None:
    """Raises ClassNameError for names, as messages call them, with words outside the bundle's vocabulary."""
    if not called:
        return
    n_more = len(called) - MOST_NAMED
    names = f"{', '.join(called[:MOST_NAMED])}{f' and {n_more} more' * (n_more > 0)}"
    told = f"class name {names} has" if len(called) == 1 else f"class names {names} have"
    raise ClassNameError(
        f"The {told} words outside this bundle's vocabulary, which was cut at export. Only words of the "
        f"--vocabulary file are allowed. Use other words (--class-names FILE), or export the bundle with a "
        f"larger vocabulary"
    )


def _called(names: Sequence[str], folders: Sequence[str]) -> list[str]:
    """How messages name each class: its name, and its folder if that is known."""
    if not folders:
        return [repr(name) for name in names]
    return [f"{name!r} (of the folder {folder!r})" for name, folder in zip(names, folders, strict=True)]


def _itself(rows: Floats) -> Floats:
    return rows


def _chunk(classes: slice, rows: Callable[[], Floats], lengths: list[int], n_shared: int) -> NameChunk:
    return NameChunk(
        classes,
        rows,
        np.concatenate([n_shared + np.arange(length) for length in lengths]),
        n_shared + np.cumsum(lengths) - 1,
        attention_mask(n_shared, lengths),
    )


def attention_mask(n_shared: int, lengths: Sequence[int]) -> Floats:
    """Which row of a sequence may see which: 0 if it may, -inf if not; (S, S) float32.

    The sequence has n_shared rows and then names of these lengths. No row sees a later one, and no name's
    rows see another name's.
    """
    name = np.repeat(np.arange(1 + len(lengths)), (n_shared, *lengths))  # 0: the shared rows
    is_visible = np.tril((name == name[:, np.newaxis]) | (name == 0))
    return np.where(is_visible, np.float32(0), np.float32(-np.inf))


def chunk_sizes(lengths: Sequence[int], n_shared: int, most_rows: int) -> list[int]:
    """How many names go into each chunk, in the order of the names.

    A chunk has at most most_rows rows, the n_shared that each chunk repeats included. Within that, chunks are
    as even as possible. A name that is too long for any chunk has one alone.
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
    """How many rows each of those chunks has, shared rows included."""
    ends = itertools.accumulate(chunk_sizes(lengths, n_shared, most_rows), initial=0)
    return [n_shared + sum(lengths[start:end]) for start, end in itertools.pairwise(ends)]


def names_bytes(width: int, lengths: Sequence[int], n_context: int, chunk_rows: int) -> int:
    """What ClassPrompts hold, in bytes: the names' embeddings, or those of a chunk, and all masks.

    width: of the text tower;  lengths: tokens of every name
    """
    chunks = chunked_rows(lengths, 1 + n_context, chunk_rows)
    row_bytes = 4 * width
    embeddings = min(sum(lengths) * row_bytes, NAMES_IN_MEMORY + max(chunks, default=0) * row_bytes)
    return embeddings + sum(rows**2 for rows in chunks) * 4


def context_from_words(bundle: Bundle, words: str) -> Floats:
    """The context vectors p0 that are the embeddings of `words`: (m, D) float32.

    Raises UsageError for words that have no tokens or too many, or are outside the bundle's vocabulary.
    """
    if len(words) > LONGEST_NAME:
        raise UsageError(
            f"--context-init {words[:80]!r}… has {len(words):,} characters. It may have {LONGEST_NAME:,}, "
            f'and few tokens. The usual choice is --context-init "a photo of a"'
        )
    (ids,) = Tokenizer(bundle.verified(MERGES_FILE)).encode([words])
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


def random_context(bundle: Bundle, n_context: int, rng: np.random.Generator) -> Floats:
    """n_context random vectors ~ N(0, 0.02²): (m, D) float32. Raises UsageError when so many do not fit."""
    longest = bundle.manifest.text.context_length - 4
    if not 1 <= n_context <= longest:
        raise UsageError(
            f"--context-tokens {n_context} does not fit this model. From 1 to {longest} are allowed. "
            f"Try --context-tokens 4"
        )
    shape = (n_context, bundle.manifest.text.width)
    return (rng.standard_normal(shape) * RANDOM_CONTEXT_STD).astype(np.float32)
