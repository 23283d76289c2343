"""What a tune takes: peak memory seen from outside, seconds a query, smallest budget; torch beside it.

    python bench/memory.py [--models NAME ...] [--classes N ...] [--parts PART ...] [--work DIR]
                           [--add | --no-write]

The paper's backbones with random weights. Every tune is the command a user types, in a process of its own,
with 16 pictures of 12 megapixels for each of 10 classes; watched from outside, never from within. With more
classes only the first passes of pictures are encoded, and random features stand for the rest. The head is
measured on 16 pictures for each of 1,000 classes.
Writes bench/results/memory.json and docs/memory.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import page_memory
from shared.class_names import CONTEXT_WORDS, names_of
from shared.groups import drop_caches, limited_memory
from shared.inputs import BUNDLES, exported, jpeg_of
from shared.machine import ROOT, describe_machine, one_line, with_versions_of
from shared.pages import keep_results, markdown_table, read_results
from sharpzo_edge.search.sketched_descent import Sketch
from sharpzo_edge.tuning.presets import EDGE

RESULTS = ROOT / "bench" / "results" / "memory.json"
PAGE = ROOT / "docs" / "memory.md"

# (model, weights, MiB of budget for the tune); ViT-L-14 with the budget that it was promised.
MODELS = (
    ("ViT-B-16", "fp32", 128),
    ("ViT-B-16", "int8", 128),
    ("ViT-B-16", "int4", 128),
    ("RN50", "fp32", 128),
    ("RN101", "fp32", 128),
    ("ViT-B-32", "fp32", 128),
    ("ViT-L-14", "fp32", 160),
)
CLASSES = (10, 100, 1000)
PARTS = ("tunes", "smallest", "sharpness", "edge", "head", "cgroup", "torch")
DEFAULT_MIB = 128
SHOTS, PICTURE = 16, (4000, 3000)
POPULATION = {10: 40, 100: 16, 1000: 4}  # smaller where a query takes seconds: the batch is the plan's
GENERATIONS = 3
SHARPNESS_QUERIES = 1070  # a generation of the paper's stage 1, with its sweep at d = 512
# A generation of edge, and rounds of its stage 2 until all columns are there: where it is tried.
EDGE_QUERIES = {("ViT-B-16", 10): 220, ("ViT-B-16", 100): 220, ("ViT-B-16", 1000): 60, ("RN50", 1000): 60}
HEADS = (("RN50", 1000), ("ViT-B-16", 1000))  # the widest image features, and the model that most have
REAL_PASSES = 3  # of pictures, in tunes on many classes
SAMPLE_SECONDS = 0.003
MARGIN_MIB = 8  # of the hard limit, above the budget
MIB = 1 << 20
WORK_FOLDER = "prompt.safetensors.work"
PHASES = ("imports", "pictures", "image tower", "text tower", "head")

# A fat parent's memory would count for its child until exec: so a small one starts it.
LAUNCHER = """
import os, sys
limit, report, *command = sys.argv[1:]
child = os.fork()
if child == 0:
    if limit:
        open(limit, "w").write(str(os.getpid()))
    os.execv(command[0], command)
