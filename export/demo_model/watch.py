"""How training goes: held-out emoji, in the style never trained on, sorted into their subgroups."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from .architecture import encode_text
from .augment import on_white
from .captions import Speaker
from .emoji import Emoji, plain_forms
from .kind import Kind
from .render import read_pictures

LEAST_HELD_OUT = 9  # of a subgroup that counts


class Watch:
    """The subgroups with enough held-out emoji, read as words or by the mean of the known emoji."""

    def __init__(self, work: Path, emoji: list[Emoji], kind: Kind, speaker: Speaker | None = None) -> None:
        pictures, table = read_pictures(work / "pictures")
        held = kind.held_out(emoji)
        plain = {e.hexcode: e for e in plain_forms(emoji)}
        shown = [(i, plain[h]) for i, (h, s) in enumerate(table) if s == kind.watched_style and h in plain]
        count = Counter(e.subgroup for _, e in shown if e.design in held)
        names = sorted(name for name, n in count.items() if n >= LEAST_HELD_OUT)
        shown = [(i, e) for i, e in shown if e.subgroup in names]
        self._images = torch.from_numpy(pictures[[i for i, _ in shown]]).permute(0, 3, 1, 2)
        self._labels = torch.tensor([names.index(e.subgroup) for _, e in shown])
        self._held = torch.tensor([e.design in held for _, e in shown])
        self._n_classes = len(names)
        if speaker:
            prompts = [f"a photo of a {name.replace('-', ' ')}." for name in names]
            self._tokens = torch.from_numpy(speaker.rows(prompts))

    def zero_shot(self, model: nn.Module) -> float:
        """Accuracy in percent of the subgroups' names as prompts."""
        with torch.no_grad():
            return self._accuracy(self._features(model.visual), encode_text(model, self._tokens))

    def nearest_mean(self, tower: nn.Module) -> float:
        """Accuracy in percent of the known emoji's mean features as classes."""
        x = self._features(tower)
        known, labels = x[~self._held], self._labels[~self._held]
        means = torch.stack([known[labels == k].mean(0) for k in range(self._n_classes)])
        return self._accuracy(x, functional.normalize(means, dim=-1))

    def _features(self, tower: nn.Module) -> torch.Tensor:
        was = tower.training
        tower.eval()
        with torch.no_grad():
            x = torch.cat([tower(on_white(part)) for part in self._images.split(128)])
        tower.train(was)
        return functional.normalize(x, dim=-1)

    def _accuracy(self, x: torch.Tensor, classes: torch.Tensor) -> float:
        hit = (x[self._held] @ classes.T).argmax(1) == self._labels[self._held]
        share: float = hit.float().mean().item()
        return round(100 * share, 1)
