"""What is measured with: the model, lists of class names, and the contexts that all ways answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from shared.class_names import CONTEXT_WORDS, EUROSAT, imagenet

MODEL, N_CONTEXT = "ViT-B-16", len(CONTEXT_WORDS.split())
N_CONTEXTS = 64
ADJECTIVES = ("red", "blue", "green", "old", "new", "small", "large", "dark", "light", "white")
THINGS = ("house", "boat", "car", "tree", "dog", "cat", "horse", "chair", "table", "door")
LISTS = ("EuroSAT's ten", "ImageNet's first hundred", "a hundred of seven tokens")


def names_of(which: str) -> list[str]:
    if which == LISTS[0]:
        return list(EUROSAT)
    if which == LISTS[1]:
        return imagenet(100)
    return [f"{adjective} {thing} near the river at night" for adjective in ADJECTIVES for thing in THINGS]


def task_of(which: str, bundle: Path, threads: int) -> dict[str, Any]:
    """What every worker is told. The contexts lie beside the bundle."""
    import numpy as np

    contexts = bundle.parent / "contexts.npy"
    width = json.loads((bundle / "manifest.json").read_text())["text"]["width"]
    shape = (N_CONTEXTS, N_CONTEXT, width)
    np.save(contexts, np.random.default_rng(0).normal(0, 0.02, shape).astype(np.float32))
    return {"bundle": str(bundle), "names": names_of(which), "threads": threads, "contexts": str(contexts)}
