"""What a user may ask of each command: the names, the defaults, the help. Nothing else says them.

Every field with a help text is an option of the command line and a keyword argument of the library's
function. A path may be a string. This file imports nothing heavy, so that `--help` comes at once.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, dataclass_transform

from .errors import SharpzoError, UsageError
from .process_memory import DEFAULT_BUDGET
from .run.files import CHECKPOINT_SECONDS
from .run.progress import OnProgress

AnyPath = str | os.PathLike[str]
P = ParamSpec("P")
Q = TypeVar("Q")
T = TypeVar("T")
# Beside an error that a program sees: its text is for whoever types commands.
IN_PYTHON = (
    "In Python, an option such as --max-queries is the argument max_queries, --restart is restart=True, and "
    "the same command again is the same call again."
)

# Help that several commands share.
BUNDLE = "Folder that export wrote."
IMAGES = "Folder that holds one folder of pictures for each class."
NONE_SHARE = 0.05  # of known pictures that may be called none of the classes
CLASS_NAMES = "JSON object: folder name to the words to use."
STRICT = "Fail when a picture cannot be read, instead of passing it over."
USE = "Which answer of the prompt's file: words, prompt, head or both; without it, what tune chose."
NONE = "Share of known pictures that may be called none of the classes; without it, as tune was asked."
SEED = "Decides the few-shot split and all randomness."
THREADS = "Threads of the towers; 0: one for each core that this process may use."
BUDGET = "The most memory that the process may ever hold, such as 128MiB; none: what the machine can give."


def option(help: str, *spellings: str, default: Any = dataclasses.MISSING, in_command: Any = None) -> Any:
    """A field that is an option. spellings: where they are others than --the-name.

    in_command: the default of the command line, where it has another one than the library
    """
    typed_default = default if in_command is None else in_command
    return field(default=default, metadata={"help": help, "spellings": spellings, "default": typed_default})


@dataclass_transform(frozen_default=True, field_specifiers=(option, field))
def request(kind: type[T]) -> type[T]:
    """A frozen dataclass whose fields may be options."""
    return dataclass(frozen=True)(kind)


def is_argument(field: dataclasses.Field[Any]) -> bool:
    """Whether a command takes it by its place, and not by a name."""
    return any(not each.startswith("-") for each in field.metadata.get("spellings", ()))


def spelt(field: dataclasses.Field[Any]) -> str:
    """What a user knows it by: --the-name, or the word for what stands in its place."""
    return field.metadata["spellings"][0] if is_argument(field) else f"--{field.name.replace('_', '-')}"


@request
class Request:
    """What is the same for all of them."""

    def __post_init__(self) -> None:
        """Raises UsageError for a path that is empty: it would be the working folder."""
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            several = value if isinstance(value, (list, tuple)) else (value,)
            if "AnyPath" in str(f.type) and "" in several:
                name = spelt(f)
                example = f"./{f.name}" if is_argument(f) else f"{name} ./{f.name}"
                raise UsageError(
                    f"{name} is empty. It takes a path. Check the variable that it came from, or type one: "
                    f"{example}"
                )


@request
class Call(Request):
    """What only a program can ask.

    on_progress: is told how the work goes on; see Progress
    stop: is asked now and then; when it returns True, the work ends with InterruptedRunError, and what it had
        done is kept
    """

    _: KW_ONLY
    on_progress: OnProgress | None = field(default=None, compare=False, repr=False)
    stop: Callable[[], bool] | None = field(default=None, compare=False, repr=False)


@request
class TuneRequest(Call):
    """Of `tune`. Fields that are None by default have the preset's value."""

    bundle: AnyPath = option(BUNDLE)
    images: AnyPath = option(IMAGES)
    output: AnyPath = option("File to write the tuned prompt to.")
    _: KW_ONLY
    shots: int = option("Pictures of each class to tune on.", default=16)
    val: int = option("Other pictures of each class to validate on.", default=4)
    views: int = option("Views of each shot: the shot as it is, and random parts of it.", default=1)
    preset: str = option(
        "Values to begin with: edge, demo, head (tunes nothing), paper, or paper:NAME (such as eurosat).",
        default="edge",
    )
    context_init: str | None = option(
        'Words that the context starts from; without it, the bundle\'s: "a photo of a".', default=None
    )
    context_tokens: int | None = option("Start from this many random vectors instead.", default=None)
    class_names: AnyPath | None = option(CLASS_NAMES, default=None)
    head: str = option(
        "Head to make beside the prompt: auto (the best on left-out pictures), kernel, ridge, gda or none.",
        default="auto",
    )
    none: float = option(
        "Share of known pictures that predict may call none of the classes; it can be changed there.",
        default=NONE_SHARE,
    )
    seed: int = option(SEED, default=0)
    max_queries: int | None = option("Stop after this many queries.", default=None)
    max_minutes: float | None = option("Stop after this many minutes of tuning.", default=None)
    patience: int | str | None = option(
        "Stop after this many evaluations of stage 2 without improvement; 0 or none: never.", default=None
    )
    restart: bool = option("Start over; replace the output.", default=False)
    keep_features: bool = option(
        "With --restart: keep the image features of pictures whose bytes are the same.", default=False
    )
    checkpoint_seconds: float = option(
        "Seconds from one save of the run to the next; 0: save after every batch of queries.",
        default=CHECKPOINT_SECONDS,
    )
    strict: bool = option(STRICT, default=False)
    report: bool = option(
        "Fail if the report (OUTPUT.work/report.html) cannot be made; without this, it is then left out.",
        default=False,
    )
    threads: int = option(THREADS, default=0)
    memory_budget: str | None = option(BUDGET, default=None, in_command=DEFAULT_BUDGET)
    population: int | None = option("Candidates in a generation (S).", default=None)
    dim: int | str | None = option(
        "Size of the tuned vector w (d). edge also takes: context, to tune all of it.", default=None
    )
    sigma0: float | None = option("First step size of CMA-ES.", default=None)
    rho: float | None = option("Length of the sharpness step; 0: plain CMA-ES.", default=None)
    mu_cge: float | None = option("paper: finite-difference step of sweeps.", default=None)
    mu_rge: float | None = option("paper: finite-difference step of stage 2.", default=None)
    projection_std: float | None = option("paper: spread of A's entries.", default=None)
    bounds: float | str | None = option("paper: box [-b, b] for w in stage 1, or none.", default=None)
    covariance: str | None = option("paper: full, diagonal or identity.", default=None)
    change_point: int | str | None = option("Generations of stage 1 (T_c), or auto.", default=None)
    steps: int | None = option("paper: generations and steps of stage 2 (T).", default=None)
    prune_interval: int | None = option("Steps (edge: rounds) between two masks.", default=None)
    prune_ratio: float | None = option(
        "Share of coordinates left out; 0: none. edge keeps no earlier rounds with it.", default=None
    )
    eta: float | None = option("paper: learning rate of stage 2.", default=None)
    rank: int | None = option("edge: directions of a sketch in stage 2 (r).", default=None)
    kept_rounds: int | None = option("edge: earlier rounds whose columns stay in the sketch.", default=None)
    tangents: str | None = option(
        "edge: derivatives along directions: auto (as the processor is); int8; fp32; none (differences).",
        default=None,
    )
    label_smoothing: float | None = option(
        "edge: share of the target spread over all classes in stage 2.", default=None
    )

    @property
    def output_path(self) -> Path:
        return Path(self.output)


