"""How fast pictures are labelled: within 128 MiB, without a budget, and with the one ONNX file.

    python bench/at_work.py [--models NAME ...] [--work DIR]    (make bench-at-work)

Three backbones with random weights, and the demo model; a head of ten classes. The pictures are JPEGs of
1280 x 960. Every way has a process of its own: it takes one picture at a time for a while, and then many.
Writes bench/results/at_work.json and docs/at-work-speed.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from shared.class_names import EUROSAT
from shared.command import command
from shared.inputs import BUNDLES, exported, jpeg_of, write_pictures
from shared.machine import ROOT, describe_machine, one_line
from shared.pages import keep_results, markdown_table

RESULTS = ROOT / "bench" / "results" / "at_work.json"
PAGE = ROOT / "docs" / "at-work-speed.md"
DEMO = "demo"
MODELS = ("ViT-B-32", "ViT-B-16", "RN50", DEMO)
WAYS = {"128MiB": "within 128 MiB", "none": "no budget", "file": "the ONNX file"}
SIZE = (1280, 960)
N_FILES = 16
SECONDS = 8.0  # of one picture at a time, and then of many
FILE_BATCH = 8  # pictures at once with the ONNX file


# ------------------------------------------------------------------------- a process that labels pictures

Label = Callable[[Path], object]
LabelAll = Callable[[Iterator[Path]], Iterator[int]]  # yields how many pictures were labelled, batch by batch


def ours(budget: str, bundle: str, prompt: str) -> tuple[Label, LabelAll]:
    """With `Classifier`, which `predict` uses too."""
    from sharpzo_edge import Classifier

    classify = Classifier(bundle, prompt, memory_budget=budget)

    def label_all(pictures: Iterator[Path]) -> Iterator[int]:
        while True:
            some = list(itertools.islice(pictures, 10 * N_FILES))
            yield from map(len, classify.files(some, lambda *_: None))

    return classify, label_all


def one_file(file: str) -> tuple[Label, LabelAll]:
    """With the lines of docs/one-file.md."""
    import numpy as np
    import onnxruntime
    from PIL import Image, ImageOps

    session = onnxruntime.InferenceSession(file)
    size = session.get_inputs()[0].shape[1]

    def crop(path: Path) -> Any:
        picture = ImageOps.exif_transpose(Image.open(path))
        width, height = (size * edge // min(picture.size) for edge in picture.size)
        left, top = round((width - size) / 2), round((height - size) / 2)
        resized = picture.resize((width, height), Image.Resampling.BICUBIC)
        return np.asarray(resized.crop((left, top, left + size, top + size)).convert("RGB"))

    def label_all(pictures: Iterator[Path]) -> Iterator[int]:
        while True:
            crops = [crop(path) for path in itertools.islice(pictures, FILE_BATCH)]
            session.run(None, {"pixels": np.stack(crops)})
            yield len(crops)

    return lambda path: session.run(None, {"pixels": crop(path)[np.newaxis]}), label_all


def work(way: str, folder: str, bundle: str, prompt: str, file: str) -> dict[str, float]:
    """Label pictures for a while; returns what it took."""
    from sharpzo_edge.process_memory import govern, peak_rss_mib

    if way != "file":
        govern()  # as the command line does
    started = time.perf_counter()
    label, label_all = one_file(file) if way == "file" else ours(way, bundle, prompt)
    pictures = itertools.cycle(sorted(Path(folder).iterdir()))
    label(next(pictures))
    first = time.perf_counter() - started
    taken: list[float] = []
    while sum(taken) < SECONDS:
        before = time.perf_counter()
        label(next(pictures))
        taken.append(time.perf_counter() - before)
    n_labelled, started = 0, time.perf_counter()
    for n in label_all(pictures):
        n_labelled += n
        if (seconds := time.perf_counter() - started) > SECONDS:
            break
    return {
        "first_seconds": first,
        "picture_seconds": statistics.median(taken),
        "slowest_seconds": max(taken),
        "pictures_a_second": n_labelled / seconds,
        "peak_mib": peak_rss_mib(),
    }


# ---------------------------------------------------------------------------------------------- measuring


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--work", type=Path, default=BUNDLES)
    arguments = parser.parse_args()
    rows, load = [], os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "frames").mkdir()
        for i in range(N_FILES):
            jpeg_of(folder / "frames" / f"{i:02}.jpg", SIZE, i)
        for model in arguments.models:
            made = make(model, folder, arguments.work)
            for way in WAYS:
                rows.append({"model": model, "way": way, **measured(way, folder / "frames", *made)})
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    results = {"machine": describe_machine(), "load": load, "size": SIZE, "seconds": SECONDS, "rows": rows}
    PAGE.write_text(page(keep_results(results, RESULTS)), encoding="utf-8")


def make(model: str, folder: Path, bundles: Path) -> tuple[Path, Path, Path]:
    """Bundle, prompt and ONNX file of a model."""
    from sharpzo_edge.demo import BUNDLE, DEFAULT_TASK, TASKS

    prompt, file = folder / f"{model}.safetensors", folder / f"{model}.onnx"
    if model == DEMO:
        bundle, images = BUNDLE, TASKS / DEFAULT_TASK / "train"
    else:
        bundle, images = exported(model, "fp32", bundles), folder / "pictures"
        if not images.exists():
            write_pictures(images, EUROSAT)
    of_both = ("--bundle", bundle, "--output")
    command("tune", *of_both, prompt, "--images", images, "--preset", "head", "--val", 0)
    command("classifier", *of_both, file, "--prompt", prompt)
    return bundle, prompt, file


def measured(way: str, frames: Path, *made: Path) -> dict[str, float]:
    """What a process of its own says; and the load of the minute before, the bench's own included."""
    load = os.getloadavg()[0]
    worker = [sys.executable, __file__, "--worker", way, *map(str, (frames, *made))]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(worker, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    found: dict[str, float] = json.loads(done.stdout)
    return {"load": load, **found}


# ------------------------------------------------------------------------------------------------ the page


def page(results: dict[str, Any]) -> str:
    header = ["model", "", "file to answer", "slowest", "pictures a second", "first answer", "peak RSS"]
    rows = [
        [
            row["model"],
            WAYS[row["way"]],
            f"{1000 * row['picture_seconds']:,.0f} ms",
            f"{1000 * row['slowest_seconds']:,.0f} ms",
            f"{row['pictures_a_second']:,.1f}",
            f"{row['first_seconds']:.1f} s",
            f"{row['peak_mib']:,.0f} MiB",
        ]
        for row in results["rows"]
    ]
    width, height = results["size"]
    lines = [
        "# Speed at work",
        "",
        "How long a picture takes from its file to its label, in a program that stays open. `predict` and",
        "`Classifier` do it within 128 MiB, or without a budget; the [one ONNX file](one-file.md) does it in",
        "onnxruntime alone. `make bench-at-work` writes this page.",
        "",
        *markdown_table(header, rows),
        "",
        f"Pictures are JPEGs of {width:,} x {height:,}; decoding and cropping are in all figures. *File to",
        f"answer* is the median of one picture after another, for {results['seconds']:.0f} seconds.",
        f"*Pictures a second* is of as many at once as the plan says; the ONNX file takes {FILE_BATCH}.",
        "*First answer* is after the imports and the opening of all files. Within 128 MiB, a large tower's",
        "weights are read again for every batch, also for one picture alone.",
        "",
        "The backbones have random weights, which take as long as trained ones. Each has a head of ten",
        "classes. The machine is a server, not a board. Its load before the bench was "
        f"{results['load']:.1f}.",
        "",
        one_line(results["machine"]),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        print(json.dumps(work(*sys.argv[2:])))
    else:
        main()