print(child, file=sys.stderr, flush=True)
_, status, usage = os.wait4(child, 0)
open(report, "w").write(str(usage.ru_maxrss))
sys.exit(os.waitstatus_to_exitcode(status) & 255)
"""


# -------------------------------------------------------------------------------- watching a process


def watched(command: list[str], folder: Path, procs: Path | None = None) -> dict[str, Any]:
    """Run a command that prints JSON; its answer, its peak, and what it held in each phase.

    The peak is wait4's. What a phase held is seen through /proc; phases begin where the command's lines and
    its work folder (below `folder`) say so.
    """
    report = folder / "maxrss"
    launcher = [sys.executable, "-I", "-S", "-c", LAUNCHER, str(procs or ""), str(report), *command]
    started = time.monotonic()
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_NUM_THREADS"}
    process = subprocess.Popen(
        launcher, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    said, answered = process.stderr, process.stdout
    assert said and answered
    pid = int(said.readline())
    lines: list[str] = []
    answers: list[str] = []
    threads = [
        threading.Thread(target=lambda: lines.extend(said)),
        threading.Thread(target=lambda: answers.append(answered.read())),
    ]
    for thread in threads:
        thread.start()
    largest: dict[str, dict[str, float]] = {}
    phase = PHASES[0]
    while process.poll() is None:
        sample, phase = _status(pid), _phase(phase, folder / WORK_FOLDER, lines)
        if sample and sample["rss"] > largest.get(phase, {"rss": 0.0})["rss"]:
            largest[phase] = sample
        time.sleep(SAMPLE_SECONDS)
    for thread in threads:
        thread.join()
    result = {
        "returncode": process.returncode,
        "said": "".join(lines),
        "peak_mib": int(report.read_text()) / 1024,
        "phases": largest,
        "wall_seconds": time.monotonic() - started,
    }
    if process.returncode == 0:
        result["answer"] = json.loads(answers[0])
    return result


def _phase(phase: str, work: Path, lines: list[str]) -> str:
    """Which phase a tune is in: crops and encoded passes have journals of their own."""
    if phase == "imports":
        return "pictures" if (work / "crops.journal").exists() else phase
    if phase == "pictures":
        return "image tower" if (work / "features.journal").exists() else phase
    if phase == "image tower" and any(re.match(r"encoded [\d,]+ pictures?", line) for line in lines):
        return "text tower"
    if phase == "text tower" and any(re.match(r"stopped: |zero-shot  queries 1  ", line) for line in lines):
        return "head"
    return phase


def _status(pid: int) -> dict[str, float] | None:
    """MiB resident now: all of it, what no file backs, and pages of files."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    sizes = dict(re.findall(r"^(VmRSS|RssAnon|RssFile):\s+(\d+) kB", text, re.MULTILINE))
    if len(sizes) < 3:
        return None
    return {
        "rss": int(sizes["VmRSS"]) / 1024,
        "anonymous": int(sizes["RssAnon"]) / 1024,
        "file": int(sizes["RssFile"]) / 1024,
    }


def floor(folder: Path) -> float:
    """MiB of a process that imports what a tune imports, and ends."""
    code = "import sharpzo_edge.cli, sharpzo_edge.commands.tune; print('{}')"
    return float(watched([sys.executable, "-c", code], folder)["peak_mib"])


# ------------------------------------------------------------------------------------------ the tunes


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
    module = ["-m", "sharpzo_edge"] if n_classes == 10 else [__file__, "--sampled"]
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


def smallest_budget(bundle: Path, n_classes: int, folder: Path) -> int:
    """The smallest budget that the command accepts, as its refusal of 1 MiB says."""
    refused = tune(bundle, n_classes, 1, folder)
    found = re.search(r"smallest that would do is (\d+)MiB", refused["said"])
    if not found:
        raise SystemExit(f"a budget of 1 MiB was not refused as expected: {refused['said']}")
    return int(found[1])


# ------------------------------------------------------------------------------------- a hard limit


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


# -------------------------------------------------------------------------------------- the plain way


def plain_way(model: str, n_classes: int, folder: Path) -> dict[str, Any]:
    """torch with both towers loaded: a picture, then queries of 77 positions a class."""
    command = [sys.executable, __file__, "--torch", model, str(n_classes)]
    run = watched(command, folder)
    if run["returncode"]:
        raise SystemExit(run["said"])
    return {"peak_mib": run["peak_mib"], "seconds_a_query": run["answer"]["seconds_a_query"]}


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


