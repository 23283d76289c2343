"""Both towers of a bundle, opened on one thread in a given way."""

from __future__ import annotations

import math

from sharpzo_edge.clip.bundle import Bundle
from sharpzo_edge.clip.tower_plan import ImagePlan, TextPlan, TowerPlan
from sharpzo_edge.clip.towers import ImageTower, TextTower


def text_tower(bundle: Bundle, tower: TowerPlan) -> TextTower:
    return TextTower(bundle, TextPlan(tower, chunk_rows=256, threads=1))


def image_tower(bundle: Bundle, tower: TowerPlan) -> ImageTower:
    return ImageTower(bundle, ImagePlan(tower, decoding_bytes=math.inf, threads=1))
