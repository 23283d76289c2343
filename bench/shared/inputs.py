"""What towers are measured on where accuracy means nothing: random weights, and pictures of noise.

What is imported here would count in a process that measures itself, so functions import what they need.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from .command import command

BUNDLES = Path(__file__).parents[2] / "build" / "bench"  # kept from one measurement to the next


def exported(model: str, weights: str, folder: Path) -> Path:
    """A bundle of `model` with random weights; exported unless this exporter's is there from before."""
    from sharpzo_edge.clip.bundle import Bundle
    from sharpzo_edge.errors import BundleError

    output = folder / f"{model}-{weights}"
    try:
        manifest = Bundle.open(output).manifest
        if manifest.image.activation_bytes and manifest.text.tangents:
            return output
    except BundleError:
        pass
    if output.exists():
        shutil.rmtree(output)
    folder.mkdir(parents=True, exist_ok=True)
    command("export", "--model", model, "--pretrained", "none", "--weights", weights, "--output", output)
    return output


def write_pictures(folder: Path, names: Sequence[str]) -> None:
    """Two pictures of noise for every class."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in names:
        (folder / name.replace(" ", "_")).mkdir(parents=True)
        for i in range(2):
            noise = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            Image.fromarray(noise).resize((320, 240)).save(folder / name.replace(" ", "_") / f"{i}.png")


def jpeg_of(path: Path, size: tuple[int, int], seed: int) -> Path:
    """A JPEG of waves and noise; made unless it is there."""
    import numpy as np
    from PIL import Image

    if not path.exists():
        rng = np.random.default_rng(seed)
        small = rng.integers(0, 256, (size[1] // 40, size[0] // 40, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BICUBIC), np.int16)
        noisy = smooth + rng.integers(-12, 13, smooth.shape, dtype=np.int16)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=90)
    return path
