"""The way, walked once: pictures, features, objective, stage 1, stage 2, tuned prompt.

This file owns the order of events and nothing else. Validation pictures are ones beyond the shots; the
test set is never seen here.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .arrays import Floats
from .bundle import Bundle
from .checkpoint import refuse_another_command
from .class_prompts import (
    ClassPrompts,
    checked_token_ids,
    context_from_words,
    prompts_of,
    random_context,
)
from .draw import Draw, pictures_checksum
from .errors import UsageError
from .features import refuse_skipped_before, training_features
from .files import CHECKPOINT_SECONDS, checksum, file_checksum, make_folder, remove
from .heads import HEADS, Head, gda, with_best_weight
from .images import LabelledFolder, read_folder
from .interrupt import Interrupt
from .lock import LOCK_FILE, locked
from .memory import Plan, Work, parse_budget
from .objective import Objective, Score, projection
from .process_memory import DEFAULT_BUDGET, peak_rss_mib
from .progress import Progress
from .record import Head as HeadFound
from .record import Record, Result, load_record, save_record
from .settings import NOT_OPTIONS, TuneSettings
from .stages import Budget, Look, Run, expected_queries
from .towers import ImageTower, TextTower, plan_towers
from .tuned_prompt import FORMAT_VERSION, HEAD_FORMAT_VERSION, TunedPrompt, save_prompt
from .workplace import Workplace

# Every use of randomness has a stream of its own, so that changing one leaves the others as they are.
STREAMS = ("split", "context", "projection", "stage1", "stage2", "views")
LOG_FILE, CHECKPOINT_FILE = "log.jsonl", "checkpoint.safetensors"
TIME_LIMIT = "--max-minutes"


@dataclass(frozen=True)
class TuneRequest:
    """What the user asked for; every field is an option of `tune`."""

    bundle: Path
    images: Path
    output: Path
    settings: TuneSettings
    shots: int = 16
    val: int = 4
    context_init: str | None = None
    context_tokens: int | None = None
    class_names: Path | None = None
    seed: int = 0
    max_queries: int | None = None
    max_minutes: float | None = None
    threads: int = 0
    memory_budget: str = DEFAULT_BUDGET
    restart: bool = False
    head: str = "none"
    views: int = 1
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    strict: bool = False

    @property
    def work(self) -> Path:
        """Where crops, features, log, record and checkpoint lie."""
        return self.output.with_name(f"{self.output.name}.work")


def tune(request: TuneRequest) -> dict[str, Any]:
    """Tune a prompt and write it to request.output; returns what `tune --json` prints. See tune_or_repeat."""
    return tune_or_repeat(request)[0]


def tune_or_repeat(request: TuneRequest) -> tuple[dict[str, Any], bool]:
    """The result, and whether it was there before.

    Goes on with what an interrupted process of the same command has left; of a finished one it returns the
    result and does nothing. Raises SharpzoError's children for whatever the user can change.
    """
    _check(request)
    if request.output.exists() and not request.work.exists() and not request.restart:
        raise _exists_already(request.output)
    bundle, folder, context, plan, prompts = _prepared(request)
    made_for = _made_for(request, bundle, folder, plan)
    wanted = request.settings.sketches[0]
    request = dataclasses.replace(request, settings=request.settings.with_sketch(plan.sketch))
    _make_work_folder(request)
    with (
        locked(request.work),
        Interrupt() as interrupt,
        Progress(request.work / LOG_FILE) as progress,
    ):
        if request.restart:
            _clear(request.work)
        elif recorded := _recorded(request, made_for):
            if request.strict:
                refuse_skipped_before(request.work)
            progress.say(f"{request.output} is finished: this is its result, from when it was made")
            remove(request.work / CHECKPOINT_FILE)  # a kill may have left it
            return recorded, True
        save_record(request.work, Record(made_for, file_checksum(request.output), None))
        pictures = training_features(
            bundle,
            folder,
            _draw(request),
            plan,
            request.threads,
            Workplace(request.work, progress, interrupt, request.checkpoint_seconds),
            strict=request.strict,
        )
        if plan.sketch != wanted:
            progress.say(
                f"sketches of {plan.sketch.n_columns} columns, not {wanted.n_columns}: what the memory "
                f"budget leaves room for"
            )
        progress.say(
            f"{len(folder.names)} classes, {len(pictures.train)} pictures to tune on, "
            f"{len(pictures.val)} to validate"
        )
        head, blended = None, None
        if request.head == "gda":
            _check_validated(len(pictures.val))
            head = gda(pictures.train, len(folder.names))
        A = projection(
            stream(request.seed, "projection"),
            context.size,
            request.settings.dim,
            request.settings.projection_std_for(context),
        )
        assert plan.text is not None  # tuning needs the text tower
        with TextTower(bundle, plan.text, request.threads) as tower:
            objective = Objective(
                tower,
                prompts,
                context,
                A,
                pictures.train,
                bundle.manifest.logit_scale,
                plan.text.together,
            )
            run = Run(
                request.settings,
                Budget(_max_queries(request), request.max_minutes),
                objective,
                pictures.val,
                partial(stream, request.seed),
                request.work / CHECKPOINT_FILE,
                _without(made_for, TIME_LIMIT)
                | {"choice of pictures": pictures.checksum, "projection": checksum(A.reshape(-1).data)},
                progress,
                checkpoint_seconds=request.checkpoint_seconds,
            )
            best = run.to_the_end(interrupt)
        if not best.w.any():
            why = "nothing was better by validation" if run.state.look.w.any() else "no update was made"
            progress.say(f"{why}: the prompt is as it started, not tuned")
        if head is not None:
            head, blended = with_best_weight(head, best.class_features, pictures.val, objective.logit_scale)
            progress.say(f"head {request.head}: weight {head.weight:g}, by validation")
        save_prompt(request.output, _prompt(request, bundle, folder, objective, best, head))
        result = _result(request, objective, run, best, plan, _head_found(request, head, blended))
        save_record(request.work, Record(made_for, file_checksum(request.output), result))
        remove(request.work / CHECKPOINT_FILE)
        progress.event("done", **dataclasses.asdict(result))
    return dataclasses.asdict(result), False


def _recorded(request: TuneRequest, made_for: dict[str, Any]) -> dict[str, Any] | None:
    """The result of this very command, when it was brought to its end before.

    Raises UsageError when the work folder belongs to another command, finished or not, and for an output
    that this work folder did not make.
    """
    record = load_record(request.work)
    has_checkpoint = (request.work / CHECKPOINT_FILE).exists()
    found = file_checksum(request.output)
    if record and found and record.output == found and record.result is not None:
        refuse_another_command(f"The finished {request.output}", record.made_for, made_for)
        return dataclasses.asdict(record.result) | {"prompt": str(request.output)}
    if record and (record.result is None or has_checkpoint):
        # Before the first checkpoint pictures may be mended: there is nothing to go on with but crops.
        left_out = (TIME_LIMIT,) if has_checkpoint else (TIME_LIMIT, "--images")
        refuse_another_command(
            f"The interrupted run in {request.work}",
            _without(record.made_for, *left_out),
            _without(made_for, *left_out),
        )
    if request.output.exists() and not (record and (has_checkpoint or record.output == found)):
        raise _exists_already(request.output)
    return None


def _exists_already(output: Path) -> UsageError:
    return UsageError(
        f"The output {output} exists already. Tuning replaces no prompt that it did not make. "
        f"Choose another --output, or start over with --restart"
    )


def preview(request: TuneRequest) -> dict[str, Any]:
    """The plan, and how long it would take on this machine by a pass through each tower; tunes nothing.

    Returns what `tune --plan --json` prints. Raises what `tune` would raise before its work begins.
    """
    _check(request)
    bundle, folder, context, plan, prompts = _prepared(request)
    assert plan.text is not None and plan.image is not None  # tuning needs both
    with TextTower(bundle, plan.text, request.threads) as text:
        contexts = np.repeat(context[None], plan.text.together, axis=0)
        a_pass = _seconds_of(lambda: text.class_features(contexts, prompts))
    pixels = np.zeros((plan.image.group, 3, *bundle.manifest.preprocess.size), np.float32)
    n_groups = plan.image.together // plan.image.group
    with ImageTower(bundle, plan.image, request.threads) as image:
        picture_pass = _seconds_of(lambda: image.image_features([pixels] * n_groups))
    n_queries = expected_queries(request.settings)
    n_queries = min(n_queries, _max_queries(request) or n_queries)
    n_pictures = _draw(request).n_rows(folder)
    query, picture = a_pass / plan.text.together, picture_pass / plan.image.together
    total = n_pictures * picture + n_queries * query
    if request.max_minutes is not None:
        total = min(total, n_pictures * picture + request.max_minutes * 60)
    return {
        "plan": plan.report(),
        "said": plan.lines(),
        "queries": n_queries,
        "queries_per_second": 1 / query,
        "pictures": n_pictures,
        "pictures_per_second": 1 / picture,
        "seconds": total,
    }


def _seconds_of(run: Callable[[], object]) -> float:
    """The second of two runs: the first one warms caches."""
    run()
    started = time.monotonic()
    run()
    return max(time.monotonic() - started, 1e-6)


class _Prepared(NamedTuple):
    """What is known before any work begins; context: (m, D), the initial one."""

    bundle: Bundle
    folder: LabelledFolder
    context: Floats
    plan: Plan
    prompts: ClassPrompts


def _prepared(request: TuneRequest) -> _Prepared:
    """Read the bundle, the folder and the names, and plan. Raises BudgetError when no plan fits."""
    bundle = Bundle.open(request.bundle)
    folder = read_folder(request.images, request.class_names)
    context = _initial_context(bundle, request)
    name_ids = checked_token_ids(bundle, folder.names, len(context), folder.folders)
    settings = request.settings
    work = Work(
        name_lengths=tuple(map(len, name_ids)),
        n_context=len(context),
        n_features=_draw(request).n_rows(folder),
        dim=settings.dim,
        full_covariance=settings.stage1().covariance == "full",
        sketches=settings.sketches,
        head=request.head != "none",
        threads=request.threads,
    )
    plan = plan_towers(bundle, work, request.memory_budget)
    prompts = prompts_of(bundle, folder.names, name_ids, len(context), plan.chunk_rows)
    return _Prepared(bundle, folder, context, plan, prompts)


def _draw(request: TuneRequest) -> Draw:
    split, views = stream(request.seed, "split"), stream(request.seed, "views")
    return Draw(request.shots, request.val, split, request.views, views)


def _max_queries(request: TuneRequest) -> int | None:
    """The user's limit, or else the preset's."""
    return request.settings.default_queries if request.max_queries is None else request.max_queries


def _result(
    request: TuneRequest, objective: Objective, run: Run, best: Look, plan: Plan, head: HeadFound | None
) -> Result:
    return Result(
        queries=objective.queries,
        stage1_queries=run.state.stage1_queries,
        stage2_queries=run.state.stage2_queries,
        seconds=round(run.seconds, 3),
        peak_rss_mib=round(peak_rss_mib(), 1),
        best_queries=run.state.best_queries,
        stopped=run.why_stopped,
        train_loss=best.train.loss,
        train_accuracy=best.train.accuracy,
        val_accuracy=best.val.accuracy if best.val else None,
        val_loss=best.val.loss if best.val else None,
        zero_shot_train_loss=run.state.zero_shot_loss,
        plan=plan.report(),
        prompt=str(request.output),
        head=head,
    )


def stream(seed: int, name: str) -> np.random.SeedSequence:
    """The seed of one use of randomness (see STREAMS)."""
    return np.random.SeedSequence(seed, spawn_key=(STREAMS.index(name),))


def _prompt(
    request: TuneRequest,
    bundle: Bundle,
    folder: LabelledFolder,
    objective: Objective,
    best: Look,
    head: Head | None,
) -> TunedPrompt:
    return TunedPrompt(
        context=objective.contexts(best.w[None])[0],
        class_features=best.class_features,
        about={
            "format_version": FORMAT_VERSION if head is None else HEAD_FORMAT_VERSION,
            "class_names": list(folder.names),
            "class_folders": list(folder.folders),
            "model": bundle.manifest.model,
            "bundle": bundle.checksum,
            "seed": request.seed,
            "settings": {
                **dataclasses.asdict(request.settings),
                "shots": request.shots,
                "val": request.val,
                "views": request.views,
                "context_init": _initial_words(bundle, request) if request.context_tokens is None else None,
                "context_tokens": request.context_tokens,
                "max_queries": _max_queries(request),
            },
            "queries": objective.queries,
            "train_loss": best.train.loss,
            **({} if head is None else {"head": {"kind": request.head, "weight": head.weight}}),
        },
        head=head,
    )


def _head_found(request: TuneRequest, head: Head | None, blended: Score | None) -> HeadFound | None:
    """With what the prompt and its head together are worth on the validation pictures."""
    if head is None or blended is None:
        return None
    return HeadFound(request.head, head.weight, blended.accuracy, blended.loss)


def _check_validated(n_val: int) -> None:
    """A head's weight is chosen on validation pictures."""
    if n_val == 0:
        raise UsageError(
            "--head gda has no validation pictures (--val 0, or no class has more pictures than --shots). "
            "Its weight is chosen on one or more of them. Try --val 4 with fewer --shots, or leave --head out"
        )


