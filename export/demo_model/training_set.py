"""The pictures of the training styles whose emoji are not held out, and how designs are drawn from them."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from .emoji import Emoji
from .kind import Kind
from .render import read_pictures

FLAGS = 0.4  # how often a flag is drawn, against another design
# Subgroups whose pictures mean another thing, or nothing, in a mirror.
_ONE_WAY = (
    "arrow alphanum keycap math punctuation av-symbol other-symbol currency transport-sign warning "
    "country-flag subdivision-flag flag time music zodiac"
)
ONE_WAY = frozenset(_ONE_WAY.split())


class TrainingSet:
    """pictures (N, 4, H, W) uint8 RGBA, emoji (N,): row of each in the list of emoji, may_flip (N,)."""

    def __init__(self, work: Path, emoji: list[Emoji], kind: Kind) -> None:
        held = kind.held_out(emoji)
        row = {e.hexcode: i for i, e in enumerate(emoji)}
        pictures, table = read_pictures(work / "pictures")
        kept = [
            i
            for i, (h, s) in enumerate(table)
            if s in kind.training_styles and emoji[row[h]].design not in held
        ]
        self.pictures = torch.from_numpy(pictures[kept]).permute(0, 3, 1, 2).contiguous()
        self.emoji = np.array([row[table[i][0]] for i in kept])
        self.may_flip = torch.tensor([emoji[e].subgroup not in ONE_WAY for e in self.emoji])
        of_emoji = defaultdict(list)
        for i, e in enumerate(self.emoji):
            of_emoji[int(e)].append(i)
        self._of_emoji = {e: np.array(rows) for e, rows in of_emoji.items()}
        designs = defaultdict(list)
        for e in self._of_emoji:
            designs[emoji[e].design].append(e)
        self.designs = list(designs.values())
        weight = np.array([FLAGS if emoji[d[0]].group == "flags" else 1.0 for d in self.designs])
        self._weight = weight / weight.sum()

    def draw(self, n: int, rng: np.random.Generator) -> tuple[list[int], np.ndarray]:
        """n distinct designs: an emoji of each (n,), and two of its pictures, in two styles: rows (2, n)."""
        chosen = rng.choice(len(self.designs), n, replace=False, p=self._weight)
        emoji = [int(rng.choice(self.designs[d])) for d in chosen]
        views = [rng.choice(p, 2, replace=len(p) < 2) for p in (self._of_emoji[e] for e in emoji)]
        return emoji, np.stack(views, 1)
