"""What is known of every emoji in words: name, keywords, subgroup; and which emoji share a design."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

VARIANT_MARKS = {"FE0F", "200D", "2640", "2642", "27A1"}  # style, joiner, woman, man, facing right
PERSON = "1F9D1"
MAN_OR_WOMAN = {"1F468", "1F469"}
# Gender variants with code points of their own.
SAME_DESIGN = {
    "1F478": "1FAC5",  # princess, prince: person with crown
    "1F934": "1FAC5",
    "1F930": "1FAC4",  # pregnant woman, pregnant man: pregnant person
    "1FAC3": "1FAC4",
    "1F931": f"{PERSON}-1F37C",  # breast-feeding: person feeding baby
    "1F936": f"{PERSON}-1F384",  # Mrs and Mr Claus
    "1F385": f"{PERSON}-1F384",
    "1F468": PERSON,
    "1F469": PERSON,
    "1F474": "1F9D3",  # old man, old woman
    "1F475": "1F9D3",
    "1F466": "1F9D2",  # boy, girl
    "1F467": "1F9D2",
}
NOT_EMOJI = {"skin-tone", "hair-style", None}

SINGULAR = {
    "animals": "animal",
    "smileys": "smiley",
    "people": "person",
    "places": "place",
    "activities": "activity",
    "objects": "object",
    "symbols": "symbol",
    "flags": "flag",
    "fingers": "finger",
    "hands": "hand",
    "parts": "part",
    "arts": "art",
    "crafts": "craft",
    "av": "media",
}
LITTLE_WORDS = {"a", "an", "and", "at", "for", "in", "no", "of", "on", "or", "other", "the", "to", "with"}


@dataclass(frozen=True)
class Emoji:
    """One emoji without skin tone. hexcode: upper case, without style selector."""

    hexcode: str
    label: str
    keywords: tuple[str, ...]
    subgroup: str  # Unicode's, as in animal-mammal
    group: str
    design: str  # what it shares with its variants of gender and direction


def without_style(hexcode: str) -> str:
    """Lists differ in whether they write the style selector: 00a9-fe0f -> 00A9."""
    return hexcode.upper().replace("-FE0F", "")


def design_of(hexcode: str) -> str:
    """The code that an emoji shares with its variants: 1F469-200D-1F373 -> 1F9D1-1F373."""
    points = [point for point in hexcode.split("-") if point not in VARIANT_MARKS]
    if len(points) > 1 and points[0] in MAN_OR_WOMAN:
        points[0] = PERSON
    code = "-".join(points)
    return SAME_DESIGN.get(code, code)


def read_emoji(node_modules: Path) -> list[Emoji]:
    """All emoji of emojibase-data with keywords of it and of emojilib, in Unicode's order."""
    data = node_modules / "emojibase-data"
    entries = json.loads((data / "en" / "data.json").read_text(encoding="utf-8"))
    meta = json.loads((data / "meta" / "groups.json").read_text(encoding="utf-8"))
    more = json.loads((node_modules / "emojilib/dist/emoji-en-US.json").read_text(encoding="utf-8"))
    more = {character.replace("\ufe0f", ""): words for character, words in more.items()}
    found = []
    for entry in sorted(entries, key=lambda each: each.get("order", 10**9)):
        subgroup = meta["subgroups"].get(str(entry.get("subgroup")))
        if subgroup in NOT_EMOJI:
            continue
        label = plain(entry["label"])
        keywords = [*entry.get("tags", ()), *more.get(entry["emoji"].replace("\ufe0f", ""), ())]
        hexcode = without_style(entry["hexcode"])
        found.append(
            Emoji(
                hexcode=hexcode,
                label=label,
                keywords=tuple(dict.fromkeys(w for w in map(plain, keywords) if w and w != label)),
                subgroup=subgroup,
                group=meta["groups"][str(entry["group"])],
                design=design_of(hexcode),
            )
        )
    return found


def plain_forms(emoji: list[Emoji]) -> list[Emoji]:
    """One emoji of every design: the first in Unicode's order, which says neither gender nor direction."""
    first: dict[str, Emoji] = {}
    for each in emoji:
        first.setdefault(each.design, each)
    return list(first.values())


def category_words(emoji: Emoji) -> tuple[str, ...]:
    """Example: animal-mammal of animals-nature -> animal, mammal, nature."""
    words = [SINGULAR.get(w, w) for w in (*emoji.subgroup.split("-"), *emoji.group.split("-"))]
    return tuple(dict.fromkeys(w for w in words if w not in LITTLE_WORDS))


def plain(words: str) -> str:
    """Lower-case letters, digits and single spaces; empty when little of it is a word (":-)")."""
    text = re.sub(r"[^a-z0-9'à-ÿ ]+", " ", words.lower().replace("_", " ").replace("’", "'"))
    text = " ".join(text.split())
    return text if len(re.sub(r"[^a-zà-ÿ]", "", text)) >= 2 or text.isdigit() else ""
