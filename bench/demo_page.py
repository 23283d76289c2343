"""Collect what the demo model's recipe left in its work folder, and write docs/demo-model.md.

    python bench/demo_page.py --work DIR

Writes bench/results/demo_model.json and the page. Measures nothing itself: see export/demo_model.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from machine import ROOT, describe_machine, one_line

RESULTS = ROOT / "bench" / "results" / "demo_model.json"
PAGE = ROOT / "docs" / "demo-model.md"
STYLES = {"test": "Twemoji", "test_line_art": "line art", "test_high_contrast": "high contrast"}
METHODS = {
    "zero_shot": "zero-shot",
    "linear_probe": "linear probe",
    "coop_w": "CoOp in w",
    "coop_context": "CoOp in the context",
}
ENOUGH = 12  # pictures of a class to test on; fewer are said
AWKWARD = "subgroups"  # how the names of tasks begin whose classes are Unicode's own
SHIFTED_PACKAGES = {"line art": "openmoji", "high contrast": "@iconify-json/fluent-emoji-high-contrast"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="the recipe's work folder")
    results = collect(parser.parse_args().work)
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(page(json.loads(RESULTS.read_text(encoding="utf-8"))), encoding="utf-8")


# The results --------------------------------------------------------------------------------------


def collect(work: Path) -> dict[str, Any]:
    """Everything that the page says, from the files of the work folder."""
    return {
        "machine": describe_machine(),
        "packages": _packages(),
        "pictures": _pictures(work),
        "training": {
            "pictures": _last_line(work / "picture_tower" / "training_pictures.jsonl"),
            "words": _last_line(work / "model" / "training_words.jsonl"),
        },
        "bundle": _bundle(work / "bundle"),
        "tasks": _tasks(work),
    }


def _packages() -> list[dict[str, str]]:
    sys.path.insert(1, str(ROOT / "export"))
    from demo_model.download import PACKAGES  # the recipe is no installed package

    return [
        {"name": p.name, "version": p.version, "licence": p.licence, "pictures_by": p.pictures_by}
        for p in PACKAGES
    ]


def _pictures(work: Path) -> dict[str, Any]:
    from demo_model.emoji import read_emoji
    from demo_model.render import STYLES as RENDERED
    from demo_model.render import TRAINING_STYLES
    from demo_model.split import held_out_designs

    emoji = read_emoji(work / "npm" / "node_modules")
    held = held_out_designs(emoji)
    design = {e.hexcode: e.design for e in emoji}
    table = json.loads((work / "pictures" / "pictures.json").read_text(encoding="utf-8"))
    trained = [design[hexcode] for hexcode, style in table if style in TRAINING_STYLES]
    trained = [d for d in trained if d not in held]
    count = Counter(style for _, style in table)
    return {
        "emoji": len(emoji),
        "designs": len(set(design.values())),
        "designs_held_out": len(held),
        "styles_trained_on": [style for style in RENDERED if style in TRAINING_STYLES],
        "by_style": {style: count[style] for style in RENDERED},
        "trained_on": len(trained),
        "designs_trained_on": len(set(trained)),
    }


def _last_line(path: Path) -> dict[str, float]:
    figures: dict[str, float] = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])
    return figures


def _bundle(folder: Path) -> dict[str, Any]:
    manifest = (folder / "manifest.json").read_bytes()
    said = json.loads(manifest)
    return {
        "sha256": hashlib.sha256(manifest).hexdigest(),
        "bytes": sum(path.stat().st_size for path in folder.iterdir()),
        "token_rows": _token_rows(folder),
        "parity": said["parity"],
    }


def _token_rows(folder: Path) -> int:
    import numpy as np

    return len(np.load(folder / "token_embedding.npy", mmap_mode="r"))


def _tasks(work: Path) -> dict[str, Any]:
    """measure.json, with the numbers of pictures a class."""
    measured = json.loads((work / "measure.json").read_text(encoding="utf-8"))
    sizes = json.loads((work / "tasks" / "tasks.json").read_text(encoding="utf-8"))
    if measured.keys() != sizes.keys():
        raise SystemExit(
            f"measure.json has the tasks {', '.join(measured)}; tasks/ has {', '.join(sizes)}. "
            "Remove measure.json and run the recipe again"
        )
    return {
        task: measured[task] | {"pictures_by_class": sizes[task]["classes"], "bytes": _bytes(work, task)}
        for task in measured
    }


def _bytes(work: Path, task: str) -> int:
    """Of the part that may be shipped."""
    folder = work / "tasks" / task
    return sum(p.stat().st_size for split in ("train", "test") for p in (folder / split).rglob("*.png"))


# The page -----------------------------------------------------------------------------------------


def page(results: dict[str, Any]) -> str:
    machine = results["machine"]
    parts = [
        "# The embedded demo model",
        "Generated by `make ship-demo-model` from what `make demo-model` measured.",
        "A small CLIP of open_clip's own classes, trained from nothing on openly licensed emoji pictures, so "
        "that a first run needs no download. It knows emoji and little else.",
        one_line(machine),
        "## Tasks",
        "Pictures to tune on and to test on are in a style that the model never saw (Twemoji); those to test "
        "on are of emoji that it never saw in any style. The two shifts show the same test emoji in two more "
        "styles it never saw. Accuracy in percent, mean and standard deviation over "
        f"{_n_seeds(results)} draws of up to 16 shots a class; `w` has 512 numbers. The last two columns are "
        "tuned by back-propagation, which the device does without: they say what there is to gain.",
        task_table(results["tasks"]),
        _about(results["tasks"]),
        "`make demo-tasks WORK=folder` renders them all, without torch; "
        f"`{next(iter(results['tasks']))}` in Twemoji's style is shipped.",
        "## What was learnt",
        "\n".join(f"- {fact}" for fact in facts(results)),
        "## How it is made",
        "\n".join(f"{i}. {step}" for i, step in enumerate(_steps(results), 1)),
        "## Sources and licences",
        _sources(results),
    ]
    return "\n\n".join(parts) + "\n"


def task_table(tasks: dict[str, Any]) -> str:
    """A row for a task and style, a column for a method."""
    columns = ("task", "classes", "shots", "test pictures (least of a class)", "style", *METHODS.values())
    lines = [
        f"| {' | '.join(columns)} |",
        "|---" * len(columns) + "|",
    ]
    for name, task in tasks.items():
        for split, style in STYLES.items():
            tested = f"{task['pictures'][split]} ({task['least_test']})"
            about = (
                [name, f"{task['classes']}", f"{task['shots']:g}", tested] if split == "test" else [""] * 4
            )
            cells = [_cell(task["accuracy"][method][split]) for method in METHODS]
            lines.append(f"| {' | '.join([*about, style, *cells])} |")
    return "\n".join(lines)


def _cell(figures: list[float]) -> str:
    return f"{fmean(figures):.1f}" + (f" ± {stdev(figures):.1f}" if len(figures) > 1 else "")


def _n_seeds(results: dict[str, Any]) -> int:
    return len(next(iter(results["tasks"].values()))["accuracy"]["coop_w"]["test"])


def _about(tasks: dict[str, Any]) -> str:
    lines = []
    for name, task in tasks.items():
        few = {k: n for k, n in task["pictures_by_class"].items() if n[1] < ENOUGH}
        short = f" {len(few)} of its classes have fewer than {ENOUGH} pictures to test on" if few else ""
        if 0 < len(few) <= 3:
            each = [f"{k} has {sum(n)} designs, {n[0]} of them to tune on" for k, n in few.items()]
            short += f": {', '.join(each)}"
        lines.append(f"- `{name}`: {task['about']}.{short}{'.' if short else ''}")
    return "\n".join(lines)


def facts(results: dict[str, Any]) -> list[str]:
    """What the table says, in sentences."""
    tasks = results["tasks"]
    plain = [name for name in tasks if not name.startswith(AWKWARD)]

    def change(name: str, method: str, split: str = "test", before: str = "zero_shot") -> str:
        accuracy = tasks[name]["accuracy"]
        return f"{fmean(accuracy[method][split]) - fmean(accuracy[before][split]):+.1f}"

    def changes(names: list[str], *arguments: str) -> str:
        return ", ".join(f"{change(name, *arguments)} on {name}" for name in names)

    awkward = [name for name in tasks if name not in plain]
    every = list(tasks)
    return [
        f"What tuning gains where class names are awkward: CoOp in w against zero-shot, "
        f"{changes(awkward, 'coop_w')}. Where they are plain words: {changes(plain, 'coop_w')}.",
        "What 512 numbers cannot reach: CoOp in the whole context against CoOp in w, "
        f"{changes(every, 'coop_context', 'test', 'coop_w')}.",
        "A prompt or a classifier of features alone: CoOp in w against the linear probe, "
        f"{changes(every, 'coop_w', 'test', 'linear_probe')}; "
        f"in line art {changes(every, 'coop_w', 'test_line_art', 'linear_probe')}; "
        f"in high contrast {changes(every, 'coop_w', 'test_high_contrast', 'linear_probe')}.",
        "What remains of the gain in styles not tuned on: CoOp in w against zero-shot "
        f"in line art, {changes(every, 'coop_w', 'test_line_art')}; "
        f"in high contrast, {changes(every, 'coop_w', 'test_high_contrast')}.",
    ]


def _steps(results: dict[str, Any]) -> list[str]:
    pictures, training, bundle = results["pictures"], results["training"], results["bundle"]
    seen, read = training["pictures"], training["words"]
    parity = max(bundle["parity"].values())
    first = next(iter(results["tasks"].values()))
    return [
        f"Download: {len(results['packages'])} npm packages at pinned versions, their licences checked.",
        f"Render: {sum(pictures['by_style'].values()):,} pictures of {pictures['emoji']:,} emoji at 64 x 64 "
        f"in {len(pictures['by_style'])} styles ("
        + ", ".join(f"{style} {n:,}" for style, n in pictures["by_style"].items())
        + ").",
        f"Split: {pictures['designs_held_out']} of {pictures['designs']:,} designs (what an emoji shares "
        "with its variants of gender and direction) are held out in every style, 40 % of every subgroup that "
        f"is large enough, and {len(STYLES)} styles altogether. Left to train on: {pictures['trained_on']:,} "
        f"pictures of {pictures['designs_trained_on']:,} designs.",
        "Tasks: sorted by subgroup, or by words that are said of an emoji; what belongs to two classes of a "
        "task belongs to none; a training picture nearly like a test picture is left out.",
        f"Picture tower: {seen['step']:,} steps in {seen['minutes']:.0f} minutes, "
        "seed 0, against free vectors of labels, keywords and categories. The nearest mean of known emoji "
        f"then sorts {seen['nearest_mean']} % of the larger subgroups' held-out emoji rightly.",
        f"Text tower: {read['step']:,} steps in {read['minutes']:.0f} minutes, seed 0, contrastively, the "
        "picture tower fixed. Unicode's subgroup names are in no caption.",
        f"Bundle: {bundle['token_rows']:,} token rows, {bundle['bytes'] / 2**20:.1f} MiB; unit features "
        f"differ from torch's by {parity:.1e} at most. With the shipped task's pictures: "
        f"{(bundle['bytes'] + first['bytes']) / 2**20:.1f} MiB.",
        "Measure: the table above.",
    ]


def _sources(results: dict[str, Any]) -> str:
    drawn = [p for p in results["packages"] if p["pictures_by"]]
    words = [p for p in results["packages"] if not p["pictures_by"]]
    lines = [f"- {p['pictures_by']}. npm: {p['name']} {p['version']}." for p in drawn]
    lines += [f"- Labels and keywords: {p['name']} {p['version']}, {p['licence']}." for p in words]
    shifts = " and ".join(f"{package} ({style})" for style, package in SHIFTED_PACKAGES.items())
    return (
        "\n".join(lines) + f"\n\nThe tasks show emoji-datasource-twitter; their shifts {shifts}, which are "
        "rendered on demand and not shipped. The network holds no picture."
    )


if __name__ == "__main__":
    main()
