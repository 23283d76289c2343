"""The device's tokeniser against open_clip's, on random and tricky texts, and on all that is said of emoji.

What is left out on purpose, ftfy's repair of wrongly decoded text, is not skipped: where that
repair changes a text, the reference is open_clip with that one option of ftfy turned off.
"""

import gzip
import html
import json
import time
import tracemalloc
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

open_clip = pytest.importorskip("open_clip")
ftfy = pytest.importorskip("ftfy")
regex = pytest.importorskip("regex")

from open_clip.tokenizer import SimpleTokenizer, default_bpe, whitespace_clean

from sharpzo_edge.clip.tokenizer import MERGES, Tokenizer

BATCH = 100  # the device reads its merges once a batch
EXAMPLES = 150  # a strategy; 2 strategies x 150 x 100 = 30,000 texts


def clean_without_repair(text: str) -> str:
    """open_clip's clean="lower", its ftfy told to leave the encoding alone."""
    text = ftfy.fix_text(text, fix_encoding=False)
    return whitespace_clean(html.unescape(html.unescape(text)).strip()).lower()


REFERENCE = SimpleTokenizer()
REFERENCE_WITHOUT_REPAIR = SimpleTokenizer()
REFERENCE_WITHOUT_REPAIR.clean_fn = clean_without_repair


def reference_ids(text: str) -> list[int]:
    repaired = ftfy.fix_text(text) != ftfy.fix_text(text, fix_encoding=False)
    return (REFERENCE_WITHOUT_REPAIR if repaired else REFERENCE).encode(text)


@pytest.fixture(scope="module")
def merges() -> list[str]:
    lines = gzip.decompress(Path(default_bpe()).read_bytes()).decode().split("\n")
    return lines[1 : MERGES + 1]


@pytest.fixture(scope="module")
def tokenizer(merges: list[str], tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("bundle") / "bpe.txt.gz"
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in merges).encode()))
    return Tokenizer(path)


def assert_parity(tokenizer: Tokenizer, texts: list[str]) -> None:
    for text, ids in zip(texts, tokenizer.encode(texts), strict=True):
        assert ids == reference_ids(text), ascii(text)


# Code points must be assigned in Python's tables and in regex's; surrogates are refused.
UNASSIGNED = regex.compile(r"\p{Cn}")
CHARACTERS = st.characters(exclude_categories=("Cs", "Cn")).filter(
    lambda character: not UNASSIGNED.match(character)
)
PIECES = [
    *("'s", "'S", "'ſ", "’ll", "'re", "'d", "'", "’", "“", "”", "ʼ", "ŉ", "…", '"'),
    *("&amp;", "&amp;amp;", "&lt;", "&LT", "&eacute;", "&EACUTE;", "&nbsp;", "&#39;", "&#x80;"),
    *("&#xD83D;", "&#0;", "&", "#", "x", ";", "<", ">", "/w", "</w>", "<start_of_text>"),
    *("<ſTART_of_text>", "<end_of_text>", "_", "\x1b", "[", "31", "m", "\x1b[0m", "\x00"),
    *(" ", "  ", "\t", "\n", "\r\n", "\x0b", "\x0c", "\x1c", "\x1f", "\x85", "\xa0", "\u2028"),
    *("\u3000", "\u200b", "\u200d", "\ufe0f", "\xad", "\ufeff", "\u206a", "\ufffc", "\ufffd"),
    *("a", "cat", "Photo", "THE", "I", "İ", "ı", "i", "ſ", "K", "Å", "ß", "ẞ", "Σ", "σ", "ς"),
    *("e", "é", "\u0301", "\u0307", "\u0345", "α", "ᾳ", "ﬁ", "ﬅ", "Ǆ", "ǅ", "Ĳ", "ŀ"),
    *("0", "42", "½", "²", "Ⅷ", "ⅷ", "①", "٣", "१", "Ａ", "ｚ", "１", "！", "ｱ", "ﾞ", "ﾡ", "￣"),
    *("😀", "👍🏽", "👩‍👩‍👧", "🇫🇷", "🏴󠁧󠁢󠁷󠁬󠁳󠁿", "1️⃣", "猫", "の", "고", "я", "Ж", "ق", "ि", "ก"),
    *("Ã", "©", "â", "€", "™", "\x80", "\x81", "\x93", "\x9f"),  # makings of wrongly decoded text
]
TRICKY = st.lists(st.one_of(st.sampled_from(PIECES), CHARACTERS), max_size=12).map("".join)

compare = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@compare
@given(st.lists(st.text(CHARACTERS, max_size=8), min_size=BATCH, max_size=BATCH))
def test_random_texts(tokenizer: Tokenizer, texts: list[str]) -> None:
    assert_parity(tokenizer, texts)


@compare
@given(st.lists(TRICKY, min_size=BATCH, max_size=BATCH))
def test_tricky_texts(tokenizer: Tokenizer, texts: list[str]) -> None:
    assert_parity(tokenizer, texts)


def test_everything_that_is_said_of_an_emoji(tokenizer: Tokenizer) -> None:
    """Names, keywords, emoticons and the emoji: see tests/golden/make_emoji_texts.py."""
    golden = Path(__file__).parents[1] / "golden" / "emoji_texts.json.gz"
    texts = json.loads(gzip.decompress(golden.read_bytes()))
    assert len(texts) > 19_000
    assert_parity(tokenizer, texts)


def test_every_character(tokenizer: Tokenizer) -> None:
    """Each assigned character next to letters, a digit and a sign: its class, case, cleaning."""
    characters = [
        character
        for character in map(chr, range(0x110000))
        if unicodedata.category(character) not in ("Cn", "Cs", "Co") and not UNASSIGNED.match(character)
    ]
    pieces = [f"{character}a{character}1{character}!" for character in characters]
    assert_parity(tokenizer, [" ".join(pieces[i : i + 50]) for i in range(0, len(pieces), 50)])


def test_merges_stand_in_the_order_they_were_learned(merges: list[str]) -> None:
    """What lets the device apply them in one pass."""
    known = {s + end for s in REFERENCE.byte_encoder.values() for end in ("", "</w>")}
    for line in merges:
        left, right = line.split()
        assert {left, right} <= known
        known.add(left + right)
    assert len(known) == 512 + MERGES  # and no two merges make the same symbol


def test_thousand_names_need_little_memory_and_time(tokenizer: Tokenizer) -> None:
    names = list(open_clip.IMAGENET_CLASSNAMES)
    start = time.process_time()
    ids = tokenizer.encode(names)
    seconds = time.process_time() - start
    assert ids == [REFERENCE.encode(name) for name in names]
    tracemalloc.start()
    tokenizer.encode(names)
    peak_mib = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    assert peak_mib < 3  # 1.5 measured
    assert seconds < 1  # of this process; 0.08 measured
