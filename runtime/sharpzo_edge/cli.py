"""The command line: options, help, exit codes. No logic; every command imports what it needs itself."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

# Before numpy is imported anywhere: its own threads would cost memory and win nothing here.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import typer

from . import __version__
from .errors import InterruptedRunError, SharpzoError, UsageError
from .process_memory import DEFAULT_BUDGET, return_freed_blocks
from .run.files import CHECKPOINT_SECONDS, read_limited

if TYPE_CHECKING:
    from .clip.manifest import Manifest

# Typer carries its own click or uses the installed one, by version: this is its base of usage errors.
CLICK_ERROR: type[Any] = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="sharpzo-edge",
    help="Tune CLIP's prompt on a small board with forward passes alone.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

NAMES_LIMIT_BYTES = 4 << 20  # of the file after --classes

BundleOption = Annotated[Path, typer.Option("--bundle", help="Folder that export wrote.")]
ImagesOption = Annotated[Path, typer.Option("--images", help="Folder of pictures, one folder a class.")]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output, nothing else.")
]
ThreadsOption = Annotated[
    int, typer.Option("--threads", help="Threads of the towers; 0: one a physical core.")
]
BudgetOption = Annotated[
    str,
    typer.Option(
        "--memory-budget",
        help="The most memory that the process may ever hold, such as 128MiB; none: no limit.",
    ),
]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="Fail when a picture cannot be read, instead of passing it over.")
]
ClassNamesOption = Annotated[
    Path | None,
    typer.Option("--class-names", help="JSON object: folder name to the words to use."),
]


@app.command()
def export(
    model: Annotated[str, typer.Option(help="open_clip's model name, or local-dir:FOLDER.")],
    output: Annotated[Path, typer.Option(help="Folder to write the bundle to.")],
    pretrained: Annotated[
        str | None, typer.Option(help="open_clip's tag, a checkpoint file, or none.")
    ] = None,
    vocabulary: Annotated[Path | None, typer.Option(help="JSON list of the token ids to keep.")] = None,
    quickgelu: Annotated[
        bool | None,
        typer.Option("--quickgelu/--no-quickgelu", help="For checkpoint files: which GELU they want."),
    ] = None,
    weights: Annotated[
        str, typer.Option(help="Precision of the linear layers: fp32, int8 or int4; all else is fp32.")
    ] = "fp32",
    as_json: JsonOption = False,
) -> None:
    """Turn an open_clip model into a bundle (workstation; needs the extra [export]).

    Example: sharpzo-edge export --model ViT-B-16-quickgelu --pretrained openai --output vit-b-16
    """
    try:
        from sharpzo_export import write_bundle
    except ImportError as error:
        raise UsageError(
            f"Export needs torch and open_clip, and {error.name} is not installed here. They are for the "
            f"workstation only; a board that tunes does not need them. "
            f"In sharpzo-edge's own folder, type: pip install '.[export]'"
        ) from error
    from .clip.manifest import COSINE

    bundle, notes = write_bundle.export(
        model, pretrained, output, vocabulary=vocabulary, quick_gelu=quickgelu, weights=weights
    )
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    manifest = bundle.manifest
    result = {
        "bundle": str(output),
        "model": manifest.model,
        "pretrained": manifest.pretrained,
        "parity": manifest.parity,
        "notes": list(notes),
    }
    _print(
        as_json,
        result,
        [
            f"wrote {output}: {manifest.model}, {_megabytes(manifest)} MB",
            "largest differences from torch:",
            *(
                f"  {stage.replace('_', ' '):32}{value:{'.5f' if stage.endswith(COSINE) else '.1e'}}"
                for stage, value in manifest.parity.items()
            ),
            f"copy the folder to the board, then: sharpzo-edge tune --bundle {output} --images DIR "
            f"--output prompt.safetensors",
        ],
    )


@app.command()
def tune(
    bundle: BundleOption,
    images: ImagesOption,
    output: Annotated[Path, typer.Option(help="File to write the tuned prompt to.")],
    shots: Annotated[int, typer.Option(help="Pictures a class to tune on.")] = 16,
    val: Annotated[int, typer.Option(help="Further pictures a class to validate on.")] = 4,
    views: Annotated[
        int, typer.Option(help="Encode every shot so often: as it is, and as random parts of it.")
    ] = 1,
    preset: Annotated[
        str, typer.Option(help="Settings to begin with: edge; demo; paper, or paper:eurosat and its like.")
    ] = "edge",
    context_init: Annotated[
        str | None, typer.Option(help='Words that the context starts from: "a photo of a".')
    ] = None,
    context_tokens: Annotated[
        int | None, typer.Option(help="Start from so many random vectors instead.")
    ] = None,
    class_names: ClassNamesOption = None,
    head: Annotated[
        str, typer.Option(help="Add a head made of the shots' features: gda; its weight is by validation.")
    ] = "none",
    seed: Annotated[int, typer.Option(help="Decides the draw of shots and all randomness.")] = 0,
    max_queries: Annotated[int | None, typer.Option(help="Stop after so many queries.")] = None,
    max_minutes: Annotated[float | None, typer.Option(help="Stop after so many minutes of tuning.")] = None,
    patience: Annotated[
        str | None,
        typer.Option(help="Stop after so many looks of stage 2 without improvement; 0 or none: go on."),
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Start over; replace the output.")] = False,
    checkpoint_seconds: Annotated[
        float, typer.Option(help="Save the run so often; 0: after every batch of queries.")
    ] = CHECKPOINT_SECONDS,
    strict: StrictOption = False,
    threads: ThreadsOption = 0,
    memory_budget: BudgetOption = DEFAULT_BUDGET,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say how it would run and how long it would take, and stop.")
    ] = False,
    population: Annotated[int | None, typer.Option(help="Candidates a generation (S).")] = None,
    dim: Annotated[
        str | None,
        typer.Option(help="Size of the tuned vector w (d). edge also takes: context, to tune all of it."),
    ] = None,
    sigma0: Annotated[float | None, typer.Option(help="First step size of CMA-ES.")] = None,
    rho: Annotated[
        float | None, typer.Option(help="Radius of the sharpness-aware step; 0: plain CMA-ES.")
    ] = None,
    mu_cge: Annotated[float | None, typer.Option(help="paper: finite-difference step of sweeps.")] = None,
    mu_rge: Annotated[float | None, typer.Option(help="paper: finite-difference step of stage 2.")] = None,
    projection_std: Annotated[float | None, typer.Option(help="paper: spread of A's entries.")] = None,
    bounds: Annotated[str | None, typer.Option(help="paper: box [-b, b] for w in stage 1, or none.")] = None,
    covariance: Annotated[str | None, typer.Option(help="paper: full, diagonal or identity.")] = None,
    change_point: Annotated[str | None, typer.Option(help="Generations of stage 1 (T_c), or auto.")] = None,
    steps: Annotated[int | None, typer.Option(help="paper: generations and steps of stage 2 (T).")] = None,
    prune_interval: Annotated[
        int | None, typer.Option(help="Steps (edge: rounds) between two masks.")
    ] = None,
    prune_ratio: Annotated[
        float | None,
        typer.Option(help="Share of coordinates left out; 0: none. edge keeps no earlier rounds with it."),
    ] = None,
    eta: Annotated[float | None, typer.Option(help="paper: learning rate of stage 2.")] = None,
    rank: Annotated[int | None, typer.Option(help="edge: directions of a sketch in stage 2 (r).")] = None,
    kept_rounds: Annotated[
        int | None, typer.Option(help="edge: earlier rounds whose columns stay in the sketch.")
    ] = None,
    label_smoothing: Annotated[
        float | None, typer.Option(help="edge: share of the target spread over all classes in stage 2.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Tune a prompt on a folder of labelled pictures.

    The same command again goes on with a run that was interrupted, and repeats the result of a finished one.

    Example: sharpzo-edge tune --bundle vit-b-16 --images photos --output prompt.safetensors
    """
    from .commands.preview import preview
    from .commands.tune import tune_or_repeat
    from .tuning.presets import settings_for
    from .tuning.request import TuneRequest

    settings, notes = settings_for(
        preset,
        {
            "population": population,
            "dim": dim,
            "sigma0": sigma0,
            "rho": rho,
            "mu_cge": mu_cge,
            "mu_rge": mu_rge,
            "projection_std": projection_std,
            "bounds": bounds,
            "covariance": covariance,
            "change_point": change_point,
            "steps": steps,
            "prune_interval": prune_interval,
            "prune_ratio": prune_ratio,
            "patience": patience,
            "eta": eta,
            "rank": rank,
            "kept_rounds": kept_rounds,
            "label_smoothing": label_smoothing,
        },
    )
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    request = TuneRequest(
        bundle=bundle,
        images=images,
        output=output,
        settings=settings,
        shots=shots,
        val=val,
        context_init=context_init,
        context_tokens=context_tokens,
        class_names=class_names,
        seed=seed,
        max_queries=max_queries,
        max_minutes=max_minutes,
        threads=threads,
        memory_budget=memory_budget,
        restart=restart,
        checkpoint_seconds=checkpoint_seconds,
        strict=strict,
        head=head,
        views=views,
    )
    if plan:
        _print_preview(as_json, preview(request))
        return
    result, is_repeated = tune_or_repeat(request)
    _print(as_json, result, _tuned_lines(result, bundle, is_repeated))


