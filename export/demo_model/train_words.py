"""Step 6: the text tower learns to read, on the picture tower as it is (locked-image tuning).

The features of augmented pictures are computed once, so that a step costs the text tower alone.
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

from .architecture import average, encode_text, load_picture_tower, new_model, save_model
from .augment import augment, on_white
from .captions import Speaker, list_phrases
from .emoji import Emoji
from .kind import Kind
from .schedule import Schedule, new_optimizer
from .training_set import TrainingSet
from .watch import Watch

SCALES = (14.0, 100.0)  # of the logits
LOG_FILE = "training_words.jsonl"


@dataclass(frozen=True)
class Settings:
    """Of the text tower's training."""

    steps: int = 3_000
    designs: int = 128  # a batch holds two pictures, in two styles, of each
    looks: int = 4  # augmentations of a picture whose features are kept, beside the plain one
    learning_rate: float = 1e-3
    warm_up: int = 100
    weight_decay: float = 0.1
    averaging: float = 0.99
    threads: int = 2
    seed: int = 0
    minutes: float | None = None  # the schedule hurries so as to end in this time
    report_every: float = 60  # seconds


def train_words(
    work: Path,
    emoji: list[Emoji],
    kind: Kind,
    names: list[str],
    picture_tower: Path,
    folder: Path,
    settings: Settings,
) -> None:
    """Write the whole model to folder, in open_clip's local-dir form, and training_words.jsonl."""
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    speaker = Speaker(list_phrases(emoji), names)
    model = new_model(kind.config, len(speaker.token_ids))
    load_picture_tower(model.visual, picture_tower)
    model.visual.requires_grad_(False).eval().to(memory_format=torch.channels_last)
    pictures = TrainingSet(work, emoji, kind)
    features = _features(model.visual, pictures, settings)
    watch = Watch(work, emoji, kind, speaker)

    optimizer = new_optimizer(model, weight_decay=settings.weight_decay)
    mean = copy.deepcopy(model)
    folder.mkdir(parents=True, exist_ok=True)
    schedule = Schedule(settings.steps, settings.minutes, settings.learning_rate, settings.warm_up)
    reported = time.monotonic()
    step, losses, progress = 0, [], 0.0
    with (folder / LOG_FILE).open("w", encoding="utf-8") as log:
        while progress < 1:
            progress = schedule.progress(step)
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(step)
            chosen, rows = pictures.draw(settings.designs, rng)
            tokens, truth = speaker.draw(chosen, rng)
            seen = features[torch.from_numpy(rng.integers(features.shape[0], size=rows.size)), rows.ravel()]
            read = encode_text(model, torch.from_numpy(tokens))
            truth = torch.from_numpy(truth).float().repeat(2, 1)
            loss = contrastive_loss(model.logit_scale.exp() * seen @ read.T, truth)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            with torch.no_grad():
                model.logit_scale.clamp_(*map(math.log, SCALES))
            average(mean, model, min(settings.averaging, (1 + step) / (10 + step)))
            losses.append(loss.item())
            step += 1

            now = time.monotonic()
            if now - reported > settings.report_every or progress >= 1:
                reported = now
                figures = {
                    "step": step,
                    "minutes": schedule.minutes_so_far(),
                    "loss": round(float(np.mean(losses)), 4),
                    "logit_scale": round(mean.logit_scale.exp().item(), 2),
                    "zero_shot": watch.zero_shot(mean),
                }
                losses.clear()
                print(figures, flush=True)
                log.write(json.dumps(figures) + "\n")
                log.flush()
                save_model(kind.config, mean, speaker.token_ids, folder)


def contrastive_loss(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Cross-entropy both ways, the target spread over all that is true. logits, truth (images, captions)."""

    def one_way(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        total = truth.sum(1)
        losses = -(truth * functional.log_softmax(logits, 1)).sum(1) / total.clamp(min=1)
        return losses[total > 0].mean()

    return (one_way(logits, truth) + one_way(logits.T, truth.T)) / 2


def _features(tower: nn.Module, pictures: TrainingSet, settings: Settings) -> torch.Tensor:
    """(1 + looks, N, E) unit features: of every picture over white, and of its augmentations."""
    rng = torch.Generator().manual_seed(settings.seed)
    looks = []
    for look in range(1 + settings.looks):
        parts = []
        for rows in torch.arange(len(pictures.pictures)).split(256):
            part = pictures.pictures[rows]
            x = augment(part, pictures.may_flip[rows], rng) if look else on_white(part)
            with torch.no_grad():
                features = tower(x.contiguous(memory_format=torch.channels_last))
            parts.append(functional.normalize(features, dim=-1))
        looks.append(torch.cat(parts))
    return torch.stack(looks)
