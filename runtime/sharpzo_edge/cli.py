"""The command line: commands, help, exit codes. No logic; every command imports what it needs itself.

The options of a command are the fields of its request (requests.py); options.py makes them. Here the process
belongs to us: its memory is governed, signals become a flag, and one line is redrawn on the terminal.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

# Before numpy is imported anywhere: its own threads would cost memory and win nothing here.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import typer

from .errors import InterruptedRunError, SharpzoError, UsageError, cannot_read, is_absent
from .libraries import NO_TELEMETRY, is_of_a_library, needing, not_imported
from .options import command
from .process_memory import govern
from .requests import (
    CertificatesRequest,
    ClassifierRequest,
    DemoRequest,
    DoctorRequest,
    EvaluateRequest,
    ExportRequest,
    FleetDemoRequest,
    FleetTuneRequest,
    InspectRequest,
    MemberRequest,
    PageRequest,
    PredictRequest,
    PreviewRequest,
    SchedulerRequest,
    WatchRequest,
)
from .run.files import read_limited
from .run.interrupt import Interrupt
from .terminal import Terminal
from .version import __version__
from .wording import printable

# For what this process imports or starts besides us.
os.environ[NO_TELEMETRY] = "1"

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

fleet = typer.Typer(
    help="Let several boards tune one prompt. Needs the extra [fleet].", rich_markup_mode=None
)
app.add_typer(fleet, name="fleet")

NAMES_LIMIT_BYTES = 4 << 20  # of the file after --classes

R = TypeVar("R")
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output, nothing else.")
]


@contextlib.contextmanager
def at_work(request: R) -> Iterator[R]:
    """The same request, whose work is shown on the terminal and stopped by signals."""
    with Interrupt() as interrupt, Terminal() as terminal:
        try:
            yield dataclasses.replace(request, on_progress=terminal, stop=interrupt.is_received)  # type: ignore[type-var]
        except InterruptedRunError as stopped:
            raise interrupt.named(stopped) from stopped


@command(app, ExportRequest, "export")
def export(request: ExportRequest, as_json: JsonOption = False) -> None:
    """Turn an open_clip model into a bundle.

    This is for a workstation, and needs the extra [export].

    Example: sharpzo-edge export --model ViT-B-16-quickgelu --pretrained openai --output vit-b-16
    """
    with needing("export", "Export", "It is for the workstation; a board that tunes does without"):
        from sharpzo_export import write_bundle
    from .clip.manifest import COSINE
    from .printing import export_lines

    bundle, notes = write_bundle.export(
        request.model,
        request.pretrained,
        Path(request.output),
        vocabulary=None if request.vocabulary is None else Path(request.vocabulary),
        quick_gelu=request.quickgelu,
        weights=request.weights,
        tangents=request.tangents,
        say=partial(print, file=sys.stderr, flush=True),
    )
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    manifest = bundle.manifest
    result = {
        "bundle": str(request.output),
        "model": manifest.model,
        "pretrained": manifest.pretrained,
        "parity": manifest.parity,
        "notes": list(notes),
    }
    _print(as_json, result, export_lines(bundle, COSINE))


@command(app, PreviewRequest, "tune")
def tune(
    request: PreviewRequest,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say how it would run and how long it would take, and stop.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Tune a prompt on a folder of labelled pictures.

    The same command again goes on with a run that was interrupted, and repeats the result of a finished one.

    Example: sharpzo-edge tune --bundle vit-b-16 --images photos --output prompt.safetensors
    """
    from .printing import preview_lines, tune_lines

    if request.figures is not None and not plan:
        raise UsageError(
            f"--figures {request.figures} is for a forecast, and a tune makes none. It goes with --plan "
            f"alone. Add --plan, or leave --figures out"
        )
    with at_work(request) as working:
        if plan:
            from .commands.preview import preview_of

            previewed = preview_of(working)
        else:
            from .commands.tune import tune_and_report

            result, is_repeated = tune_and_report(working)
    if plan:
        _print(as_json, previewed.to_json(), preview_lines(previewed))
    else:
        _print(as_json, result.to_json(), tune_lines(result, Path(request.bundle), is_repeated))


