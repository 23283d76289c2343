"""Write emoji_texts.json.gz: everything that emojibase-data and emojilib say of an emoji, as it is written.

    python tests/golden/make_emoji_texts.py NODE_MODULES

NODE_MODULES holds both packages at the versions that export/demo_model/download.py pins. The texts are
emojibase-data's labels, tags, emoticons and Unicode names, emojilib's keywords, and the emoji themselves.
Their licence is in emoji_texts.LICENSE beside.
"""

import gzip
import json
import sys
from pathlib import Path

TARGET = Path(__file__).with_name("emoji_texts.json.gz")


def texts(node_modules: Path) -> list[str]:
    data = node_modules / "emojibase-data"
    found = set(_read(data / "meta" / "unicode-names.json").values())
    entries = _read(data / "en" / "data.json")
    for entry in [*entries, *(skin for plain in entries for skin in plain.get("skins", ()))]:
        emoticons = entry.get("emoticon", [])
        found.update([emoticons] if isinstance(emoticons, str) else emoticons)
        found.update((entry["label"], entry["emoji"], entry.get("text", ""), *entry.get("tags", ())))
    for emoji, keywords in _read(node_modules / "emojilib" / "dist" / "emoji-en-US.json").items():
        found.update((emoji, *keywords))
    return sorted(found)


def _read(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    written = json.dumps(texts(Path(sys.argv[1])), ensure_ascii=False, separators=(",", ":"))
    TARGET.write_bytes(gzip.compress(written.encode(), 9, mtime=0))