def _tuned_lines(result: dict[str, Any], bundle: Path, is_repeated: bool) -> list[str]:
    made, validated, output = result["head"], result["val_accuracy"], result["prompt"]
    return [
        f"{output} is finished already" if is_repeated else f"wrote {output}",
        f"  loss on the shots   {result['zero_shot_train_loss']:.4f} -> {result['train_loss']:.4f}",
        f"  accuracy there      {100 * result['train_accuracy']:.1f} %"
        + ("" if validated is None else f", on validation pictures {100 * validated:.1f} %"),
        f"  queries             {result['queries']} ({result['stage1_queries']} in stage 1, "
        f"{result['stage2_queries']} in stage 2); "
        f"{'the last' if validated is None else 'the best'} after {result['best_queries']}",
        f"  stopped             {result['stopped']}",
        *(_head_lines(made) if made else []),
        f"  tuning, peak memory {result['seconds']:.1f} s, {result['peak_rss_mib']:.0f} MiB",
        f"next: sharpzo-edge predict --bundle {bundle} --prompt {output} PICTURE",
    ]


def _head_lines(made: dict[str, Any]) -> list[str]:
    return [
        f"  head                {made['kind']}, weight {made['weight']:g}; prompt and head together on "
        f"validation pictures {100 * made['val_accuracy']:.1f} %"
    ]