@request
class PreviewRequest(TuneRequest):
    """Of `tune --plan`."""

    _: KW_ONLY
    figures: AnyPath | None = option(
        "With --plan: how long it would take on the board whose doctor --bench wrote this JSON.", default=None
    )


@request
class ExportRequest(Request):
    """Of `export`."""

    model: str = option("open_clip's model name, or local-dir:FOLDER.")
    output: AnyPath = option("Folder to write the bundle to.")
    _: KW_ONLY
    pretrained: str | None = option("open_clip's tag, a checkpoint file, or none.", default=None)
    vocabulary: AnyPath | None = option("JSON list of the token ids to keep.", default=None)
    quickgelu: bool | None = option(
        "For checkpoint files: which GELU they want.", "--quickgelu/--no-quickgelu", default=None
    )
    weights: str = option(
        "Precision of the linear layers: fp32, int8 or int4; all else is fp32.", default="fp32"
    )
    tangents: str = option(
        "Graphs of derivatives along directions: int8 (with fp32 ones), fp32 alone, or none.", default="int8"
    )


@request
class EvaluateRequest(Call):
    """Of `eval`."""

    bundle: AnyPath = option(BUNDLE)
    images: AnyPath = option(IMAGES)
    _: KW_ONLY
    prompt: AnyPath | None = option("Tuned prompt; without it: zero-shot.", default=None)
    use: str | None = option(USE, default=None)
    none: float | None = option(NONE, default=None)
    strangers: AnyPath | None = option(
        "Folder of pictures of no class: how many of them are called none of the classes.", default=None
    )
    classes: Sequence[str] | None = option(
        "Names to choose among: a,b,c, or a text file with one a line.", default=None
    )
    class_names: AnyPath | None = option(CLASS_NAMES, default=None)
    strict: bool = option(STRICT, default=False)
    report: AnyPath | None = option("Also write a report: one HTML file to look at.", default=None)
    threads: int = option(THREADS, default=0)
    memory_budget: str | None = option(BUDGET, default=None, in_command=DEFAULT_BUDGET)


