"""From names to rows: every class once, its own tokens, and who sees whom."""

import numpy as np
import pytest

from sharpzo_edge.clip.bundle import MERGES_FILE, TOKEN_EMBEDDING_FILE, TOKEN_IDS_FILE
from sharpzo_edge.clip.class_prompts import (
    attention_mask,
    class_prompts,
    context_from_words,
    name_token_ids,
    random_context,
)
from sharpzo_edge.clip.tokenizer import EOT_ID, Tokenizer
from sharpzo_edge.errors import ClassNameError, UsageError

NAMES = ["red apple and green leaf", "cat", "hot dog", "dog", "a small yellow car", "food drink", "flag"]


def rows_of(bundle, ids):
    table, kept = (np.load(bundle.folder / name) for name in (TOKEN_EMBEDDING_FILE, TOKEN_IDS_FILE))
    return table[[int(np.flatnonzero(kept == token)[0]) for token in ids]]


@pytest.mark.parametrize("chunk_rows", [1, 12, 20, 256])
def test_every_class_is_in_one_chunk_with_its_own_rows(bundle, chunk_rows):
    prompts = class_prompts(bundle, NAMES, 4, chunk_rows)
    assert prompts.names == tuple(NAMES)
    assert [k for c in prompts.chunks for k in range(len(NAMES))[c.classes]] == list(range(len(NAMES)))

    ids = name_token_ids(bundle, NAMES)
    for chunk in prompts.chunks:
        ours = ids[chunk.classes]
        assert len(ours) == 1 or 5 + len(chunk.embeddings()) <= chunk_rows
        np.testing.assert_array_equal(
            chunk.embeddings(), rows_of(bundle, [token for name in ours for token in name])
        )
        assert list(chunk.positions) == [5 + i for name in ours for i in range(len(name))]
        assert list(np.diff(chunk.eot_rows, prepend=4)) == [len(name) for name in ours]
        assert chunk.embeddings().dtype == np.float32
        assert chunk.positions.dtype == chunk.eot_rows.dtype == np.int64
        assert chunk.mask.shape == (5 + len(chunk.embeddings()),) * 2


def test_many_names_are_read_anew_each_time(bundle, monkeypatch):
    held = class_prompts(bundle, NAMES, 4).chunks[0].embeddings()
    monkeypatch.setattr("sharpzo_edge.clip.class_prompts.NAMES_IN_MEMORY", 100)
    chunk = class_prompts(bundle, NAMES, 4).chunks[0]
    assert chunk.embeddings() is not chunk.embeddings()
    assert chunk.embeddings().tobytes() == held.tobytes()


def test_a_name_sees_the_shared_rows_and_its_own_past():
    no = -np.inf
    expected = [
        [0, no, no, no, no],
        [0, 0, no, no, no],
        [0, 0, 0, no, no],
        [0, 0, no, 0, no],
        [0, 0, no, 0, 0],
    ]
    mask = attention_mask(2, [1, 2])
    assert mask.dtype == np.float32
    np.testing.assert_array_equal(mask, expected)


def test_a_name_is_tokenised_with_its_full_stop(bundle):
    tokenizer = Tokenizer(bundle.path(MERGES_FILE))
    assert name_token_ids(bundle, ["hot dog"]) == [[*tokenizer.encode(["hot dog."])[0], EOT_ID]]


@pytest.mark.parametrize("name", ["", "  ", "\t\n", "\ufeff", "\x00\x7f", "\x1b[0m", "\u0345"])
def test_a_name_without_a_word_is_refused(bundle, name):
    with pytest.raises(ClassNameError, match=r"is empty.*--class-names"):
        class_prompts(bundle, ["cat", name], 4)


def test_a_name_that_is_all_punctuation_is_a_name(bundle):
    assert name_token_ids(bundle, ["..."])[0][-1] == EOT_ID


def test_a_name_may_fill_the_context_and_not_a_token_more(bundle):
    room = bundle.manifest.text.context_length - 1 - 4
    longest = " ".join(["cat"] * (room - 2))  # and "." and EOT
    chunks = class_prompts(bundle, [longest, "dog"], 4).chunks
    assert chunks[0].positions.max() == bundle.manifest.text.context_length - 1
    with pytest.raises(ClassNameError, match=f"{longest} cat.*room for {room}"):
        class_prompts(bundle, [f"{longest} cat", "dog"], 4)
    with pytest.raises(ClassNameError):
        class_prompts(bundle, [longest, "dog"], 5)


def test_a_name_outside_the_vocabulary_is_refused_by_name(bundle):
    kept = set(np.load(bundle.folder / TOKEN_IDS_FILE).tolist())
    words = ["zygote", "quark", "xylophone", "thermodynamics"]
    outside = next(w for w, ids in zip(words, name_token_ids(bundle, words), strict=True) if set(ids) - kept)
    with pytest.raises(ClassNameError, match=f"^The class name '{outside}' has .*vocabulary"):
        class_prompts(bundle, ["cat", outside], 4)
    also = f"{outside} cat"
    with pytest.raises(ClassNameError, match=f"^The class names '{outside}', '{also}' have .*vocabulary"):
        class_prompts(bundle, [outside, "cat", also], 4)
    many = [f"{outside} {'cat ' * i}" for i in range(13)]
    with pytest.raises(ClassNameError, match=r" and 3 more have "):
        class_prompts(bundle, many, 4)
    with pytest.raises(UsageError, match=f"--context-init '{outside}'.*vocabulary"):
        context_from_words(bundle, outside)


# The context --------------------------------------------------------------------------------------


def test_the_context_spells_its_words(bundle):
    context = context_from_words(bundle, "a photo of a")
    assert context.dtype == np.float32
    np.testing.assert_array_equal(context, rows_of(bundle, [320, 1125, 539, 320]))


@pytest.mark.parametrize("words", ["", "   ", " ".join(["cat"] * 74)])
def test_words_that_make_no_context_are_refused(bundle, words):
    with pytest.raises(UsageError, match=r"--context-init .*a photo of a"):
        context_from_words(bundle, words)


def test_random_contexts_have_the_shape_and_spread_they_should(bundle):
    longest = bundle.manifest.text.context_length - 4
    context = random_context(bundle, longest, np.random.default_rng(0))
    assert context.shape == (longest, bundle.manifest.text.width) and context.dtype == np.float32
    # 73 x 192 draws: the standard error of their std is 0.6 %.
    assert context.std() == pytest.approx(0.02, rel=0.03)
    np.testing.assert_array_equal(context, random_context(bundle, longest, np.random.default_rng(0)))
    class_prompts(bundle, ["x"], longest - 1)  # what the limit promises: a short name still fits


@pytest.mark.parametrize("n_context", [0, -1, 74, 10**9])
def test_random_contexts_that_do_not_fit_are_refused(bundle, n_context):
    with pytest.raises(UsageError, match=f"--context-tokens {n_context} .*73"):
        random_context(bundle, n_context, np.random.default_rng(0))
