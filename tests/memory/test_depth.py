"""Tangents take forward passes alone: nothing that is kept has the size of the depth."""

import json
import sys
from pathlib import Path

import pytest

from support.bundle_copy import BundleCopy
from support.processes import finish

# Tangents along 4 directions, of 60 names: a block hands over 5 MiB to them.
PEAK = """
import json, sys
from pathlib import Path
import numpy as np
from sharpzo_edge.clip.bundle import Bundle
from sharpzo_edge.clip.class_prompts import class_prompts, context_from_words
from sharpzo_edge.clip.tower_plan import TextPlan, TowerPlan
from sharpzo_edge.clip.towers import TextTower
from sharpzo_edge.process_memory import govern, peak_rss_mib

govern()

bundle = Bundle.open(Path(sys.argv[1]))
context = context_from_words(bundle, "a photo of a")
words = ("red", "blue", "green", "white", "black")
nouns = ("cat", "dog", "house", "car", "apple", "flag", "tree", "sea", "hat", "ball", "fish", "star")
prompts = class_prompts(bundle, [f"{w} {n}" for w in words for n in nouns], len(context), 512)
directions = np.random.default_rng(0).standard_normal((4, *context.shape)).astype(np.float32)
plan = TextPlan(TowerPlan("frugal", 4, 4), 512, threads=1, tangents=sys.argv[2])
with TextTower(bundle, plan) as tower:
    run, sizes = tower._tangents._run, []
    def counted(graph, feeds, options=None):
        answers = run(graph, feeds, options)
        if "primal" in graph:
            sizes.append(sum(each.nbytes for each in answers[1:]) / 2**20)
        return answers
    tower._tangents._run = counted
    tower.class_feature_tangents(context, directions, prompts)
print(json.dumps([peak_rss_mib(), sum(sizes)]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks are read from /proc")
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_deep_towers_tangents_take_a_shallow_ones_memory(tmp_path: Path, precision: str) -> None:
    peaks, handed_over = {}, {}
    for layers in (2, 24):
        bundle = BundleCopy(tmp_path / str(layers))
        bundle.make_deep(layers)
        found = finish([sys.executable, "-c", PEAK, bundle.folder, precision])
        peaks[layers], handed_over[layers] = json.loads(found.stdout)
    kept = handed_over[24] - handed_over[2]  # more, if all of it were kept
    assert kept > 60
    assert abs(peaks[24] - peaks[2]) < 0.2 * kept, (peaks, handed_over)