@command(app, EvaluateRequest, "eval")
def evaluate(request: EvaluateRequest, as_json: JsonOption = False) -> None:
    """Measure the accuracy on a folder of labelled pictures.

    Example: sharpzo-edge eval --bundle vit-b-16 --images test --prompt prompt.safetensors
    """
    from .commands.evaluate import evaluate_request
    from .printing import evaluate_lines

    request = dataclasses.replace(request, classes=class_list(request.classes))
    with at_work(request) as working:
        result = evaluate_request(working)
    _print(as_json, result.to_json(), evaluate_lines(result, is_zero_shot=request.prompt is None))


@command(app, PredictRequest, "predict")
def predict(
    request: PredictRequest,
    as_json: JsonOption = False,
    json_lines: Annotated[
        bool, typer.Option("--json-lines", help="Print one JSON object for each picture, batch by batch.")
    ] = False,
) -> None:
    """Label pictures with a tuned prompt.

    It also says which pictures are likely none of the classes.

    Example: sharpzo-edge predict --bundle vit-b-16 --prompt prompt.safetensors a.jpg b.jpg
    """
    from .commands.classifier import Prediction
    from .commands.predict import predict_each, predict_request
    from .printing import prediction_line

    if as_json and json_lines:
        raise UsageError(
            "--json and --json-lines exclude each other. --json prints one object at the end, --json-lines "
            "one for each picture. Leave one of them out"
        )
    with at_work(request) as working:
        if as_json:
            result = predict_request(working)
        else:
            for each in predict_each(working):
                if json_lines:
                    _print_text(_json(each.to_json()))
                elif isinstance(each, Prediction):
                    _print_text(prediction_line(each))
    if as_json:
        _print_text(_json(result.to_json()))


@command(app, WatchRequest, "watch")
def watch(
    request: WatchRequest,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print errors as JSON, too; all else is JSON lines in any case.")
    ] = False,
) -> None:
    """Label pictures as they come.

    It tells when what they show has changed.

    Example: sharpzo-edge watch --bundle vit-b-16 --prompt prompt.safetensors photos/new
    """
    from .watch.watching import watch_request

    with at_work(request) as working:
        watch_request(working)


@command(app, ClassifierRequest, "classifier")
def classifier(request: ClassifierRequest, as_json: JsonOption = False) -> None:
    """Write one ONNX file for other programs.

    The file labels pictures without sharpzo-edge. This needs the extra [classifier].

    Example: sharpzo-edge classifier --bundle vit-b-16 --prompt prompt.safetensors --output classifier.onnx
    """
    with needing("classifier", "The classifier", "It is small, and torch is not needed"):
        from sharpzo_export.write_classifier import write_classifier
    from .printing import classifier_lines

    result = write_classifier(
        Path(request.bundle),
        Path(request.prompt),
        Path(request.output),
        use=request.use,
        weights=request.weights,
    )
    for note in result.notes:
        print(f"note: {note}", file=sys.stderr)
    about = result.to_json()
    _print(as_json, about, classifier_lines(about))


@command(app, InspectRequest, "inspect")
def inspect(request: InspectRequest, as_json: JsonOption = False) -> None:
    """Tell what a bundle or a tuned prompt is.

    Example: sharpzo-edge inspect prompt.safetensors
    """
    from .commands.inspect import inspect as run
    from .printing import inspect_lines

    result = run(Path(request.path))
    _print(as_json, result.to_json(), inspect_lines(result))


