"""Class features and tangents of the demo's text tower: kept on x86-64, and compared with those on arm64.

    python answers.py keep FILE.npz
    python answers.py compare FILE.npz

compare prints JSON: for each kind of answer how far off it is, the worst of all directions; 0
is the same answer. This file is copied into an arm64 system, and needs nothing but the installed wheel.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

from sharpzo_edge.clip.bundle import Bundle
from sharpzo_edge.clip.class_prompts import class_prompts, context_from_words
from sharpzo_edge.clip.tower_plan import RESIDENT, TextPlan
from sharpzo_edge.clip.towers import TextTower
from sharpzo_edge.demo import BUNDLE
from sharpzo_edge.types import Floats

NAMES = ("red apple and green leaf", "cat", "hot dog", "a small yellow car", "flag")
N_DIRECTIONS = 8
DISTANCES = (0, 5)  # of the context from the initial words, in their length


def answers() -> dict[str, Floats]:
    """By kind: class features (n, K, E), and tangents (n, K, E) with float32 and with 8-bit products."""
    bundle = Bundle.open(BUNDLE)
    words = context_from_words(bundle, bundle.manifest.initial_context)
    prompts = class_prompts(bundle, NAMES, len(words))
    away, *directions = (
        np.random.default_rng(0).standard_normal((1 + N_DIRECTIONS, *words.shape)).astype(np.float32)
    )
    unit = np.linalg.norm(words)
    contexts = [words + np.float32(d) * away * unit / np.linalg.norm(away) for d in DISTANCES]
    moves = np.stack([d * unit / np.linalg.norm(d) for d in directions])
    found = {}
    for precision in ("fp32", "int8"):
        with TextTower(bundle, TextPlan(RESIDENT, 256, threads=1, tangents=precision)) as tower:
            found["class features"] = tower.class_features(np.stack(contexts), prompts)
            each = [tower.class_feature_tangents(context, moves, prompts) for context in contexts]
            found[f"tangents {precision}"] = np.concatenate(each)
    return found


def main() -> None:
    what, path = sys.argv[1:]
    if what == "keep":
        np.savez(path, **dict[str, Any](answers()))
        return
    off = {}
    with np.load(path) as kept:
        for name, found in answers().items():
            difference, size = (
                np.linalg.norm(each, axis=(1, 2)) for each in (found - kept[name], kept[name])
            )
            off[name] = float((difference / size).max())
    print(json.dumps(off))


if __name__ == "__main__":
    main()
