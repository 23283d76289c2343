"""Results as lines for people. Nothing here computes anything."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .run.progress import duration
from .wording import counted

if TYPE_CHECKING:
    from .clip.bundle import Bundle
    from .clip.manifest import Manifest
    from .commands.demo import DemoResult
    from .commands.doctor import Check
    from .commands.evaluate import EvaluateResult
    from .commands.inspect import Inspection
    from .commands.predict import Prediction
    from .commands.preview import Preview
    from .memory.plan import Plan
    from .tuning.result import TuneResult
    from .tuning.tuned_prompt import TunedPrompt

# Controls, and marks that turn the direction of writing: a file's name may hold them.
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
MOST_NAMES = 12  # classes that a line names


def printable(line: str) -> str:
    """The same line, with an escape in place of what would move the cursor or break the line."""
    return UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], line)


def percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def export_lines(bundle: Bundle, cosine_ending: str) -> list[str]:
    """cosine_ending: of the names of parity figures that are cosines, and not differences"""
    manifest, folder = bundle.manifest, bundle.folder
    return [
        f"wrote {folder}: {manifest.model}, {_megabytes(manifest)} MB",
        "largest differences from torch:",
        *(
            f"  {stage.replace('_', ' '):32}{value:{'.5f' if stage.endswith(cosine_ending) else '.1e'}}"
            for stage, value in manifest.parity.items()
        ),
        f"copy the folder to the board, then: sharpzo-edge tune --bundle {folder} --images DIR "
        f"--output prompt.safetensors",
    ]


def tune_lines(result: TuneResult, bundle: Path, is_repeated: bool) -> list[str]:
    validated, head, output = result.val_accuracy, result.head, result.prompt
    lines = [
        f"{output} is finished already" if is_repeated else f"wrote {output}",
        f"  loss on the shots   {result.zero_shot_train_loss:.4f} -> {result.train_loss:.4f}",
        f"  accuracy there      {percent(result.train_accuracy)}"
        + ("" if validated is None else f", on validation pictures {percent(validated)}"),
        f"  queries             {result.queries:,} ({result.opening_queries} to begin with, "
        f"{result.stage1_queries:,} in stage 1, {result.stage2_queries:,} in stage 2); "
        f"{'the last' if validated is None else 'the best'} after {result.best_queries:,}",
        f"  stopped             {result.stopped}",
    ]
    if head:
        lines.append(
            f"  head                {head.kind}, weight {head.weight:g}; prompt and head together on "
            f"validation pictures {percent(head.val_accuracy)}"
        )
    return [
        *lines,
        f"  tuning, peak memory {result.seconds:.1f} s, {result.peak_rss_mib:.0f} MiB",
        f"next: sharpzo-edge predict --bundle {bundle} --prompt {output} PICTURE",
    ]


def plan_lines(plan: Plan) -> list[str]:
    """How the towers run, and what every phase may take."""
    towers = [
        f"{name} tower {tower.mode}, {tower.micro_batch} {what} a run, {tower.batch} a pass"
        for name, what, tower in (
            ("image", "pictures", plan.image.tower),
            ("text", "candidates", plan.text.tower),
        )
    ]
    phases = ", ".join(f"{name} {mib:.0f}" for name, mib in plan.phases.items())
    rank, kept = plan.sketch.rank, plan.sketch.kept_rounds
    sketch = [f"sketches of {rank} directions, and those of {kept} rounds before"] if rank else []
    return [*towers, *sketch, f"memory at most {plan.peak_mib:.0f} MiB ({phases})"]


def preview_lines(result: Preview) -> list[str]:
    return [
        *plan_lines(result.plan),
        f"{counted(result.pictures, 'picture')} at {result.pictures_per_second:.1f} a second, "
        f"{counted(result.queries, 'query')} at {result.queries_per_second:.1f} a second: "
        f"about {duration(result.seconds)} in the towers, decoding and arithmetic aside",
    ]


def evaluate_lines(result: EvaluateResult, is_zero_shot: bool) -> list[str]:
    width = max(len(name) for name in result.per_class)
    return [
        *(f"{name:{width}}  {100 * value:5.1f} %" for name, value in result.per_class.items()),
        f"accuracy {percent(result.accuracy)} on {counted(result.n_images, 'picture')}, "
        f"{counted(result.n_classes, 'class')}{', zero-shot' if is_zero_shot else ''}",
    ]


def prediction_line(found: Prediction) -> str:
    named = zip(found.labels, found.scores, strict=True)
    labels = ", ".join(f"{name} {percent(score)}" for name, score in named)
    return printable(f"{found.image}: {labels}")


def inspect_lines(result: Inspection) -> list[str]:
    from .clip.bundle import Bundle

    found = result.found
    if isinstance(found, Bundle):
        return _bundle_lines(result.path, found)
    return _prompt_lines(result.path, found)


def _bundle_lines(path: Path, bundle: Bundle) -> list[str]:
    m = bundle.manifest
    return [
        f"bundle {path}: {m.model}, weights {m.pretrained or 'random'} ({m.weights}), {_megabytes(m)} MB",
        f"  text tower    {m.text.layers} layers, {m.text.width} wide, {m.text.heads} heads, "
        f"{m.text.context_length} positions",
        f"  image tower   {m.image.kind}, {m.preprocess.size[1]} x {m.preprocess.size[0]} pixels",
        f"  features      {m.embed_dim} wide, logit scale {m.logit_scale:.2f}",
        f"  parity        {m.largest_difference:.1e} at most, found at export",
        f"  checksum      {bundle.checksum}",
    ]


def _prompt_lines(path: Path, prompt: TunedPrompt) -> list[str]:
    about, names = prompt.about, prompt.class_names
    head = about.get("head")
    return [
        f"prompt {path}: {counted(len(names), 'class')}, {counted(len(prompt.context), 'context vector')}",
        f"  classes       {', '.join(names[:MOST_NAMES])}{', …' * (len(names) > MOST_NAMES)}",
        f"  tuned on      {about['model']}, bundle {about['bundle'][:12]}…",
        f"  how           preset {about['settings'].get('preset')}, seed {about['seed']}, "
        f"{counted(about['queries'], 'query')}, loss {about['train_loss']:.4f}",
        *([f"  head          {head['kind']}, weight {head['weight']:g}"] if head else []),
    ]


def doctor_lines(checks: Sequence[Check]) -> list[str]:
    return [f"{'ok ' if check.ok else 'BAD'}  {check.name:12} {check.found}" for check in checks]


def demo_lines(result: DemoResult) -> list[str]:
    """A table that a newcomer understands."""
    rows = [
        ("accuracy, zero-shot", percent(result.zero_shot_accuracy)),
        ("accuracy, tuned", percent(result.tuned_accuracy)),
        ("queries (text-tower passes)", f"{result.queries:,}"),
        ("  of them to begin with", f"{result.opening_queries:,}"),
        ("  of them in stage 1", f"{result.stage1_queries:,}"),
        ("  of them in stage 2", f"{result.stage2_queries:,}"),
        ("time", duration(result.seconds)),
        ("peak memory (RSS)", f"{result.peak_rss_mib:.0f} MiB"),
    ]
    return [
        f"{result.n_images} held-out pictures, {result.n_classes} classes",
        *(f"  {name:29}{value:>10}" for name, value in rows),
    ]


def _megabytes(manifest: Manifest) -> int:
    return round(sum(file.size for file in manifest.files.values()) / 1e6)