def _made_for(request: TuneRequest, bundle: Bundle, folder: LabelledFolder, plan: Plan) -> dict[str, Any]:
    """What decides the run's numbers, by the names the user types, in the order in which they are compared.

    The plan too: a product's last bits depend on how many rows it has, and on the threads.
    """
    settings = {
        f"--{name.replace('_', '-')}": value
        for name, value in dataclasses.asdict(request.settings).items()
        if name not in NOT_OPTIONS
    }
    towers = [dataclasses.asdict(tower) if tower else None for tower in (plan.text, plan.image)]
    return {
        "--bundle": bundle.checksum,
        "--images": pictures_checksum(folder),
        "--class-names": list(folder.names),
        "--seed": request.seed,
        "--preset": request.settings.preset,
        "--shots": request.shots,
        "--val": request.val,
        "--views": request.views,
        "--head": request.head,
        "--context-init": _initial_words(bundle, request),
        "--context-tokens": request.context_tokens,
        **settings,
        "--max-queries": _max_queries(request),
        TIME_LIMIT: request.max_minutes,
        "--memory-budget": _budget(request),
        "--threads": request.threads,
        "plan": [*towers, plan.chunk_rows, dataclasses.asdict(plan.sketch)],
    }


def _budget(request: TuneRequest) -> str:
    """In one spelling."""
    mib = parse_budget(request.memory_budget)
    return f"{mib:.17g}MiB" if math.isfinite(mib) else "none"


