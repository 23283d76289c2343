"""Write tokenizer.json: tricky texts and the ids that open_clip's SimpleTokenizer gives them.

Run on a workstation with the [export] extra:  python tests/golden/make_tokenizer_golden.py

The file also keeps the merges that these texts can use, with their ranks, so that the test needs
neither open_clip nor CLIP's whole table.
"""

import gzip
import json
import unicodedata
from importlib.metadata import version
from pathlib import Path

import ftfy
from open_clip.tokenizer import SimpleTokenizer, default_bpe

TEXTS = [
    "",
    " \t\r\n ",
    "a photo of a cat",
    "Annual Crop Land",
    "Pasture",
    "HerbaceousVegetation",
    "it's they've I'm we'll he'd you're don't",
    "IT'S THEY'VE",
    "'ſ ſtreet 'S",
    "o'clock 'tis",
    "1984 3.14 1,000",
    "½ ¼ ⅷ Ⅳ x² H₂O ①",
    "٣٤ १२ ৪",
    "«»„“”‘’‚‛‹›",
    "it’s ‘quoted’ and “double”",
    "ʼn ŉ",
    "wait… what...?!",
    "ﬁne ﬂuﬃer oﬀ ﬄ ﬅ ﬆ",
    "Ĳssel ĳs Ǆ ǅ ǉ ǋ ǳ",
    "ＦＵＬＬ　ｗｉｄｔｈ １２３ ＡＢＣ！",
    "ｱｲｳ ｶﾞ ﾡ ￦ ￣",
    "naïve café",
    unicodedata.normalize("NFD", "naïve café"),
    "e\u0301\u0302 q\u0307\u0323",
    "ᾳ α\u0345 z\u0345z !\u0345!",
    "İstanbul ISPARTA ısı",
    "ΟΔΟΣ ΣΑΣ",
    "straße STRASSE ẞ",
    "K Å Ω µm",
    "fish &amp; chips",
    "fish &amp;amp; chips",
    "&amp;amp;amp;amp;amp;lt;",
    "&lt;b&gt; &quot;x&quot; &nbsp;y",
    "<b>R&amp;D</b> &eacute;",
    "R&amp;D\n<b>R&amp;amp;D\nR&amp;amp;amp;amp;D",
    "P&EACUTE;REZ &NTILDE; &SZLIG; &nTILDE; &LTIMES; &COPY;",
    "&#65; &#x1F600; &#128; &#xD800; &#59; &#65a; &#; &#x; &#0;",
    "AT&T this&not that &copy 2020 &notit;",
    "&CounterClockwiseContourIntegral; &NotEqualTilde;",
    "😀 👍🏽 ❤️ 🤷‍♀️",
    "👨‍👩‍👧‍👦 family",
    "🇫🇷🇯🇵 🏴󠁧󠁢󠁷󠁬󠁳󠁿",
    "😂😂😂😂😂😂😂😂😂",
    "1️⃣ #️⃣ ©️",
    "猫の写真 漢字かな",
    "고양이 사진",
    "Привет, мир",
    "صورة قطة، ١٢",
    "चित्र हिन्दी",
    "ภาพแมว",
    "soft\u00adhyphen zero\u200bwidth join\u200der non\u200cjoin",
    "\ufeffbom \u2060word\u206ajoin\ufffc",
    "left\u200eright\u200f \u202eover\u202c",
    "a\tb\nc\rd\x0be\x0cf\x1cg\x1dh\x1fi",
    "a\x85b\x80c\x91d\x81e",
    "a\u00a0b\u1680c\u2003d\u2028e\u2029f\u202fg\u3000h",
    "\x1b[31mred\x1b[0m \x1b[1;3mx \x1b\x00[31m",
    "\x00null\x07bell\x7fdel",
    "<start_of_text>a cat<end_of_text>",
    "x!<start_of_text>y <START_OF_TEXT> <ſtart_of_text><end_of_text",
    "</w> a</w>",
    "snake_case CamelCase kebab-case a/b\\c",
    "!!! ??? --- *** ~~~ $5 €5 £5",
    "e=mc^2 10% @home #tag",
]


def main() -> None:
    for text in TEXTS:  # the one thing that the device leaves out must play no part here
        assert ftfy.fix_text(text) == ftfy.fix_text(text, fix_encoding=False), text
    tokenizer = SimpleTokenizer()
    ids = [tokenizer.encode(text) for text in TEXTS]

    # `cache` has every word that was encoded, as byte symbols.
    words = " ".join(f"{word}</w>" for word in tokenizer.cache)
    lines = gzip.decompress(Path(default_bpe()).read_bytes()).decode().split("\n")[1:48895]
    merges = {rank: line for rank, line in enumerate(lines) if line.replace(" ", "") in words}
    packages = {name: version(name) for name in ("open_clip_torch", "ftfy", "regex")}
    golden = {
        "made_by": "tests/golden/make_tokenizer_golden.py",
        "versions": packages | {"unicodedata": unicodedata.unidata_version},
        "cases": list(zip(TEXTS, ids, strict=True)),
        "merges": merges,
    }
    parts = (f"{json.dumps(key)}: {one_item_a_line(value)}" for key, value in golden.items())
    path = Path(__file__).with_name("tokenizer.json")
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n")


def one_item_a_line(value: object) -> str:
    """JSON in ASCII, so that invisible characters show, and a change shows as one line."""
    if isinstance(value, list):
        return "[\n" + ",\n".join(map(json.dumps, value)) + "\n]"
    return json.dumps(value, indent=0) if isinstance(value, dict) else json.dumps(value)


if __name__ == "__main__":
    main()