def _print_preview(as_json: bool, result: dict[str, Any]) -> None:
    from .run.progress import duration

    _print(
        as_json,
        {key: value for key, value in result.items() if key != "said"},
        [
            *result["said"],
            f"{result['pictures']} pictures at {result['pictures_per_second']:.1f} a second, "
            f"{result['queries']:,} queries at {result['queries_per_second']:.1f} a second: "
            f"about {duration(result['seconds'])} in the towers, decoding and arithmetic aside",
        ],
    )


@app.command(name="eval")
def evaluate(
    bundle: BundleOption,
    images: ImagesOption,
    prompt: Annotated[Path | None, typer.Option(help="Tuned prompt; without it: zero-shot.")] = None,
    classes: Annotated[
        str | None,
        typer.Option(help="Names to choose among: a,b,c, or a text file with one a line."),
    ] = None,
    class_names: ClassNamesOption = None,
    strict: StrictOption = False,
    threads: ThreadsOption = 0,
    memory_budget: BudgetOption = DEFAULT_BUDGET,
    as_json: JsonOption = False,
) -> None:
    """Measure the accuracy on a folder of labelled pictures.

    Example: sharpzo-edge eval --bundle vit-b-16 --images test --prompt prompt.safetensors
    """
    from .commands.evaluate import evaluate as run
    from .run.progress import Progress

    with Progress() as progress:
        result = run(
            bundle,
            images,
            progress,
            prompt_path=prompt,
            classes=_names(classes),
            class_names=class_names,
            threads=threads,
            memory_budget=memory_budget,
            strict=strict,
        )
    width = max(len(name) for name in result["per_class"])
    _print(
        as_json,
        result,
        [
            *(f"{name:{width}}  {100 * value:5.1f} %" for name, value in result["per_class"].items()),
            f"accuracy {100 * result['accuracy']:.1f} % on {result['n_images']} pictures, "
            f"{result['n_classes']} classes{'' if prompt else ', zero-shot'}",
        ],
    )


