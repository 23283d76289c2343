"""The tokeniser against golden ids, without torch: what it gives, refuses, and survives."""

import gzip
import json
import tracemalloc
import zlib
from pathlib import Path

import pytest

import sharpzo_edge
from sharpzo_edge.clip.tokenizer import EOT_ID, MERGES, SOS_ID, Tokenizer, clean_text, split_words
from sharpzo_edge.errors import BundleError, ClassNameError

GOLDEN_FILES = Path(__file__).parents[1] / "golden"
EMOJI_TEXTS = GOLDEN_FILES / "emoji_texts.json.gz"
SHIPPED_MERGES = Path(sharpzo_edge.__file__).parent / "demo" / "bundle" / "bpe.txt.gz"

# From open_clip 3.3.0 with ftfy 6.3.1, by tests/golden/make_tokenizer_golden.py.
GOLDEN = json.loads((GOLDEN_FILES / "tokenizer.json").read_text(encoding="utf-8"))


def merges_lines() -> list[str]:
    """CLIP's merges at their ranks as far as the golden texts use them, the rest never used."""
    return [GOLDEN["merges"].get(str(rank), f"unused {rank}") for rank in range(MERGES)]


def write_gzip(path: Path, lines: list[str]) -> Path:
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode(), 1))
    return path


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer(write_gzip(tmp_path_factory.mktemp("bundle") / "bpe.txt.gz", merges_lines()))


def test_golden_ids(tokenizer: Tokenizer) -> None:
    texts = [text for text, _ in GOLDEN["cases"]]
    assert len(texts) > 60
    for (text, golden), ids in zip(GOLDEN["cases"], tokenizer.encode(texts), strict=True):
        assert ids == golden, ascii(text)


def test_docstring_example(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode(["a photo of a cat"]) == [[320, 1125, 539, 320, 2368]]
    assert tokenizer.encode(["", "a photo of a cat"])[0] == []
    assert tokenizer.encode([]) == []


def test_a_text_has_the_same_ids_alone_as_among_others(tokenizer: Tokenizer) -> None:
    texts = [text for text, _ in GOLDEN["cases"]][:12]
    assert [tokenizer.encode([text])[0] for text in texts] == tokenizer.encode(texts)


def test_special_tokens() -> None:
    assert (SOS_ID, EOT_ID) == (49406, 49407)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("ＣＡＦÉ &amp;  Co", "café & co"),
        ("“It’s”\u2028ﬁne", '"it\'s" fine'),
        ("R&amp;D\n<b>", "r&d <b>"),
        ("\x1b[31mred\x1b[0m\x00", "red"),
        ("caf\u0065\u0301", "café"),
        ("ＵＳＡ\x85", "usa…"),
        ("cafÃ©", "cafã©"),  # wrongly decoded text is left as it is: ftfy would write café
    ],
)
def test_clean_text(text: str, cleaned: str) -> None:
    assert clean_text(text) == cleaned


def test_split_words() -> None:
    assert split_words("it's 42!") == ["it", "'s", "4", "2", "!"]
    assert split_words("z\u0345z !\u0345!") == ["z", "z", "!", "!"]
    assert split_words("!<start_of_text>") == ["!<", "start", "_", "of", "_", "text", ">"]


def test_surrogate_pair_is_its_character(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode(["\ud83d\ude00"]) == tokenizer.encode(["😀"])


@pytest.mark.parametrize("text", ["caf\udce9", "\ud83d", "\ude00\ud83d", "\ud83d\x00\ude00"])
def test_lone_surrogate_is_refused(tokenizer: Tokenizer, text: str) -> None:
    with pytest.raises(ClassNameError, match=r"lone surrogate.*UTF-8.*Rename") as caught:
        tokenizer.encode(["cat", text])
    str(caught.value).encode()  # printable: the name is shown escaped


def test_long_word_needs_little_memory(tokenizer: Tokenizer) -> None:
    tokenizer.encode(["cat"])
    tracemalloc.start()
    (ids,) = tokenizer.encode(["photocat" * 1250])
    peak_mib = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    assert len(ids) < 10_000
    assert peak_mib < 4  # 1.8 with CLIP's own merges


def test_the_vocabulary_is_never_held() -> None:
    """With CLIP's own merges and a thousand names. As dictionaries the vocabulary would take 24 MiB."""
    names = json.loads(gzip.decompress(EMOJI_TEXTS.read_bytes()))[::19]
    assert len(names) > 1000
    tokenizer = Tokenizer(SHIPPED_MERGES)
    tracemalloc.start()
    ids = tokenizer.encode(names)
    peak_mib = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    assert max(map(max, filter(None, ids))) < SOS_ID
    assert peak_mib < 4  # 1.6 measured


def replaced(line: str) -> list[str]:
    return [*merges_lines()[:-1], line]


@pytest.mark.parametrize(
    ("lines", "defect"),
    [
        ([], "only 0 lines"),
        (merges_lines()[:-1], "only 48,893 lines"),
        ([*merges_lines(), "one more"], "more than 48,894 lines"),
        (["#version: 0.2", *merges_lines()], "more than 48,894 lines"),
        (replaced(""), "line 48894"),
        (replaced("alone"), "line 48894"),
        (replaced("one two three"), "line 48894"),
        (replaced("a " + "b" * 1000), "line 48894"),
    ],
)
def test_wrong_lines_are_refused(tmp_path: Path, lines: list[str], defect: str) -> None:
    path = write_gzip(tmp_path / "bpe.txt.gz", lines)
    with pytest.raises(BundleError, match=defect):
        Tokenizer(path).encode(["cat"])


GOOD = gzip.compress("".join(f"{line}\n" for line in merges_lines()).encode(), 1)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"i n\nt h\n",
        b"\x1f\x8b",
        GOOD[:5000],
        GOOD[:-4],
        GOOD[:5000] + b"\xff" * 50 + GOOD[5050:],
        GOOD[:-8] + bytes(8),
        GOOD + b"more",
        gzip.compress(b"i n\n\xff\xfe h\n"),
    ],
    ids=["empty", "plain", "magic", "cut", "end", "bytes", "checksum", "trailing", "utf8"],
)
def test_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bpe.txt.gz"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"bpe\.txt\.gz.*48,894.*Copy the bundle again"):
        Tokenizer(path).encode(["cat"])


def test_missing_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.gz", tmp_path):
        with pytest.raises(BundleError, match="cannot be used"):
            Tokenizer(path).encode(["cat"])


@pytest.mark.parametrize("piece", [b"a" * 2**20, b"\n" * 2**20, b"a b\n" * 2**18])
def test_decompression_bomb_needs_little_memory(tmp_path: Path, piece: bytes) -> None:
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    path = tmp_path / "bpe.txt.gz"
    path.write_bytes(b"".join(compressor.compress(piece) for _ in range(64)) + compressor.flush())
    tracemalloc.start()
    with pytest.raises(BundleError):
        Tokenizer(path).encode(["cat"])
    peak_mib = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    assert peak_mib < 1