def _without(made_for: dict[str, Any], *names: str) -> dict[str, Any]:
    """An unfinished run may go on under another time limit; of a finished one it has decided the result."""
    return {name: value for name, value in made_for.items() if name not in names}


def _initial_context(bundle: Bundle, request: TuneRequest) -> Floats:
    if request.context_tokens is not None:
        rng = np.random.default_rng(stream(request.seed, "context"))
        return random_context(bundle, request.context_tokens, rng)
    return context_from_words(bundle, _initial_words(bundle, request))


def _initial_words(bundle: Bundle, request: TuneRequest) -> str:
    words = request.context_init
    return bundle.manifest.initial_context if words is None else words


def _check(request: TuneRequest) -> None:
    for option, value, least in (
        ("--shots", request.shots, 1),
        ("--val", request.val, 0),
        ("--views", request.views, 1),
        ("--seed", request.seed, 0),
        ("--max-queries", request.max_queries, 1),
        (TIME_LIMIT, request.max_minutes, 0),
        ("--checkpoint-seconds", request.checkpoint_seconds, 0),
    ):
        if value is not None and not least <= value < math.inf:
            what = "too small" if value < least else "not a finite number"
            raise UsageError(
                f"{option} {value} is {what}. It takes {least} or more. Try {option} {max(least, 1)}"
            )
    if request.output.is_dir():
        raise UsageError(
            f"The output {request.output} is a folder. The tuned prompt is one file. "
            f"Try --output {request.output / 'prompt.safetensors'}"
        )
    if request.head not in HEADS:
        raise UsageError(
            f"--head {request.head} is not known. It takes one of: {', '.join(HEADS)}. Try --head gda"
        )
    if request.head != "none":
        _check_validated(request.val)
    if request.context_init is not None and request.context_tokens is not None:
        raise UsageError(
            "--context-init and --context-tokens exclude each other. The context starts from words or from "
            "a number of random vectors. Leave one of them out"
        )


def _make_work_folder(request: TuneRequest) -> None:
    try:
        make_folder(request.work)
    except OSError as error:
        raise UsageError(
            f"Cannot make the work folder {request.work} ({error.strerror}). The output's folder must "
            f"exist and be writable. Make it, or choose another --output"
        ) from error


def _clear(work: Path) -> None:
    """Remove an earlier run; the lock stays, and the log, which is open."""
    for path in work.iterdir():
        if path.name not in (LOCK_FILE, LOG_FILE) and not path.is_dir():
            remove(path)
