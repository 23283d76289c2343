"""Turns class names into CLIP's token ids, without torch, regex or ftfy.

    >>> from sharpzo_edge.demo import BUNDLE
    >>> Tokenizer(BUNDLE / "bpe.txt.gz").encode(["a photo of a cat"])
    [[320, 1125, 539, 320, 2368]]

The ids are those of open_clip's `SimpleTokenizer` (clean="lower"), without SOS and EOT. A text is cleaned and
split into words. Then each word's UTF-8 bytes are merged in pairs, the earliest learned merge first
(byte-pair encoding: Sennrich et al. 2016, arXiv:1508.07909; bytes as in GPT-2).

Limits, all deliberate:

- open_clip cleans with ftfy. All of ftfy's repairs are here except that of wrongly decoded text ("cafÃ©" for
  "café"): such a name is tokenised as it is written.
- A lone surrogate, as in a folder name that is not UTF-8, is refused; ftfy writes U+FFFD for it.
- Python's Unicode tables decide what is a letter or a digit. A code point that they do not know yet counts as
  a symbol, although a newer `regex` may know it as a letter.
- The merges must be in the order in which they were learned, each made of bytes and earlier merges.

Memory: the vocabulary is never held (it takes 24 MiB as dictionaries). The words are split first; then the
file of merges is read once, line by line. *Measured* for the 1,000 ImageNet names, on 2 x86-64 cores:
1.5 MiB at the peak (tracemalloc), 0.05-0.08 s, of which reading the file is 0.03 s. The time grows with the
square of a word's length: 10,000 random letters without a space take 1.5 s and 1.7 MiB.
"""

import gzip
import html
import html.entities
import re
import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from pathlib import Path

from ..errors import BundleError, ClassNameError, cannot_read, is_absent

MERGES = 48_894
MAX_LINE_BYTES = 128  # CLIP's longest line has 66; a longer one than this is damage
END_OF_WORD = "</w>"
FIRST_MERGE_ID = 2 * 256  # ids before it: 256 bytes, and 256 bytes that end a word
SOS_ID = FIRST_MERGE_ID + MERGES
EOT_ID = SOS_ID + 1
SPECIAL_IDS = {"<start_of_text>": SOS_ID, "<end_of_text>": EOT_ID}

Pair = tuple[str, str]


class Tokenizer:
    """Byte-pair encoding with the merges of one bundle.

    merges_path: the bundle's bpe.txt.gz: gzip of UTF-8, one merge "left right" a line, no header. Each call
                 of `encode` reads it, so give one call all names
    """

    def __init__(self, merges_path: Path) -> None:
        self.merges_path = merges_path

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text, without SOS and EOT. An empty text has none.

        Raises ClassNameError for a text with a lone surrogate, BundleError for a damaged file of merges.
        """
        texts_words = [split_words(clean_text(text)) for text in texts]
        ids = self._ids_of_words(set(chain.from_iterable(texts_words)))
        return [[token for word in words for token in ids[word]] for words in texts_words]

    def _ids_of_words(self, words: set[str]) -> dict[str, list[int]]:
        """The token ids of each word.

        Each merge is applied, in the file's order, to the words that have its pair. The usual algorithm
        looks for the earliest merge among a word's pairs, again and again. Reading the file once is enough,
        because a new pair contains the symbol that was just made, so its merge is on a later line.
        """
        special = {word: [SPECIAL_IDS[word]] for word in words if word in SPECIAL_IDS}
        symbols = {word: _symbols(word) for word in words if word not in SPECIAL_IDS}
        holders: dict[Pair, list[str]] = {}  # pair -> words that have it, or had it before a merge
        for word in symbols:
            for pair in set(pairwise(symbols[word])):
                holders.setdefault(pair, []).append(word)

        ids = {symbol: index for index, symbol in enumerate(BYTE_SYMBOLS)}
        ids |= {symbol + END_OF_WORD: 256 + index for symbol, index in ids.items()}
        for rank, pair in enumerate(_read_merges(self.merges_path)):
            if pair not in holders:
                continue
            made = "".join(pair)
            ids[made] = FIRST_MERGE_ID + rank
            for word in holders.pop(pair):
                symbols[word] = _merge(symbols[word], pair)
                for new_pair in {p for p in pairwise(symbols[word]) if made in p}:
                    holders.setdefault(new_pair, []).append(word)
        return special | {word: [ids[s] for s in parts] for word, parts in symbols.items()}


# The symbols of the 256 bytes, in the order of their token ids. First come the printable Latin-1 characters:
# each is its own symbol. Then the other bytes, ascending: their symbols are U+0100 and the following.
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
BYTE_SYMBOLS = [chr(code) for code in [*_PRINTABLE, *range(256, 256 + len(_OTHERS))]]
_SYMBOL_OF_BYTE = dict(zip([*_PRINTABLE, *_OTHERS], BYTE_SYMBOLS, strict=True))


def _symbols(word: str) -> list[str]:
    """One symbol for each UTF-8 byte of a word. The last one is marked as the word's end."""
    symbols = [_SYMBOL_OF_BYTE[byte] for byte in word.encode()]
    symbols[-1] += END_OF_WORD
    return symbols