@command(app, DoctorRequest, "doctor")
def doctor(request: DoctorRequest, as_json: JsonOption = False) -> None:
    """Check whether this machine can run it.

    Example: sharpzo-edge doctor --bundle vit-b-16
    """
    from .commands.doctor import doctor_request
    from .printing import doctor_lines, figures_lines

    result = doctor_request(request)
    lines = doctor_lines(result.checks)
    if result.figures:  # and the JSON that tune --plan --figures takes
        lines += [*figures_lines(result.figures), _json(result.figures.to_json())]
    _print(as_json, result.to_json(), lines)
    raise typer.Exit(0 if result.ok else 1)


@command(app, DemoRequest, "demo")
def demo(request: DemoRequest, as_json: JsonOption = False) -> None:
    """Tune the shipped model, as a first try.

    It is a small CLIP, and its pictures are shipped, too. It keeps nothing.

    Example: sharpzo-edge demo
    """
    from .commands.demo import demo_request
    from .printing import demo_lines

    with at_work(request) as working:
        result = demo_request(working)
    _print(as_json, result.to_json(), demo_lines(result))


@command(app, PageRequest, "page")
def page(
    request: PageRequest,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object when the page can be opened: url and token.")
    ] = False,
) -> None:
    """Label, tune and look in a browser.

    This needs the extra [page].

    Example: sharpzo-edge page --bundle vit-b-16 --images photos
    """
    with needing("page", "The page"):
        from .page.server import Address, serve
    from .printing import page_lines

    def say(address: Address) -> None:
        lines = page_lines(address.url, address.token, address.qr_code())
        _print(as_json, address.to_json(), lines)

    serve(request, say)


# For the imports of every command of a fleet.
needs_fleet = partial(needing, "fleet", "A fleet")


@command(fleet, MemberRequest, "member")
def fleet_member(request: MemberRequest) -> None:
    """Be a member: tune on this board's pictures.

    The pictures stay on this board.

    Example: sharpzo-edge fleet member --images photos --bundle vit-b-16 --scheduler 127.0.0.1:8786
    """
    with needs_fleet():
        from .fleet.member import member
    with at_work(request) as working:
        member(working)


@command(fleet, SchedulerRequest, "scheduler")
def fleet_scheduler(
    request: SchedulerRequest,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object when it listens: its address.")
    ] = False,
) -> None:
    """Carry the messages of a fleet.

    Example: sharpzo-edge fleet scheduler
    """
    with needs_fleet():
        from .fleet.scheduler import scheduler
    from .printing import scheduler_lines

    with at_work(request) as working:
        scheduler(
            working, lambda at: _print(as_json, {"address": at}, scheduler_lines(at, request.certificates))
        )


@command(fleet, FleetTuneRequest, "tune")
def fleet_tune(request: FleetTuneRequest, as_json: JsonOption = False) -> None:
    """Tune a prompt on the pictures of all members.

    The same command again goes on with a run that was interrupted, and repeats the result of a finished one.

    Example: sharpzo-edge fleet tune --scheduler 127.0.0.1:8786 --bundle vit-b-16 --output prompt.safetensors
    """
    with needs_fleet():
        from .fleet.tune import fleet_tune as run
    from .printing import fleet_lines

    with at_work(request) as working:
        result, is_repeated = run(working)
    _print(as_json, result.to_json(), fleet_lines(result, Path(request.bundle), is_repeated))


@command(fleet, CertificatesRequest, "certificates")
def fleet_certificates(request: CertificatesRequest, as_json: JsonOption = False) -> None:
    """Make the certificates that all machines of a fleet need.

    Example: sharpzo-edge fleet certificates --output fleet-certificates
    """
    with needs_fleet():
        from .fleet.certificates import make_certificates
    from .printing import certificates_lines

    made = make_certificates(Path(request.output))
    result = {"folder": str(made.folder), "until": made.until.isoformat()}
    _print(as_json, result, certificates_lines(made.folder, made.until))


