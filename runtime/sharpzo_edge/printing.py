"""Results as lines for people. Nothing here computes anything."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .run.progress import duration
from .wording import NAMED, counted, percent, printable

if TYPE_CHECKING:
    from datetime import date

    from .clip.bundle import Bundle
    from .clip.manifest import Manifest
    from .commands.classifier import Prediction
    from .commands.demo import DemoResult
    from .commands.doctor import Check
    from .commands.evaluate import CalledNone, EvaluateResult
    from .commands.figures import Figures
    from .commands.inspect import Inspection
    from .commands.preview import Preview
    from .fleet.demo import FleetDemoResult
    from .fleet.tune import FleetResult
    from .memory.plan import Plan
    from .requests import AnyPath
    from .tuning.result import DoubtfulPicture, TuneResult
    from .tuning.tuned_prompt import TunedPrompt

# From half to all of the pictures the head has gained so much: then more of them are likely to help.
HELPS = 0.02
MOST_NAMES = 12  # classes that a line names
ROUND_OFF = 1e-9  # 1 / 0.05 may be a little more than 20


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


def classifier_lines(written: Mapping[str, Any]) -> list[str]:
    """written: what `classifier` gives as JSON"""
    labels, parity = counted(len(written["labels"]), "label"), dict(written["parity"])
    rounding = parity.pop("rounding", None)
    return [
        f"wrote {written['classifier']}: {labels}, {NAMED[written['use']]}, {written['weights']}, "
        f"{written['n_bytes'] / 1e6:,.1f} MB",
        "largest differences of a probability from predict's:",
        *(f"  {stage.replace('_', ' '):32}{value:.1e}" for stage, value in parity.items()),
        *([] if rounding is None else [f"  {'rounding the weights':32}{rounding:.1e} (no defect)"]),
        "how to use it in Python and in a browser: docs/one-file.md",
    ]


def tune_lines(result: TuneResult, bundle: Path, is_repeated: bool) -> list[str]:
    output = result.prompt
    return [
        f"{output} is finished already" if is_repeated else f"wrote {output}",
        *([] if result.stage1_queries + result.stage2_queries == 0 else _tuning_lines(result)),
        f"  tuning, peak memory {result.seconds:.1f} s, {result.peak_rss_mib:.0f} MiB",
        *_worth_lines(result),
        *_none_lines(result),
        *_enough_lines(result),
        *_doubtful_lines(result.doubtful),
        f"predict and eval will use {NAMED[result.use]}{'; --use takes another' * (result.head is not None)}",
        f"next: sharpzo-edge predict --bundle {bundle} --prompt {output} PICTURE",
    ]


def _tuning_lines(result: TuneResult) -> list[str]:
    validated = result.val_accuracy
    return [
        f"  loss on the shots   {result.zero_shot_train_loss:.4f} -> {result.train_loss:.4f}",
        f"  accuracy there      {percent(result.train_accuracy)}"
        + ("" if validated is None else f", on validation pictures {percent(validated)}"),
        f"  queries             {result.queries:,} ({result.opening_queries} to begin with, "
        f"{result.stage1_queries:,} in stage 1, {result.stage2_queries:,} in stage 2); "
        f"{'the last' if validated is None else 'the best'} after {result.best_queries:,}",
        f"  stopped             {result.stopped}",
    ]


def _worth_lines(result: TuneResult) -> list[str]:
    """What each way to label is worth, on pictures that it has not learnt from."""
    lines = [f"  {'accuracy':18}{'left out':>14}{'of classes':>14}{'validation':>14}"]
    for use, name in NAMED.items():
        left_out, covered, validated = (
            getattr(found, use) for found in (result.left_out, result.covered, result.validated)
        )
        is_used = use == result.use
        if left_out is None and not is_used:
            continue
        if use in ("prompt", "both") and left_out is not None:  # the same pictures as in the last column
            lines.append(f"  {name:18}{'':>28}{_measured(validated)}")
        else:
            lines.append(f"  {name:18}{_measured(left_out)}{_measured(covered, 0)}{_measured(validated)}")
    return [*lines, *_coverage_lines(result)]


def _coverage_lines(result: TuneResult) -> list[str]:
    share = result.covered.prompt
    if share is None or share == 1:
        return []
    return [f"  {percent(share, 0)} of the classes have validation pictures"]


def _measured(fraction: float | None, digits: int = 1) -> str:
    return f"{'not measured' if fraction is None else percent(fraction, digits):>14}"


def _none_lines(result: TuneResult) -> list[str]:
    """When a picture is called none of the classes."""
    found = result.none
    if found is None:
        return []
    if found.threshold is None:
        needed = counted(math.ceil(1 / found.share - ROUND_OFF) - 1, "left-out picture")
        there = f"{'is' if found.pictures == 1 else 'are'} {found.pictures}"
        return [
            f"no picture is called none of the classes: --none {found.share:g} needs {needed}, "
            f"and there {there}"
        ]
    line = f"at most {100 * found.share:g} % of left-out pictures are called none of the classes"
    if found.strangers is None:
        return [line]
    return [f"{line}, and {percent(found.strangers, 0)} of strangers (each class left out in turn)"]


def _enough_lines(result: TuneResult) -> list[str]:
    """Whether more pictures are likely to help."""
    now, before = result.left_out.head, result.by_halves
    if now is None or before is None or now == 1:
        return []
    is_gain = now - before > HELPS
    helps = "more pictures are likely to help" if is_gain else "whether more pictures help is not clear"
    return [f"with half of the pictures the head has {percent(before)}: {helps}"]


def _doubtful_lines(doubtful: Sequence[DoubtfulPicture]) -> list[str]:
    if not doubtful:
        return []
    return [
        "pictures that look least like their label; is each labelled rightly?",
        *(f"  {each.image}: looks like {each.answer}" for each in doubtful),
    ]


# How a text tower computes them, by its plan's tangents.
DERIVATIVES = {
    "int8": "tangents, products in 8 bits",
    "fp32": "tangents, products in float32",
    None: "differences of class features",
}


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
    if rank:
        sketch.append(f"derivatives along directions: {DERIVATIVES[plan.text.tangents]}")
    return [*towers, *sketch, f"memory at most {plan.peak_mib:.0f} MiB ({phases})"]


def preview_lines(result: Preview) -> list[str]:
    ends_early = result.likely_queries < result.queries
    most = f"{'at most ' * ends_early}{counted(result.queries, 'query')}"
    lines = [
        *plan_lines(result.plan),
        f"{counted(result.pictures, 'picture')} at {result.pictures_per_second:.1f} a second, "
        f"{most} at {result.queries_per_second:.1f} a second: "
        f"about {duration(result.seconds)} in the towers, decoding and arithmetic aside"
        f"{f', by figures of {result.board}' if result.board else ''}",
    ]
    if ends_early:
        lines.append(
            f"more likely {counted(result.likely_queries, 'query')}, "
            f"about {duration(result.likely_seconds)}: the run ends when it no longer improves"
        )
    return lines


def evaluate_lines(result: EvaluateResult, is_zero_shot: bool) -> list[str]:
    width = max(len(name) for name in result.per_class)
    ways = {use: value for use, name in NAMED.items() if (value := getattr(result.by, use)) is not None}
    table = [
        f"  {NAMED[use]:17}{percent(value)}{'  in use' * (use == result.use)}" for use, value in ways.items()
    ]
    return [
        *(f"{name:{width}}  {100 * value:5.1f} %" for name, value in result.per_class.items()),
        *(table if len(table) > 1 else []),
        *_called_none_lines(result.none),
        f"accuracy {percent(result.accuracy)} on {counted(result.n_images, 'picture')}, "
        f"{counted(result.n_classes, 'class')}{', zero-shot' if is_zero_shot else ''}",
    ]


def _called_none_lines(found: CalledNone | None) -> list[str]:
    if found is None:
        return []
    of_known = f"{percent(found.called_none)} of these pictures"
    of_strangers = ""
    if found.strangers is not None:
        of_strangers = f", {percent(found.strangers)} of {counted(found.n_strangers, 'stranger')}"
    return [f"  {'called none':17}{of_known}{of_strangers}, with --none {found.share:g}"]


def prediction_line(found: Prediction) -> str:
    named = zip(found.labels, found.scores, strict=True)
    labels = ", ".join(f"{name} {percent(score)}" for name, score in named)
    return printable(f"{found.image}: {'none of them; ' * found.none}{labels}")


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
    from .tuning.tuned_prompt import threshold_of, without_threshold

    about, names = prompt.about, prompt.class_names
    threshold = threshold_of(None, prompt.use, prompt, path)
    if threshold is None:
        none = f"nothing: {without_threshold(prompt.use, prompt)}"
    else:
        none = f"below a logit of {threshold:.2f}, at most {100 * prompt.none:g} % of left-out pictures"
    heads = [f"{use} {head['kind']}" for use, head in about.get("heads", {}).items()]
    return [
        f"prompt {path}: {counted(len(names), 'class')}, {counted(len(prompt.context), 'context vector')}",
        f"  classes       {', '.join(names[:MOST_NAMES])}{', …' * (len(names) > MOST_NAMES)}",
        f"  tuned on      {about['model']}, bundle {about['bundle'][:12]}…",
        f"  how           preset {about['settings'].get('preset')}, seed {about['seed']}, "
        f"{counted(about['queries'], 'query')}, loss {about['train_loss']:.4f}",
        *([f"  heads         {', '.join(heads)}"] if heads else []),
        f"  answers by    {', '.join(prompt.uses)}; in use: {prompt.use}",
        f"  none of them  {none}",
    ]


def doctor_lines(checks: Sequence[Check]) -> list[str]:
    """A line for each check, and a verdict."""
    lines = [f"{'ok ' if check.ok else 'BAD'}  {check.name:12} {check.found}" for check in checks]
    n_bad = sum(not check.ok for check in checks)
    return [*lines, f"{counted(n_bad, 'thing')} to put right first" if n_bad else "this machine can run it"]


def milliseconds(seconds: float | None) -> str:
    """Or that there is no such figure."""
    return "none" if seconds is None else f"{1000 * seconds:,.1f} ms"


def figures_lines(found: Figures) -> list[str]:
    """A table of what was measured on a board."""
    read = f"{found.read_bytes_a_second / 1e6:,.0f} MB a second"
    celsius = [
        "not told" if each is None else f"{each:.0f} °C"
        for each in (found.celsius_before, found.celsius_after)
    ]
    rows = (
        ("board", found.board),
        ("a query of 10 classes", milliseconds(found.query_seconds)),
        ("a direction", milliseconds(found.direction_seconds)),
        ("a picture", milliseconds(found.picture_seconds)),
        ("peak memory, planned", f"{found.peak_rss_mib:.0f} MiB, {found.planned_mib:.0f} MiB"),
        ("reading", f"{read}, {'the disk' if found.read_is_cold else 'the page cache'}"),
        ("before, after", ", ".join(celsius)),
        ("load before", f"{found.load:.1f} on {counted(found.cores, 'core')}"),
    )
    return [f"  {name:24}{value}" for name, value in rows]


def demo_lines(result: DemoResult) -> list[str]:
    """A table that a newcomer understands."""
    rows = [
        ("accuracy of the words alone", percent(result.zero_shot_accuracy)),
        ("  of the tuned prompt", percent(result.tuned_accuracy)),
        *(
            (f"  {name}", percent(value))
            for name, value in (("of the head", result.by.head), ("of prompt and head", result.by.both))
            if value is not None
        ),
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


def scheduler_lines(address: str, certificates: AnyPath | None) -> list[str]:
    """certificates: their folder, where there are any"""
    shown = "" if certificates is None else f" --certificates {certificates}"
    return [
        f"the scheduler is at {address}; Ctrl+C ends it",
        f"next: sharpzo-edge fleet member --images DIR --bundle BUNDLE --scheduler {address}{shown}",
    ]


def certificates_lines(folder: Path, until: date) -> list[str]:
    return [
        f"wrote {folder}, good until {until}",
        "copy it to every machine of the fleet, and to no other: whoever has it can run programs there",
        f"then add --certificates {folder} to fleet scheduler, member and tune",
    ]


def fleet_lines(result: FleetResult, bundle: Path, is_repeated: bool) -> list[str]:
    members = [
        f"  {member.name}: {counted(member.train, 'picture')} to tune on, {member.val} to validate"
        + ("" if member.counted else "; it was lost, and does not count at the end")
        for member in result.members
    ]
    said = f"{counted(len(members), 'member')}, {counted(result.round_trips, 'round trip')}"
    return [*tune_lines(result.tuned, bundle, is_repeated), f"{said}, {result.bytes / 1e6:.1f} MB", *members]


def fleet_demo_lines(result: FleetDemoResult) -> list[str]:
    """The fleet beside all pictures in one place."""
    rows = [
        ("accuracy on held-out pictures", percent(result.accuracy), percent(result.pooled_accuracy)),
        ("loss on the shots", f"{result.train_loss:.4f}", f"{result.pooled_train_loss:.4f}"),
    ]
    return [
        f"  {'':31}{counted(result.members, 'member'):>12}{'in one place':>16}",
        *(f"  {name:31}{of_fleet:>12}{pooled:>16}" for name, of_fleet, pooled in rows),
        f"{counted(result.queries, 'query')} in {duration(result.seconds)}, "
        f"{counted(result.round_trips, 'round trip')}, {result.bytes / 1e6:.1f} MB",
    ]


def page_lines(url: str, token: str | None, qr_code: str) -> list[str]:
    """Where the page is. With a token: also as a QR code, for a phone."""
    if token is None:
        return [f"the page is at {url}", "it is for this machine alone; Ctrl+C ends it"]
    return [
        *qr_code.splitlines(),
        f"the page is at {url}",
        "whoever has this address may label and tune; on this network it can be overheard; Ctrl+C ends it",
    ]


def _megabytes(manifest: Manifest) -> int:
    return round(sum(file.size for file in manifest.files.values()) / 1e6)
