"""The tunes that are watched, as a user types them, on pictures that are made for them; torch beside.

python -m memory.tunes sampled tune …    the command line, with random features for most pictures
python -m memory.tunes torch MODEL N     both of torch's towers, and queries of N classes
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from shared.class_names import CONTEXT_WORDS, names_of
from shared.groups import drop_caches, limited_memory
from shared.inputs import jpeg_of
from sharpzo_edge.process_memory import MIB

from .watching import WORK_FOLDER, watched

SHOTS, PICTURE = 16, (4000, 3000)
POPULATION = {10: 40, 100: 16, 1000: 4}  # smaller where a query takes seconds: the batch is the plan's
GENERATIONS = 3
REAL_PASSES = 3  # of pictures, in tunes on many classes
MARGIN_MIB = 8  # of the hard limit, above the budget


def tune(
    bundle: Path, n_classes: int, budget_mib: int, folder: Path, procs: Path | None = None, **options: Any
) -> dict[str, Any]:
    """One whole tune of the paper's stage 1, watched; without the sharpness sweep unless `rho` says so."""
    population = POPULATION[n_classes]
    options = {
        "preset": "paper",
        "population": population,
        "rho": 0,
        "change_point": GENERATIONS,
        "max_queries": GENERATIONS * population + 1,
    } | options
    n_pictures = SHOTS if n_classes == 10 else 1
    return watched_tune(bundle, n_classes, n_pictures, budget_mib, folder, procs, **options)