def _merge(symbols: list[str], pair: Pair) -> list[str]:
    """Join every occurrence of a pair, from left to right: the pair (a, a) turns a a a into aa a."""
    left, right = pair
    merged = []
    start = 0
    while start < len(symbols):
        if symbols[start] == left and symbols[start + 1 : start + 2] == [right]:
            merged.append(left + right)
            start += 2
        else:
            merged.append(symbols[start])
            start += 1
    return merged


def _read_merges(path: Path) -> Iterator[Pair]:
    """Yields the file's merges. It holds one line at a time, however the file is damaged.

    Raises BundleError for a damaged file.
    """
    count = 0
    try:
        with gzip.open(path, "rb") as lines:
            while line := lines.readline(MAX_LINE_BYTES):
                parts = line.decode().split() if len(line) < MAX_LINE_BYTES else []
                if len(parts) != 2:
                    raise _bad_merges(path, f"line {count + 1} is {line[:40]!r}")
                count += 1
                if count > MERGES:
                    raise _bad_merges(path, f"it has more than {MERGES:,} lines")
                yield parts[0], parts[1]
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno and not is_absent(error):  # the system's, not gzip's
            raise cannot_read(path, error) from error
        raise _bad_merges(path, f"after line {count}: {error}") from error
    if count < MERGES:
        raise _bad_merges(path, f"it has only {count:,} lines")


def _bad_merges(path: Path, defect: str) -> BundleError:
    return BundleError(
        f"The bundle's file of BPE merges cannot be used: {path}: {defect}. "
        f'It must be gzip of {MERGES:,} UTF-8 lines "left right". '
        "Copy the bundle again, or write it anew with: sharpzo-edge export"
    )


# --- Cleaning: ftfy.fix_text without fix_encoding, entities twice more, spaces, lower case ---

_ENTITY = re.compile(r"&(#?)([0-9A-Za-z]{1,24});")
_TERMINAL_ESCAPE = re.compile(r"\x1b\[[\d;]*[a-zA-Z]")
# Latin ligatures and digraphs, half-width and full-width forms. Not U+FB05: NFKC would replace its long s,
# which must stay.
_COMPATIBLE = re.compile(
    "[\u0132\u0133\u0149\u01c4-\u01cc\u01f1-\u01f3\ufb00-\ufb04\ufb06\u3000\uff01-\uffef]"
)
_C1_AS_WINDOWS_1252 = {
    code: bytes([code]).decode("cp1252")
    for code in range(0x80, 0xA0)
    if code not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)  # unused in Windows-1252
}
_QUOTES = {
    **dict.fromkeys([0x2BC, *range(0x2018, 0x201C)], "'"),
    **dict.fromkeys(range(0x201C, 0x2020), '"'),
}
# Control characters except tab, line feed, form feed and carriage return, which count as spaces. Also
# deprecated Arabic controls, the byte order mark and annotation marks.
_UNWANTED = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f\u206a-\u206f\ufeff\ufff9-\ufffc]")


