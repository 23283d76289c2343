"""Step 3: which emoji are never trained on, in any style: 40 % of the designs of every subgroup."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from hashlib import sha256

from .emoji import Emoji

HELD_OUT = 0.4
LEAST_DESIGNS = 10  # smaller subgroups are trained on whole: 4 test pictures say nothing


def shuffled(designs: Iterable[str], salt: str = "") -> list[str]:
    """In a fixed order that has nothing to do with Unicode's; another one for another salt."""
    return sorted(designs, key=lambda design: sha256((salt + design).encode()).hexdigest())


def held_out_designs(emoji: list[Emoji], salt: str = "") -> set[str]:
    """The same set for the same packages and salt: nothing is drawn at random."""
    subgroups: dict[str, set[str]] = defaultdict(set)
    for each in emoji:
        subgroups[each.subgroup].add(each.design)
    held: set[str] = set()
    known: set[str] = set()
    for designs in subgroups.values():
        cut = round(HELD_OUT * len(designs)) if len(designs) >= LEAST_DESIGNS else 0
        order = shuffled(designs, salt)
        held.update(order[:cut])
        known.update(order[cut:])
    return held - known  # a design of two subgroups counts as known