@command(fleet, FleetDemoRequest, "demo")
def fleet_demo(request: FleetDemoRequest, as_json: JsonOption = False) -> None:
    """Try a fleet on this machine.

    The demo's pictures are divided among members. The result stands beside that of all pictures in one place.

    Example: sharpzo-edge fleet demo
    """
    with needs_fleet():
        from .fleet.demo import fleet_demo as run
    from .printing import fleet_demo_lines

    with at_work(request) as working:
        result = run(working)
    _print(as_json, result.to_json(), fleet_demo_lines(result))


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit()
    _help_without_command(context)


@fleet.callback(invoke_without_command=True)
def _help_without_command(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)


def class_list(value: Any) -> list[str] | None:
    """`a,b,c` or a text file with one name a line."""
    if value is None:
        return None
    text, is_file = value, True
    try:
        text = read_limited(Path(value), NAMES_LIMIT_BYTES).decode()
    except OSError as error:
        if not is_absent(error):  # also when it is longer than any file's name
            raise cannot_read(Path(value), error) from error
        is_file = False
    except ValueError as error:
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


def _print(as_json: bool, result: dict[str, Any], lines: list[str]) -> None:
    _print_text(_json(result) if as_json else "\n".join(map(printable, lines)))


def _print_text(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError as error:
        raise SharpzoError(
            "The reader of standard output has gone. The rest is not printed; what was made before is kept. "
            "Type the same command again to see all of it"
        ) from error
    except OSError as error:
        raise SharpzoError(
            f"Cannot write the result to standard output: {error.strerror or error}. What was made before is "
            f"kept. Standard output must be open and have room: type the same command again"
        ) from error


def _json(value: Any) -> str:
    """In plain ASCII where standard output is not UTF-8, so that every reader of JSON can read it."""
    is_utf8 = (sys.stdout.encoding or "").lower().replace("-", "").replace("_", "") == "utf8"
    return json.dumps(value, ensure_ascii=not is_utf8, allow_nan=False)


def _fail(error: SharpzoError | Exception, message: str, code: int) -> NoReturn:
    if os.environ.get("SHARPZO_DEBUG") == "1":
        import traceback

        traceback.print_exception(error)
    with contextlib.suppress(OSError):  # standard error or output may be what failed
        print(f"error: {printable(message)}", file=sys.stderr, flush=True)
    if {"--json", "--json-lines"} & {*sys.argv}:
        about = {"kind": type(error).__name__, "message": message, "exit_code": code}
        with contextlib.suppress(OSError):
            print(_json({"error": about}), flush=True)
    sys.stdout = None  # nothing is left to flush at exit
    raise SystemExit(code)


def main() -> None:
    """The edge: every error becomes a sentence and an exit code; with SHARPZO_DEBUG=1 a traceback too."""
    govern()
    for out in (sys.stdout, sys.stderr):
        out.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # file names may be any bytes
    try:
        raise SystemExit(app(standalone_mode=False) or 0)
    except SharpzoError as error:
        _fail(error, str(error), error.exit_code)
    except CLICK_ERROR as error:
        said = error.format_message()
        text = f"{said}{'' if said.endswith(('.', '?')) else '.'} Add --help to see what the command takes"
        _fail(UsageError(text).with_traceback(error.__traceback__), text, UsageError.exit_code)
    except MemoryError as error:
        text = (
            "No memory is left: on this machine, or within a limit on this program (ulimit, a container). "
            "The command needs more than there is, whatever its budget. "
            "Stop other programs, raise the limit, or lower --dim or the number of classes"
        )
        _fail(error, text, 1)
    except Exception as error:
        # click makes an Abort of the EOFError that a file which was cut off raises
        real = error.__cause__ if isinstance(error, typer.Abort) else error
        if isinstance(real, Exception) and is_of_a_library(real):
            _fail(real, str(not_imported(real)), 1)
        text = (
            f"Something went wrong that should not: {type(error).__name__}: {error}. This is a defect of "
            f"sharpzo-edge, please report it. SHARPZO_DEBUG=1 before the command shows where"
        )
        _fail(error, text, 1)