def clean_text(text: str) -> str:
    """A text in the form that CLIP is trained on: ＣＡＦÉ &amp;  Co -> café & co.

    Raises ClassNameError for a lone surrogate.
    """
    try:  # surrogate pairs become the characters they stand for
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError as error:
        raise ClassNameError(
            f"A class name holds a lone surrogate, half a character: {text!r}. "
            "A name must be text that UTF-8 can write. "
            "Rename the folder it came from, or correct the list of names."
        ) from error
    lines = []
    has_markup = False
    for line in text.split("\n"):
        has_markup |= "<" in line  # from here on the text looks like HTML, where ftfy keeps entities
        lines.append(_tidy(line, unescape=not has_markup))
    text = html.unescape(html.unescape("\n".join(lines)))
    return " ".join(text.split()).lower()


def _tidy(line: str, unescape: bool) -> str:
    """Repeat ftfy's small repairs of a line, in ftfy's order, until nothing changes.

    ftfy's repair of line breaks is not needed: the caller turns all of them into spaces.
    """
    while True:
        before = line
        if unescape:
            line = _ENTITY.sub(_unescape_entity, line)
        line = line.translate(_C1_AS_WINDOWS_1252).replace("\ufb05", "\u017ft")
        line = _COMPATIBLE.sub(lambda match: unicodedata.normalize("NFKC", match[0]), line)
        line = _TERMINAL_ESCAPE.sub("", line.translate(_QUOTES))
        line = unicodedata.normalize("NFC", _UNWANTED.sub("", line))
        if line == before:
            return line


def _unescape_entity(match: re.Match[str]) -> str:
    """Decode one complete entity. "&EACUTE;" is unknown to HTML; it is decoded as a capital "&eacute;".

    This is stricter than html.unescape, which would also decode the "&LT" of "&LTIMES;".
    """
    entity, number, name = match[0], match[1], match[2]
    if number:
        character = html.unescape(entity)
        return entity if ";" in character else character
    table = html.entities.html5
    if f"{name};" in table:
        return table[f"{name};"]
    if name == name.upper() and f"{name.lower()};" in table and html.unescape(entity) == entity:
        return table[f"{name.lower()};"].upper()
    return entity


# --- Splitting: the same words as CLIP's pattern for the `regex` module, which ignores case ---

# The pattern ignores case. In lower-case text, only the long s (U+017F) matches one of its letters too.
_FIXED_WORD = re.compile("<[s\u017f]tart_of_text>|<end_of_text>|'(?:[s\u017ftmd]|re|ve|ll)")
_RUN = re.compile("L+|N|S+")


def split_words(text: str) -> list[str]:
    """Split a cleaned text into words: "it's 42!" -> ["it", "'s", "4", "2", "!"]."""
    kinds = "".join(map(_kind, text))
    words = []
    start = 0
    while start < len(text):
        if match := _FIXED_WORD.match(text, start) or _RUN.match(kinds, start):
            words.append(text[start : match.end()])
            start = match.end()
        else:
            start += 1
    return words


def _kind(character: str) -> str:
    """The kind of a character: L for a letter, N for a number, S for a symbol, a space for none of these.

    The Greek iota below (U+0345) is none of these, and is dropped. When case is ignored, it matches neither
    the letters of CLIP's pattern, because it is a mark, nor the symbols, because its upper case is a letter.
    """
    if character in " \u0345":
        return " "
    category = unicodedata.category(character)[0]
    return category if category in "LN" else "S"