@request
class PredictRequest(Call):
    """Of `predict`."""

    pictures: Sequence[AnyPath] = option(
        "Pictures to label, or folders of them; -: their paths on standard input, one a line.", "IMAGE..."
    )
    bundle: AnyPath = option(BUNDLE)
    prompt: AnyPath = option("Tuned prompt.")
    _: KW_ONLY
    use: str | None = option(USE, default=None)
    none: float | None = option(NONE, default=None)
    top: int = option("How many labels each picture gets.", default=5)
    strict: bool = option("Fail when a picture cannot be read; the others are labelled first.", default=False)
    threads: int = option(THREADS, default=0)
    memory_budget: str | None = option(BUDGET, default=None, in_command=DEFAULT_BUDGET)


@request
class WatchRequest(Call):
    """Of `watch`."""

    source: AnyPath = option(
        "Folder into which pictures come, a named pipe, or - for JPEGs on standard input.", "SOURCE"
    )
    bundle: AnyPath = option(BUNDLE)
    prompt: AnyPath = option("Tuned prompt.")
    _: KW_ONLY
    use: str | None = option(USE, default=None)
    none: float | None = option(NONE, default=None)
    every: float = option("Seconds from one labelled picture to the next; 0: as fast as it can.", default=0.0)
    steady: int = option("Equal answers in a row that make a change.", default=3)
    answers: bool = option("Also print the answer to every picture, not only changes.", default=False)
    save_unsure: AnyPath | None = option(
        "Folder for copies of the pictures whose answers were least sure.", default=None
    )
    save_unsure_per_day: int = option("The most of these copies in a day.", default=50)
    mqtt: str | None = option(
        "Also tell an MQTT broker: mqtt://USER@HOST/PREFIX; mqtts: with TLS. Needs the extra [mqtt].",
        default=None,
    )
    mqtt_password_file: AnyPath | None = option(
        "File with USER's password; without it, the variable SHARPZO_MQTT_PASSWORD.", default=None
    )
    mqtt_binary_sensors: bool = option(
        "Also announce a binary sensor for each class to Home Assistant.", default=False
    )
    threads: int = option(THREADS, default=0)
    memory_budget: str | None = option(BUDGET, default=None, in_command=DEFAULT_BUDGET)


@request
class ClassifierRequest(Request):
    """Of `classifier`."""

    bundle: AnyPath = option(BUNDLE)
    prompt: AnyPath = option("Tuned prompt.")
    output: AnyPath = option("File to write the classifier to, such as classifier.onnx.")
    _: KW_ONLY
    use: str | None = option(USE, default=None)
    weights: str | None = option(
        "Precision of the linear layers: int8 or int4; without it, the bundle's.", default=None
    )


@request
class InspectRequest(Request):
    """Of `inspect`."""

    path: AnyPath = option("A bundle's folder or a tuned prompt.", "PATH")


@request
class DoctorRequest(Request):
    """Of `doctor`."""

    _: KW_ONLY
    bundle: AnyPath | None = option("Also check this bundle, every byte.", default=None)
    bench: bool = option("Also measure the bundle on this board; takes some minutes.", default=False)


@request
class DemoRequest(Call):
    """Of `demo`."""

    _: KW_ONLY
    seed: int = option(SEED, default=0)
    task: str | None = option("Name of the shipped task.", default=None)
    threads: int = option(THREADS, default=0)
    memory_budget: str | None = option(BUDGET, default=None, in_command=DEFAULT_BUDGET)


SCHEDULER = "Address of the fleet's scheduler, HOST:PORT."
CERTIFICATES = "Folder that fleet certificates wrote; without it, the fleet is on this machine alone."