@app.command()
def predict(
    pictures: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures to label.")],
    bundle: BundleOption,
    prompt: Annotated[Path, typer.Option(help="Tuned prompt.")],
    top: Annotated[int, typer.Option(help="Labels a picture.")] = 5,
    threads: ThreadsOption = 0,
    memory_budget: BudgetOption = DEFAULT_BUDGET,
    as_json: JsonOption = False,
) -> None:
    """Label pictures with a tuned prompt.

    Example: sharpzo-edge predict --bundle vit-b-16 --prompt prompt.safetensors a.jpg b.jpg
    """
    from .commands.predict import predict as run
    from .run.progress import Progress

    with Progress() as progress:
        result = run(
            bundle, prompt, pictures, progress, top=top, threads=threads, memory_budget=memory_budget
        )
    _print(
        as_json,
        result,
        [
            f"{p['image']}: "
            + ", ".join(f"{n} {100 * s:.1f} %" for n, s in zip(p["labels"], p["scores"], strict=True))
            for p in result["predictions"]
        ],
    )


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="A bundle's folder or a tuned prompt.")],
    as_json: JsonOption = False,
) -> None:
    """Tell what a bundle or a tuned prompt is.

    Example: sharpzo-edge inspect prompt.safetensors
    """
    import dataclasses

    from .clip.bundle import Bundle
    from .tuning.tuned_prompt import load_prompt

    if path.is_dir():
        found = Bundle.open(path)
        m = found.manifest
        result = {"kind": "bundle", "checksum": found.checksum, **dataclasses.asdict(m)}
        lines = [
            f"bundle {path}: {m.model}, weights {m.pretrained or 'random'} ({m.weights}), {_megabytes(m)} MB",
            f"  text tower    {m.text.layers} layers, {m.text.width} wide, {m.text.heads} heads, "
            f"{m.text.context_length} positions",
            f"  image tower   {m.image.kind}, {m.preprocess.size[1]} x {m.preprocess.size[0]} pixels",
            f"  features      {m.embed_dim} wide, logit scale {m.logit_scale:.2f}",
            f"  parity        {m.largest_difference:.1e} at most, found at export",
            f"  checksum      {found.checksum}",
        ]
    else:
        tuned = load_prompt(path)
        about = tuned.about
        head = about.get("head")
        result = {"kind": "prompt", "context_shape": list(tuned.context.shape), **about}
        lines = [
            f"prompt {path}: {len(tuned.class_names)} classes, {tuned.context.shape[0]} context vectors",
            f"  classes       {', '.join(tuned.class_names[:12])}{', …' * (len(tuned.class_names) > 12)}",
            f"  tuned on      {about['model']}, bundle {about['bundle'][:12]}…",
            f"  how           preset {about['settings'].get('preset')}, seed {about['seed']}, "
            f"{about['queries']} queries, loss {about['train_loss']:.4f}",
            *([f"  head          {head['kind']}, weight {head['weight']:g}"] if head else []),
        ]
    _print(as_json, result, lines)


