"""Step 5: the picture tower, against free vectors of everything that is said of an emoji.

Every phrase (label, keyword) and every category (a word of Unicode's subgroup and group) has a vector of its
own; a picture is to find those of its emoji among all. So it learns from all its phrases at once and need
not wait for a text tower. The vectors are thrown away: categories stay nameless.
"""

from __future__ import annotations

import copy
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from .architecture import average, new_model, save_picture_tower
from .augment import augment
from .captions import list_phrases
from .emoji import Emoji, category_words
from .kind import Kind
from .schedule import Schedule, new_optimizer
from .training_set import TrainingSet
from .watch import Watch

LOG_FILE = "training_pictures.jsonl"
LABEL, KEYWORDS, CATEGORIES = 0.35, 0.35, 0.30  # shares of the target
SCALES = (14.0, 100.0)  # of the logits


@dataclass(frozen=True)
class Settings:
    """Of the picture tower's training."""

    steps: int = 6_000
    designs: int = 96  # a batch holds two pictures, in two styles, of each
    learning_rate: float = 2e-3
    warm_up: int = 150
    weight_decay: float = 0.1
    averaging: float = 0.997  # of the weights, a step; less at the beginning
    threads: int = 2
    seed: int = 0
    minutes: float | None = None  # the schedule hurries so as to end in this time
    save_every: float = 180  # seconds


def train_pictures(work: Path, emoji: list[Emoji], kind: Kind, path: Path, settings: Settings) -> None:
    """Write the averaged tower to path every few minutes and at the end, and training_pictures.jsonl."""
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    torch_rng = torch.Generator().manual_seed(settings.seed)
    pictures, watch = TrainingSet(work, emoji, kind), Watch(work, emoji, kind)
    shares = torch.from_numpy(_shares(emoji))
    tower = new_model(kind.config, 1).visual.to(memory_format=torch.channels_last)  # twice as fast on a CPU
    mean = copy.deepcopy(tower)
    vectors = nn.Parameter(torch.randn(shares.shape[1], kind.config["embed_dim"]))
    log_scale = nn.Parameter(torch.tensor(math.log(SCALES[0])))
    optimizer = new_optimizer(tower, vectors, log_scale, weight_decay=settings.weight_decay)
    print(
        f"{len(pictures.emoji)} pictures, {len(pictures.designs)} designs, {len(vectors)} vectors", flush=True
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    schedule = Schedule(settings.steps, settings.minutes, settings.learning_rate, settings.warm_up)
    saved = time.monotonic()
    step, losses, progress = 0, [], 0.0
    with (path.parent / LOG_FILE).open("w", encoding="utf-8") as log:
        while progress < 1:
            progress = schedule.progress(step)
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(step)
            chosen, rows = pictures.draw(settings.designs, rng)
            rows = torch.from_numpy(rows.ravel())
            images = augment(pictures.pictures[rows], pictures.may_flip[rows], torch_rng)
            seen = functional.normalize(tower(images.contiguous(memory_format=torch.channels_last)), dim=-1)
            logits = log_scale.exp() * seen @ functional.normalize(vectors, dim=-1).T
            loss = -(shares[chosen * 2] * functional.log_softmax(logits, 1)).sum(1).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
            optimizer.step()
            with torch.no_grad():
                log_scale.clamp_(*map(math.log, SCALES))
            average(mean, tower, min(settings.averaging, (1 + step) / (10 + step)))
            losses.append(loss.item())
            step += 1

            now = time.monotonic()
            if now - saved > settings.save_every or progress >= 1:
                saved = now
                minutes = schedule.minutes_so_far()
                figures = {
                    "step": step,
                    "minutes": minutes,
                    "pictures_per_second": round(step * 2 * settings.designs / 60 / max(minutes, 0.01)),
                    "loss": round(float(np.mean(losses)), 4),
                    "nearest_mean": watch.nearest_mean(mean),
                }
                losses.clear()
                print(figures, flush=True)
                log.write(json.dumps(figures) + "\n")
                log.flush()
                save_picture_tower(mean, path)


def _shares(emoji: list[Emoji]) -> np.ndarray:
    """(E, phrases and categories) float32: the target of an emoji's pictures, rows that sum to 1."""
    phrases = list_phrases(emoji)
    categories = sorted({word for e in emoji for word in category_words(e)})
    shares = np.zeros((len(emoji), len(phrases.texts) + len(categories)), np.float32)
    for row, each, (label, keywords) in zip(shares, emoji, phrases.said, strict=True):
        row[label] += LABEL
        row[keywords] += KEYWORDS / len(keywords)
        places = [len(phrases.texts) + categories.index(word) for word in category_words(each)]
        row[places] += CATEGORIES / len(places)
    return shares
