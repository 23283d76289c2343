"""Step 7: what each task leaves to tune: zero-shot, a linear probe, and CoOp by back-propagation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from .architecture import TOKENS_FILE
from .page import METHODS, task_table
from .styles import SPLITS
from .tasks import SHOTS, TABLE_FILE

SEEDS = (0, 1, 2)
CONTEXT = "a photo of a"
D_W = 512
# Chosen once, before any test accuracy was seen.
STEPS, RATE_W, RATE_CONTEXT = 200, 0.05, 0.005
PROBE_PENALTY = 1.0  # of the squared weights, as 1 / (2 C) with scikit-learn's default C

FeaturesOf = Callable[[torch.Tensor], torch.Tensor]  # what is tuned -> unit class features (K, E)


class Clip:
    """The model as open_clip loads it; image features, and class features from a context."""

    def __init__(self, model_dir: Path) -> None:
        self.model, _, self.preprocess = open_clip.create_model_and_transforms(f"local-dir:{model_dir}")
        self.model.eval().float().requires_grad_(False)
        self.tokenize = open_clip.get_tokenizer(f"local-dir:{model_dir}")
        self.scale = self.model.logit_scale.exp().item()
        rows = json.loads((model_dir / TOKENS_FILE).read_text(encoding="utf-8"))
        self.embedding_std = self.model.token_embedding.weight[rows].std().item()

    def image_features(self, folder: Path, names: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Unit features (N, E) and labels (N,) of folder/<class>/*.png, in the order of names."""
        paths = [(p, k) for k, name in enumerate(names) for p in sorted((folder / name).glob("*.png"))]
        images = torch.stack([self.preprocess(Image.open(path)) for path, _ in paths])
        features = torch.cat([self.model.encode_image(part, normalize=True) for part in images.split(128)])
        return features, torch.tensor([k for _, k in paths])

    def start(self) -> torch.Tensor:
        """(m, D) embeddings of the initial context."""
        tokens = self.tokenize([CONTEXT])[0]
        return self.model.token_embedding(tokens[1 : int(tokens.argmax())])

    def classes(self, names: list[str]) -> FeaturesOf:
        """context (m, D) -> unit class features (K, E) of "<context> <name>."."""
        tokens = self.tokenize([f"{CONTEXT} {name}." for name in names])
        eot = tokens.argmax(1)
        length = int(eot.max()) + 1
        m = len(self.start())
        rows = self.model.token_embedding(tokens[:, :length])
        mask = self.model.attn_mask[:length, :length]

        def features(context: torch.Tensor) -> torch.Tensor:
            x = torch.cat([rows[:, :1], context.expand(len(names), -1, -1), rows[:, 1 + m :]], 1)
            x = self.model.transformer(x + self.model.positional_embedding[:length], attn_mask=mask)
            x = self.model.ln_final(x)[torch.arange(len(names)), eot]
            return functional.normalize(x @ self.model.text_projection, dim=-1)

        return features


def measure(work: Path, model_dir: Path, tasks: Path) -> None:
    """Write work/measure.json and work/measure.md."""
    clip = Clip(model_dir)
    table = json.loads((tasks / TABLE_FILE).read_text(encoding="utf-8"))
    results = {}
    for task in table:
        results[task] = measure_task(clip, tasks / task)
        results[task]["about"] = table[task]["about"]
        print(task, json.dumps(results[task]["accuracy"]), flush=True)
    (work / "measure.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    (work / "measure.md").write_text(task_table(results) + "\n", encoding="utf-8")


def measure_task(clip: Clip, folder: Path) -> dict[str, Any]:
    """accuracy[method][split]: one figure in percent a seed (zero-shot: one for all)."""
    folders = sorted(path.name for path in (folder / "train").iterdir())
    names = [name.replace("_", " ") for name in folders]
    pool, pool_labels = clip.image_features(folder / "train", folders)
    tested = {split: clip.image_features(folder / split, folders) for split in SPLITS}
    class_features, start = clip.classes(names), clip.start()
    accuracy: dict[str, dict[str, list[float]]] = {m: {split: [] for split in SPLITS} for m in METHODS}
    losses: dict[str, list[float]] = {"zero_shot": [], "coop_w": [], "coop_context": []}

    def note(method: str, weight: torch.Tensor, bias: torch.Tensor | float = 0.0) -> None:
        for split, (features, labels) in tested.items():
            hit = ((features @ weight.T + bias).argmax(1) == labels).float().mean().item()
            accuracy[method][split].append(round(100 * hit, 2))

    with torch.no_grad():
        zero_shot = class_features(start)
    note("zero_shot", zero_shot)
    for seed in SEEDS:
        shots = draw_shots(pool_labels, seed)
        x, y = pool[shots], pool_labels[shots]
        note("linear_probe", *linear_probe(x, y, len(names)))
        losses["zero_shot"].append(functional.cross_entropy(clip.scale * x @ zero_shot.T, y).item())

        rng = torch.Generator().manual_seed(seed)
        A = torch.randn(start.numel(), D_W, generator=rng) * clip.embedding_std
        features_of_w = _of_moved_contexts(class_features, start, A)
        for method, features_of, initial, rate in (
            ("coop_w", features_of_w, torch.zeros(D_W), RATE_W),
            ("coop_context", class_features, start, RATE_CONTEXT),
        ):
            tuned, loss = coop(features_of, initial, rate, clip.scale, x, y)
            losses[method].append(loss)
            note(method, tuned)
    return {
        "classes": len(names),
        "pictures": {split: len(labels) for split, (_, labels) in tested.items()},
        "shots": round(sum(min(SHOTS, int(n)) for n in pool_labels.bincount()) / len(names), 1),
        "least_test": int(tested["test"][1].bincount().min()),
        "accuracy": accuracy,
        "training_loss": {method: [round(v, 3) for v in values] for method, values in losses.items()},
    }


def _of_moved_contexts(class_features: FeaturesOf, start: torch.Tensor, A: torch.Tensor) -> FeaturesOf:
    """w -> class features of the context start + A w."""
    return lambda w: class_features(start + (A @ w).view_as(start))


def draw_shots(labels: torch.Tensor, seed: int) -> torch.Tensor:
    """Row numbers of up to SHOTS pictures a class."""
    rng = np.random.default_rng(seed)
    rows = [(labels == k).nonzero()[:, 0].numpy() for k in range(int(labels.max()) + 1)]
    return torch.from_numpy(np.concatenate([rng.permutation(r)[:SHOTS] for r in rows]))


def linear_probe(x: torch.Tensor, y: torch.Tensor, n_classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Multinomial logistic regression on standardised features; weights for the plain ones, and bias."""
    centre, spread = x.mean(0), x.std(0)
    z = (x - centre) / spread
    weight = torch.zeros(n_classes, x.shape[1], requires_grad=True)
    bias = torch.zeros(n_classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=300, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(z @ weight.T + bias, y, reduction="sum")
        loss = loss + PROBE_PENALTY / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    weight = (weight / spread).detach()
    return weight, bias.detach() - weight @ centre


def coop(
    class_features: FeaturesOf,
    initial: torch.Tensor,
    rate: float,
    scale: float,
    x: torch.Tensor,
    y: torch.Tensor,
) -> tuple[torch.Tensor, float]:
    """Adam on all shots at once -> class features and training loss at the end."""
    variable = nn.Parameter(initial.clone())
    optimizer = torch.optim.Adam([variable], rate)
    for _ in range(STEPS):
        loss = functional.cross_entropy(scale * x @ class_features(variable).T, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        tuned = class_features(variable)
        return tuned, functional.cross_entropy(scale * x @ tuned.T, y).item()