@request
class MemberRequest(Call):
    """Of `fleet member`."""

    images: AnyPath = option(IMAGES)
    bundle: AnyPath = option(BUNDLE)
    scheduler: str = option(SCHEDULER)
    _: KW_ONLY
    name: str | None = option(
        "What this board is called; without it, what the system calls it.", default=None
    )
    certificates: AnyPath | None = option(CERTIFICATES, default=None)
    least_pictures: int = option(
        "Take part only with at least this many pictures of each class that it has.", default=1
    )
    threads: int = option(THREADS, default=0)
    memory_budget: str | None = option(BUDGET, default=None, in_command="192MiB")


@request
class SchedulerRequest(Call):
    """Of `fleet scheduler`."""

    _: KW_ONLY
    host: str = option(
        "Address to listen on; any other than 127.0.0.1 needs --certificates.", default="127.0.0.1"
    )
    port: int = option("Port to listen on; 0: any that is free.", default=8786)
    certificates: AnyPath | None = option(CERTIFICATES, default=None)


@request
class FleetTuneRequest(TuneRequest):
    """Of `fleet tune`: tune's own, but for what belongs to a machine that has pictures."""

    _: KW_ONLY
    scheduler: str = option(SCHEDULER)
    certificates: AnyPath | None = option(CERTIFICATES, default=None)
    members: int = option("Begin when this many members are there.", default=1)
    wait_seconds: float = option(
        "Seconds to wait for a lost member; then the run goes on without it.", default=60.0
    )
    images: AnyPath = "the fleet"
    strict: bool = False
    report: bool = False
    keep_features: bool = False
    none: float = NONE_SHARE
    threads: int = 0
    memory_budget: str | None = None


@request
class CertificatesRequest(Request):
    """Of `fleet certificates`."""

    output: AnyPath = option("Folder to write them to.")


@request
class FleetDemoRequest(Call):
    """Of `fleet demo`."""

    _: KW_ONLY
    members: int = option("How many members the pictures are divided among.", default=3)
    seed: int = option(SEED, default=0)


@request
class PageRequest(Call):
    """Of `page`."""

    _: KW_ONLY
    bundle: AnyPath | None = option(
        "Folder that export wrote; without it and --images: the shipped demo.", default=None
    )
    images: AnyPath | None = option(
        "Folder that holds one folder of pictures for each class; it is made if it is not there.",
        default=None,
    )
    output: AnyPath | None = option(
        "File to write the tuned prompt to; without it, IMAGES.safetensors beside the pictures.", default=None
    )
    class_names: AnyPath | None = option(
        "JSON object: folder name to the words to use; without it, class-names.json in IMAGES.",
        default=None,
    )
    host: str = option(
        "Address to listen on; any other than 127.0.0.1 asks for a token.", default="127.0.0.1"
    )
    port: int = option("Port to listen on; 0: any that is free.", default=8750)
    allow_host: Sequence[str] = option(
        "One more name that the page may be called by; may be given more than once.", default=()
    )
    open: bool = option("Show the page in this machine's browser.", default=False)
    threads: int = option(THREADS, default=0)
    memory_budget: str | None = option(
        "The most memory that a run may ever hold, and the helper of the page.",
        default=None,
        in_command=DEFAULT_BUDGET,
    )


def typed(command: str, asked: Any) -> str:
    """A command as it could be typed for a request: its options that are not the command line's defaults."""
    words = ["sharpzo-edge", *command.split()]
    for f in dataclasses.fields(asked):
        value = getattr(asked, f.name)
        if "help" not in f.metadata or value == f.metadata["default"]:
            continue
        words.append(spelt(f))
        if value is None:  # of a program, whose default it is
            words.append("none")
        elif value is not True:
            several = isinstance(value, (list, tuple))
            words.append(",".join(map(str, value)) if several else str(value))
    return shlex.join(words)


def by_keywords(kind: Callable[P, Q]) -> Callable[[Callable[[Q], T]], Callable[P, T]]:
    """Turn a function of a request into one that takes the request's fields as its own arguments."""

    def decorate(do: Callable[[Q], T]) -> Callable[P, T]:
        @functools.wraps(do)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return do(kind(*args, **kwargs))
            except SharpzoError as error:
                if IN_PYTHON not in getattr(error, "__notes__", ()):
                    error.add_note(IN_PYTHON)
                raise

        result = inspect.signature(do).return_annotation
        call.__signature__ = inspect.signature(kind).replace(return_annotation=result)  # type: ignore[attr-defined]
        call.__name__ = call.__qualname__ = do.__name__.removesuffix("_request").removesuffix("_of")
        return call

    return decorate