def watched_tune(
    bundle: Path,
    n_classes: int,
    n_pictures: int,
    budget_mib: int,
    folder: Path,
    procs: Path | None = None,
    **options: Any,
) -> dict[str, Any]:
    """One tune with these options, on n_pictures a class."""
    pictures, names = pictures_for(n_classes, n_pictures, folder)
    output = folder / WORK_FOLDER.removesuffix(".work")
    options |= {
        "bundle": bundle,
        "images": pictures,
        "class_names": names,
        "output": output,
        "shots": SHOTS,
        "val": 0,
        "memory_budget": f"{budget_mib}MiB",
    }
    flags = [text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    shutil.rmtree(folder / WORK_FOLDER, ignore_errors=True)
    output.unlink(missing_ok=True)
    module = ["-m", "sharpzo_edge"] if n_classes == 10 else ["-m", __spec__.name, "sampled"]
    command = [sys.executable, *module, "tune", *flags, "--restart", "--json"]
    return watched(command, folder, procs)


def edge_tune(bundle: Path, n_classes: int, budget_mib: int, folder: Path, queries: int) -> dict[str, Any]:
    """One generation of the edge preset, and some rounds of its second stage."""
    return tune(
        bundle, n_classes, budget_mib, folder, preset="edge", rho=0.02, change_point=1, max_queries=queries
    )


def head_tune(bundle: Path, n_classes: int, budget_mib: int, folder: Path) -> dict[str, Any]:
    """The head alone, of SHOTS pictures a class."""
    return watched_tune(bundle, n_classes, SHOTS, budget_mib, folder, preset="head")


def smallest_budget(bundle: Path, n_classes: int, folder: Path) -> int:
    """The smallest budget that the command accepts, as its refusal of 1 MiB says."""
    refused = tune(bundle, n_classes, 1, folder)
    found = re.search(r"smallest that would do is (\d+)MiB", refused["said"])
    if not found:
        raise SystemExit(f"a budget of 1 MiB was not refused as expected: {refused['said']}")
    return int(found[1])


def under_a_limit(bundle: Path, budget_mib: int, folder: Path) -> dict[str, Any]:
    """The whole tune of 10 classes under budget + 8 MiB, caches dropped first; and the same without."""
    free = tune(bundle, 10, budget_mib, folder)
    with limited_memory(budget_mib + MARGIN_MIB) as procs:
        if isinstance(procs, str):
            return {"skipped": procs}
        dropped = drop_caches()
        limited = tune(bundle, 10, budget_mib, folder, procs)
        usage = procs.with_name("memory.max_usage_in_bytes")
        usage = usage if usage.exists() else procs.with_name("memory.peak")
        charged = int(usage.read_text()) / MIB if usage.exists() else None
    return {
        "limit_mib": budget_mib + MARGIN_MIB,
        "caches_dropped": dropped,
        "finished": limited["returncode"] == 0,
        "charged_mib": charged,
        "seconds": limited["wall_seconds"],
        "seconds_without": free["wall_seconds"],
        "query_slowdown": seconds_a_query(limited) / seconds_a_query(free) if "answer" in limited else None,
    }


def plain_way(model: str, n_classes: int, folder: Path) -> dict[str, Any]:
    """torch with both towers loaded: a picture, then queries of 77 positions a class."""
    command = [sys.executable, "-m", __spec__.name, "torch", model, str(n_classes)]
    run = watched(command, folder)
    if run["returncode"]:
        raise SystemExit(run["said"])
    return {"peak_mib": run["peak_mib"], "seconds_a_query": run["answer"]["seconds_a_query"]}


def seconds_a_query(run: dict[str, Any]) -> float:
    return float(run["answer"]["seconds"] / run["answer"]["queries"])


def pictures_for(n_classes: int, n_pictures: int, folder: Path) -> tuple[Path, Path]:
    """A folder of so many classes with so many pictures each, and the words for its folders; made once.

    Of 10 classes, all pictures have 12 megapixels; of more, the first one of every tenth class has. Files are
    links to a few.
    """
    from PIL import Image

    root, words = (
        folder / f"pictures-{n_classes}-{n_pictures}",
        folder / f"names-{n_classes}-{n_pictures}.json",
    )
    names = names_of(n_classes)
    if words.exists():
        return root, words
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    large = [jpeg_of(folder / f"large-{i}.jpg", PICTURE, i) for i in range(4)]
    small = jpeg_of(folder / "small.jpg", (640, 480), 9)
    assert Image.open(large[0]).size == PICTURE
    for k in range(n_classes):
        (root / f"class_{k:04}").mkdir()
        for i in range(n_pictures):
            is_large = n_classes == 10 or (i == 0 and k % 10 == 0)
            source = large[i % 4] if is_large else small
            os.link(source, root / f"class_{k:04}" / f"{i:02}.jpg")
    words.write_text(json.dumps({f"class_{k:04}": name for k, name in enumerate(names)}))
    return root, words


def tune_with_sampled_pictures() -> None:
    """The command line, with random features for all pictures but those of the first passes."""
    import numpy as np

    from sharpzo_edge import cli
    from sharpzo_edge.clip.towers import ImageTower
    from sharpzo_edge.pictures import encode

    class Sampled(ImageTower):
        passes = 0
        embed_dim = 0

        def image_features(self, batches: Any) -> Any:
            Sampled.passes += 1
            if Sampled.passes <= REAL_PASSES:
                Sampled.embed_dim = (found := super().image_features(batches)).shape[1]
                return found
            n = sum(len(pixels) for pixels in batches)
            random = np.random.default_rng(Sampled.passes).standard_normal((n, Sampled.embed_dim))
            return (random / np.linalg.norm(random, axis=1, keepdims=True)).astype(np.float32)

    vars(encode)["ImageTower"] = Sampled
    sys.argv = ["sharpzo-edge", *sys.argv[2:]]
    cli.main()


def run_torch(model: str, n_classes: int) -> None:
    import torch

    from shared.torch_text import TorchText
    from sharpzo_export.load_clip import load_clip

    clip = load_clip(model, "none", None)
    size = clip.preprocess["size"]
    height, width = (size, size) if isinstance(size, int) else size
    with torch.inference_mode():
        clip.model.encode_image(torch.zeros(1, 3, height, width), normalize=True)
    names = names_of(n_classes)
    text = TorchText(clip, names, CONTEXT_WORDS)
    contexts = 0.02 * torch.randn(1, text.n_context, clip.model.positional_embedding.shape[1])
    seconds = []
    for _ in range(1 if n_classes > 100 else 3):
        started = time.perf_counter()
        text.ordinary(contexts)
        seconds.append(time.perf_counter() - started)
    print(json.dumps({"seconds_a_query": min(seconds)}))


if __name__ == "__main__":
    if sys.argv[1] == "sampled":
        tune_with_sampled_pictures()
    else:
        run_torch(sys.argv[2], int(sys.argv[3]))