@app.command()
def doctor(
    bundle: Annotated[Path | None, typer.Option(help="Also check this bundle, every byte.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Check whether this machine can run it.

    Example: sharpzo-edge doctor --bundle vit-b-16
    """
    from .commands.doctor import doctor as run

    checks = run(bundle)
    ok = all(check.ok for check in checks)
    result = {"ok": ok, "checks": {c.name: {"ok": c.ok, "found": c.found} for c in checks}}
    _print(as_json, result, [f"{'ok ' if c.ok else 'BAD'}  {c.name:12} {c.found}" for c in checks])
    raise typer.Exit(0 if ok else 1)


@app.command()
def demo(
    seed: Annotated[int, typer.Option(help="Decides the draw of shots and all randomness.")] = 0,
    task: Annotated[str | None, typer.Option(help="Which of the shipped tasks.")] = None,
    threads: ThreadsOption = 0,
    memory_budget: BudgetOption = DEFAULT_BUDGET,
    as_json: JsonOption = False,
) -> None:
    """Tune the shipped small CLIP on shipped pictures, and show what it gained.

    Example: sharpzo-edge demo
    """
    from .demo import lines
    from .demo import run as run_demo

    result = run_demo(seed=seed, task=task, threads=threads, memory_budget=memory_budget)
    _print(as_json, result, lines(result))


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit()
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)


def _names(value: str | None) -> list[str] | None:
    """`a,b,c` or a text file with one name a line."""
    if value is None:
        return None
    try:
        is_file = Path(value).is_file()
    except OSError:  # longer than any file's name
        is_file = False
    try:
        text = read_limited(Path(value), NAMES_LIMIT_BYTES).decode() if is_file else value
    except (OSError, ValueError) as error:
        raise UsageError(
            f"The file {value} after --classes cannot be read ({error}). It must be UTF-8 text, one name a "
            f"line. Correct it, or give the names themselves: --classes a,b,c"
        ) from error
    names = [n.strip() for n in (text.splitlines() if is_file else text.split(","))]
    names = [n for n in names if n]
    if len(set(names)) < max(2, len(names)):
        no_file = "" if is_file or len(names) > 1 else ", and there is no file of that name"
        raise UsageError(
            f"--classes {value} names {len(set(names))} different classes in {len(names)} entries{no_file}. "
            f"It takes two or more, each once. Try --classes cat,dog"
        )
    return names


def _megabytes(manifest: Manifest) -> int:
    return round(sum(file.size for file in manifest.files.values()) / 1e6)


def _print(as_json: bool, result: dict[str, Any], lines: list[str]) -> None:
    text = json.dumps(result, ensure_ascii=False, allow_nan=False) if as_json else "\n".join(lines)
    try:
        print(text, flush=True)
    except OSError as error:
        raise SharpzoError(
            f"Cannot write the result to standard output: {error.strerror or error}. The work is done. "
            f"Standard output must be open and have room: type the same command again"
        ) from error


def _fail(error: SharpzoError | Exception, message: str, code: int) -> NoReturn:
    if os.environ.get("SHARPZO_DEBUG") == "1":
        import traceback

        traceback.print_exception(error)
    with contextlib.suppress(OSError):  # standard error or output may be what failed
        print(f"error: {message}", file=sys.stderr, flush=True)
    if "--json" in sys.argv:
        about = {"kind": type(error).__name__, "message": message, "exit_code": code}
        with contextlib.suppress(OSError):
            print(json.dumps({"error": about}, ensure_ascii=False), flush=True)
    sys.stdout = None  # nothing is left to flush at exit
    raise SystemExit(code)


def main() -> None:
    """The edge: every error becomes a sentence and an exit code; with SHARPZO_DEBUG=1 a traceback too."""
    return_freed_blocks()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # file names may be any bytes
    try:
        raise SystemExit(app(standalone_mode=False) or 0)
    except (typer.Abort, KeyboardInterrupt) as error:
        stopped = InterruptedRunError(
            "Interrupted by the keyboard. What was saved before is kept. Type the same command again",
            signal.SIGINT,
        )
        _fail(stopped.with_traceback(error.__traceback__), str(stopped), stopped.exit_code)
    except SharpzoError as error:
        _fail(error, str(error), error.exit_code)
    except CLICK_ERROR as error:
        text = f"{error.format_message().rstrip('.')}. Add --help to see what the command takes"
        _fail(UsageError(text).with_traceback(error.__traceback__), text, UsageError.exit_code)
    except MemoryError as error:
        text = (
            "No memory is left on this machine. The command needs more than there is, whatever its budget. "
            "Stop other programs, or lower --dim or the number of classes"
        )
        _fail(error, text, 1)
    except Exception as error:
        text = (
            f"Something went wrong that should not: {type(error).__name__}: {error}. This is a defect of "
            f"sharpzo-edge, please report it. SHARPZO_DEBUG=1 before the command shows where"
        )
        _fail(error, text, 1)


if __name__ == "__main__":
    main()