# ----------------------------------------------------------------------------------------- measuring


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    labels = [label(model, weights) for model, weights, _ in MODELS]
    parser.add_argument("--models", nargs="+", default=labels, choices=labels)
    parser.add_argument("--classes", nargs="+", type=int, default=CLASSES, choices=CLASSES)
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--work", type=Path, default=BUNDLES)
    parser.add_argument(
        "--add", action="store_true", help="keep what there is of other models, classes and parts"
    )
    parser.add_argument("--no-write", action="store_true", help="print the page; leave results as they are")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    machine = describe_machine()
    rows: dict[tuple[str, str, int], dict[str, Any]] = {}
    described = machine
    if arguments.add:
        stored = read_results(RESULTS)
        rows = {row_key(row): row for row in stored["rows"]}
        described = with_versions_of(machine, stored["machine"])
    results: dict[str, Any] = {"machine": described, "floor_mib": floor(arguments.work), "rows": []}
    wanted = [each for each in MODELS if label(*each[:2]) in arguments.models]
    for n_classes in arguments.classes:
        for model, weights, budget in wanted:
            if n_classes == 10 or weights == "fp32":
                bundle = exported(model, weights, arguments.work)
                row = measure(bundle, model, weights, n_classes, budget, arguments)
                print(json.dumps(row), file=sys.stderr, flush=True)
                before = rows.get(row_key(row), {})
                commits = [*before.get("commit", "").split(", "), machine["commit"]]
                commit = ", ".join(dict.fromkeys(filter(None, commits)))
                rows[row_key(row)] = before | row | {"commit": commit}
                results["rows"] = list(rows.values())
                if not arguments.no_write:
                    write(results)
    if arguments.no_write:
        print(page(json.loads(json.dumps(results))))


def row_key(row: dict[str, Any]) -> tuple[str, str, int]:
    return row["model"], row["weights"], row["classes"]


def write(results: dict[str, Any]) -> None:
    """Results and page, after every row: the rest of the hour may be lost."""
    order = [each[:2] for each in MODELS]
    results["rows"].sort(key=lambda row: (order.index((row["model"], row["weights"])), row["classes"]))
    commits = (commit for row in results["rows"] for commit in row["commit"].split(", "))
    results["machine"]["commit"] = ", ".join(dict.fromkeys(commits))
    PAGE.write_text(page(keep_results(results, RESULTS)), encoding="utf-8")


def measure(
    bundle: Path, model: str, weights: str, n_classes: int, budget: int, arguments: argparse.Namespace
) -> dict[str, Any]:
    """One backbone and number of classes: the parts that were asked for."""
    folder, parts = arguments.work, arguments.parts
    row: dict[str, Any] = {"model": model, "weights": weights, "classes": n_classes, "budget_mib": budget}
    row["smallest_mib"] = smallest_budget(bundle, n_classes, folder)
    budget = row["budget_mib"] = max(budget, row["smallest_mib"])
    if "tunes" in parts:
        row["tune"] = summary(tune(bundle, n_classes, budget, folder))
    queries = EDGE_QUERIES.get((model, n_classes))
    if "edge" in parts and weights == "fp32" and queries is not None:
        row["edge"] = summary(edge_tune(bundle, n_classes, budget, folder, queries))
    if "head" in parts and weights == "fp32" and (model, n_classes) in HEADS:
        row["head"] = summary(head_tune(bundle, n_classes, budget, folder))
    if n_classes > 10:
        # A query of torch's on 1,000 classes takes a minute: of one model.
        if "torch" in parts and weights == "fp32" and (n_classes < 1000 or model == "ViT-B-16"):
            row["torch"] = plain_way(model, n_classes, folder)
        return row
    if "smallest" in parts and model == "ViT-B-16":
        row["at_the_smallest"] = summary(tune(bundle, n_classes, row["smallest_mib"], folder))
    if "sharpness" in parts and (model, weights) == ("ViT-B-16", "fp32"):
        run = tune(bundle, n_classes, budget, folder, rho=0.1, max_queries=SHARPNESS_QUERIES)
        row["with_sharpness"] = summary(run)
    if "cgroup" in parts and (model, weights) == ("ViT-B-16", "fp32"):
        row["cgroup"] = under_a_limit(bundle, budget, folder)
    if "torch" in parts and weights == "fp32":
        row["torch"] = plain_way(model, n_classes, folder)
    return row


def summary(run: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a tune."""
    if run["returncode"]:
        raise SystemExit(f"a tune failed: {run['said']}")
    answer = run["answer"]
    return {
        "peak_mib": run["peak_mib"],
        "reported_mib": answer["peak_rss_mib"],
        "planned_mib": answer["plan"]["peak_mib"],
        "planned_phases_mib": answer["plan"]["phases_mib"],
        "plan": {key: answer["plan"][key] for key in ("text", "image", "chunk_rows", "sketch")},
        "phases": run["phases"],
        "queries": answer["queries"],
        "seconds_a_query": seconds_a_query(run),
        "wall_seconds": run["wall_seconds"],
    }


def seconds_a_query(run: dict[str, Any]) -> float:
    return float(run["answer"]["seconds"] / run["answer"]["queries"])


def label(model: str, weights: str) -> str:
    return model if weights == "fp32" else f"{model}, {weights}"


# ------------------------------------------------------------------------------------------- the page


def short_table(results: dict[str, Any]) -> list[str]:
    """What each tune takes, torch beside it, and what happened under a hard limit."""
    header = ["model", "classes", "smallest budget", "budget", "peak RSS", "s a query"]
    header += ["torch: peak RSS", "s a query"]

    def cells(row: dict[str, Any]) -> list[str]:
        tuned, plain = row["tune"], row.get("torch")
        beside = [f"{plain['peak_mib']:,.0f} MiB", f"{plain['seconds_a_query']:.2f}"] if plain else ["", ""]
        return [
            label(row["model"], row["weights"]),
            f"{row['classes']:,}",
            f"{row['smallest_mib']} MiB",
            f"{row['budget_mib']} MiB",
            f"{tuned['peak_mib']:.0f} MiB",
            f"{tuned['seconds_a_query']:.3f}",
            *beside,
        ]

    return [*markdown_table(header, map(cells, results["rows"])), "", *limit_said(results)]


def limit_said(results: dict[str, Any]) -> list[str]:
    """What happened under a hard limit: RSS is not all of memory."""
    for row in results["rows"]:
        if "cgroup" not in row:
            continue
        found = row["cgroup"]
        if "skipped" in found:
            return [f"Under a hard limit nothing was measured: {found['skipped']}."]
        if not found["finished"]:
            return [f"Under a hard limit of {found['limit_mib']} MiB that tune did **not** finish."]
        return [
            f"RSS is not all of memory: the kernel's page cache and buffers come beside it. Under a hard "
            f"limit of {found['limit_mib']} MiB on all of it "
            f"({'caches dropped first' if found['caches_dropped'] else 'caches could not be dropped'}, no "
            f"swap) {label(row['model'], row['weights'])}'s tune on {row['classes']} classes finishes, in "
            f"{found['seconds'] / found['seconds_without']:.2f} times the time (a query "
            f"{found['query_slowdown']:.2f} times)."
        ]
    return []


def page(results: dict[str, Any]) -> str:
    machine = results["machine"]
    lines = [
        "# Memory of a tune",
        "",
        f"Generated by `make bench-memory`, with random weights. Runs are {GENERATIONS} generations of the",
        "preset `paper`, d = 512, without sharpness sweeps, unless they say otherwise.",
        "",
        f"- 10 classes: {SHOTS} 12-megapixel JPEGs each, pictures to prompt, by the command a user types.",
        f"- More classes: one picture each. The first {REAL_PASSES} passes are encoded, and random features",
        "  stand for the rest.",
        f"- The head alone (`--preset head`): the same, with {SHOTS} pictures a class.",
        "- Peak RSS is seen from outside (wait4), Python included. Phases are sampled every "
        f"{SAMPLE_SECONDS * 1e3:.0f} ms.",
        "- Smallest budget: what the refusal of 1 MiB names. With onnxruntime 1.32 it is 2 MiB more",
        "  than with 1.31: plans have 82 MiB for the imports, and not 80.",
        "- torch: both towers loaded, one candidate at a time, 77 positions a class.",
        "",
        f"{one_line(machine)} Peak of the imports alone: {results['floor_mib']:.0f} MiB.",
        "",
        *short_table(results),
        "",
        "## Targets",
        "",
        *markdown_table(["what", "found", "target", ""], map(_judged, targets(results))),
        "",
        "## The edge preset",
        "",
        *edge_said(results),
        "",
        "## By phase",
        "",
        "MiB at most: anonymous + pages of files, as seen; then what the plan reckoned with. A plan is "
        "broken where more was seen.",
        "",
        *markdown_table(
            ["tune", *PHASES, "whole, seen", "reported", "planned", ""],
            ([what, *_phases(run)] for what, run in every_run(results)),
        ),
        "",
        *page_memory.section(read_results(page_memory.RESULTS)),
        "",
        "## Plans",
        "",
        *markdown_table(
            ["tune", "image tower", "text tower", "most rows of names a run"],
            ([what, *_plan(run["plan"])] for what, run in every_run(results)),
        ),
    ]
    return "\n".join(lines) + "\n"


def _judged(target: tuple[str, float, int]) -> list[str]:
    what, found, wanted = target
    return [what, f"{found:.0f} MiB", f"{wanted} MiB", "met" if found <= wanted else "**missed**"]


def every_run(results: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every tune with the words for it."""
    for row in results["rows"]:
        for key, said in RUNS.items():
            if key in row:
                yield f"{_row_label(row)}{said}", row[key]


def edge_said(results: dict[str, Any]) -> list[str]:
    """How much of a sketch the budget leaves room for, and what a query takes with all that is around it."""
    wanted = EDGE.sketches[0]
    lines = [
        f"One generation, and some rounds. A sketch has {wanted.rank} new directions a round, and those of "
        f"{wanted.kept_rounds} rounds before it,",
        "where there is room. Seconds a query hold the rounds' own arithmetic.",
        "",
    ]
    rows = []
    for row in results["rows"]:
        if run := row.get("edge"):
            sketch = Sketch(**run["plan"]["sketch"])
            rows.append(
                [
                    _row_label(row),
                    f"{row['budget_mib']} MiB",
                    f"{run['peak_mib']:.0f} MiB",
                    str(sketch.rank),
                    f"{sketch.n_columns} of {wanted.n_columns}",
                    str(run["queries"]),
                    f"{run['seconds_a_query']:.3f}",
                ]
            )
    header = ["tune", "budget", "peak", "directions a round", "columns", "queries", "s a query"]
    return [*lines, *markdown_table(header, rows)]


RUNS = {
    "tune": "",
    "at_the_smallest": ", smallest budget",
    "with_sharpness": ", sharpness-aware",
    "edge": ", edge preset",
    "head": ", the head alone",
}


def _row_label(row: dict[str, Any]) -> str:
    return f"{label(row['model'], row['weights'])}, {row['classes']:,} classes"


def _phases(run: dict[str, Any]) -> list[str]:
    cells = []
    for phase in PHASES:
        seen, planned = run["phases"].get(phase), run["planned_phases_mib"].get(phase)
        if seen is None:
            cells.append("")
            continue
        over = planned is not None and seen["rss"] > planned
        said = f"{seen['anonymous']:.0f} + {seen['file']:.0f}" + (f" of {planned:.0f}" if planned else "")
        cells.append(f"**{said}**" if over else said)
    kept = "kept" if run["peak_mib"] <= run["planned_mib"] else "**broken**"
    whole = (f"{run[which]:.1f}" for which in ("peak_mib", "reported_mib", "planned_mib"))
    return [*cells, *whole, kept]


def _plan(plan: dict[str, Any]) -> list[str]:
    return [_tower_said(plan["image"]), _tower_said(plan["text"]), str(plan["chunk_rows"])]


def _tower_said(tower: dict[str, Any]) -> str:
    return f"{tower['mode']}, {tower['group']} a run, {tower['together']} a pass"


def targets(results: dict[str, Any]) -> Iterator[tuple[str, float, int]]:
    """(what, MiB found, MiB at most)."""
    for row in results["rows"]:
        what, tuned = _row_label(row), row.get("tune")
        limit = 160 if row["model"] == "ViT-L-14" else DEFAULT_MIB
        if tuned:
            yield f"{what}: peak", tuned["peak_mib"], limit
        if row["model"] == "ViT-B-16" and row["classes"] == 10:
            wanted = 112 if row["weights"] == "fp32" else 96
            yield f"{what}: smallest budget", row["smallest_mib"], wanted
            if "at_the_smallest" in row:
                seen = row["at_the_smallest"]["peak_mib"]
                yield f"{what}: peak within the smallest budget", seen, row["smallest_mib"]
        for key in ("with_sharpness", "edge", "head"):
            if key in row:
                yield f"{what}{RUNS[key]}: peak", row[key]["peak_mib"], limit


if __name__ == "__main__":
    if sys.argv[1:2] == ["--sampled"]:
        tune_with_sampled_pictures()
    elif sys.argv[1:2] == ["--torch"]:
        run_torch(sys.argv[2], int(sys.argv[3]))
    else:
        main()
