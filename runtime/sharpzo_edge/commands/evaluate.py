"""`eval`: accuracy on a folder of labelled pictures, zero-shot or with a tuned prompt."""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..clip.bundle import Bundle
from ..clip.class_prompts import checked_token_ids, context_from_words, prompts_of
from ..clip.sessions import check_threads, onnxruntime_version
from ..clip.tower_plan import ImagePlan
from ..clip.towers import TextTower
from ..errors import ImagesError, NumericsError, UsageError
from ..memory.budget import Budget, budget_of, machine_for
from ..memory.plan import Work, make_plan, plan_images
from ..pictures.encode import Encoder
from ..pictures.folder import FileNames, LabelledFolder, Skipped, read_folder, skipped_pictures
from ..report.answered import Answered
from ..requests import EvaluateRequest, by_keywords
from ..run.progress import Caller, caller_of
from ..search.losses import logits_of
from ..tuning.answers import PROMPT, WORDS, ByUse, PictureAnswers
from ..tuning.known import are_none
from ..tuning.tuned_prompt import (
    TunedPrompt,
    check_fits,
    checked_use,
    load_prompt,
    threshold_of,
    without_threshold,
)
from ..types import Floats
from ..wording import counted
from .paths import nothing_read, paths_of
from .reports import check_report, report_of_evaluation
from .tally import Tally, Way

NOTHING_KEPT = "Nothing is kept of an evaluation. Type the same command again"


@dataclass(frozen=True)
class CalledNone:
    """How many pictures the way in use calls none of the classes.

    share:       of known pictures, that may be called so, as it was asked
    threshold:   the largest logit below which a picture is none
    called_none: the share of the folder's pictures that is below it
    strangers:   the share of the strangers that is below it; None without these
    n_strangers: that were read
    """

    share: float
    threshold: float
    called_none: float
    strangers: float | None
    n_strangers: int


@dataclass(frozen=True)
class EvaluateResult:
    """What a folder's pictures were labelled as.

    Accuracies are fractions. A picture that is called none counts by its likeliest class.

    accuracy:  of the way to label that is in use
    n_images:  that were read
    per_class: of that way, for classes that have pictures
    use:       "words", "prompt", "head" or "both"
    by:        the accuracy of each way that the prompt has
    none:      None without a threshold: of other classes than the prompt's own, and without a prompt
    """

    accuracy: float
    n_images: int
    n_classes: int
    per_class: dict[str, float]
    use: str
    by: ByUse
    none: CalledNone | None

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def evaluate_request(request: EvaluateRequest) -> EvaluateResult:
    """The accuracy on a folder of labelled pictures.

    prompt:  a tuned prompt's file; without it, the bundle's initial words
    use:     which answer of the prompt's file: "words", "prompt", "head" or "both"; None: what tune chose
    none:    the share of known pictures that may be called none of the classes; None: as tune was asked
    strangers: a folder of pictures of no class, also in folders within; how many are called none is told
    classes: names to choose among, instead of the prompt's own or the folders'. Heads know only the classes
             that they were made from, so words and prompt are left
    memory_budget: bounds what the call adds to this process; None: what the machine can give
    Costs no query for a prompt's own classes, one without a prompt, two for other classes with a prompt.
    Raises ImagesError when a folder is no class, or no picture could be read; with `strict`
    SkippedPicturesError when one could not.
    """
    caller = caller_of(request.on_progress, request.stop)
    if request.report is None:
        return _evaluated(request, caller)[0]
    check_report(request.memory_budget, Path(request.report))
    result, answered = _evaluated(request, caller)
    report_of_evaluation(request, result.to_json(), answered, caller)
    return result


def _evaluated(request: EvaluateRequest, caller: Caller) -> tuple[EvaluateResult, Answered]:
    """The result, and what every picture is answered by the way in use."""
    check_threads(request.threads)
    bundle = Bundle.open(Path(request.bundle))
    # What to choose among may come from elsewhere; then one class is enough.
    fewest = 1 if request.prompt or request.classes else 2
    class_names = Path(request.class_names) if request.class_names else None
    folder = read_folder(Path(request.images), class_names, fewest)
    prompt = load_prompt(Path(request.prompt)) if request.prompt else None
    use = _use(request, bundle, prompt, caller)
    threshold = _threshold(request, use, prompt)
    machine = machine_for(bundle, request.threads, request.memory_budget)
    request = dataclasses.replace(request, threads=request.threads or machine.cores)
    budget = budget_of(request.memory_budget, onnxruntime_version(), machine)
    if budget.note:
        caller.say(f"note: {budget.note}")
    names, ways, plan = _ways(request, bundle, folder, prompt, budget)
    by_disk = prompt if request.classes is None and class_names is None else None
    truth = _class_of_folder(folder, names, by_disk)

    n_files = sum(map(len, folder.files))
    labels = np.repeat(truth, [len(paths) for paths in folder.files])
    tally = Tally(ways, use, threshold, labels, len(names), keeps_answers=request.report is not None)
    skipped = Skipped()
    with Encoder(bundle, plan) as encoder:
        are_caught = _are_caught(request, encoder, ways[use], threshold, skipped, caller)
        for numbers, image_features in encoder.files(chain.from_iterable(folder.files), skipped.add):
            tally.add(numbers, image_features)
            # No accuracy before the end: classes come one after the other, and the first may be the worst.
            caller.status(f"{tally.n_images} of {counted(n_files, 'picture')}")
            caller.raise_if_stopped(NOTHING_KEPT)
    _say_what_was_left(request, folder, skipped, caller)
    if not tally.n_images:
        raise ImagesError(
            f"No picture in {request.images} could be read ({counted(n_files, 'file')}). At least one is "
            f"needed. Check the path after --images"
        )
    none = None
    if prompt and threshold is not None:
        none = CalledNone(
            share=prompt.none if request.none is None else request.none,
            threshold=threshold,
            called_none=tally.n_none / tally.n_images,
            strangers=float(are_caught.mean()) if len(are_caught) else None,
            n_strangers=len(are_caught),
        )
    by = tally.accuracies()
    result = EvaluateResult(
        accuracy=by[use],
        n_images=tally.n_images,
        n_classes=len(names),
        per_class=tally.per_class(names),
        use=use,
        by=ByUse(**by),
        none=none,
    )
    return result, _answered(use, names, folder, labels, tally.kept)


def _use(request: EvaluateRequest, bundle: Bundle, prompt: TunedPrompt | None, caller: Caller) -> str:
    """The way to label: what was asked for, or what tune chose. Raises UsageError where it cannot be."""
    if prompt is None:
        if request.use not in (None, WORDS):
            raise UsageError(
                f"--use {request.use} goes with a prompt, and there is none. Without one there are the "
                f"words. Add --prompt FILE, or leave --use out"
            )
        return WORDS
    path = Path(str(request.prompt))
    check_fits(path, prompt, bundle)
    use = checked_use(request.use, prompt, path)
    return use if request.classes is None else _without_head(use, request, prompt, caller)


def _say_what_was_left(
    request: EvaluateRequest, folder: LabelledFolder, skipped: Skipped, caller: Caller
) -> None:
    """Raises SkippedPicturesError with `strict`, where a file was no picture."""
    if empty := [name for name, paths in zip(folder.folders, folder.files, strict=True) if not paths]:
        caller.say(f"without a picture: {', '.join(empty)}")
    passed_over = [*folder.skipped_lines(), *skipped.lines()]
    if request.strict and passed_over:
        raise skipped_pictures(passed_over)
    for line in (*folder.passed_over, *passed_over):
        caller.say(line)


def _answered(
    use: str,
    names: list[str],
    folder: LabelledFolder,
    labels: NDArray[np.int64],
    kept: list[tuple[list[int], PictureAnswers]],
) -> Answered:
    """kept: by batches the numbers of the pictures that were read, and their answers"""
    numbers = [number for of_batch, _ in kept for number in of_batch]
    return Answered(
        use=use,
        names=names,
        files=FileNames(folder, numbers),
        labels=labels[numbers].tolist(),
        **{
            name: [value for _, found in kept for value in getattr(found, name).tolist()]
            for name in ("answers", "scores", "label_scores")
        },
        has_say=[True] * len(numbers),
        is_val=[True] * len(numbers),
    )


evaluate = by_keywords(EvaluateRequest)(evaluate_request)


def _without_head(use: str, request: EvaluateRequest, prompt: TunedPrompt, caller: Caller) -> str:
    """The way to take with class names that no head knows. Raises UsageError when a head was asked for."""
    if use in (WORDS, PROMPT):
        return use
    if request.use is not None:
        raise UsageError(
            f"--use {use} does not go with --classes: a head knows only the classes that it was made from. "
            f"With other names there are words and prompt. Leave --use out, or type --use prompt"
        )
    rest = PROMPT if PROMPT in prompt.uses else WORDS
    caller.say(
        f"the head knows only the classes it was made from: with --classes the {rest} "
        f"{'is' if rest == PROMPT else 'are'} used"
    )
    return rest


def _threshold(request: EvaluateRequest, use: str, prompt: TunedPrompt | None) -> float | None:
    """The largest logit below which a picture is none of the classes; None: nothing is.

    Raises UsageError where --none or --strangers is given, and there is none.
    """
    if prompt is None:
        why, instead = "there is no prompt", "add --prompt FILE"
    elif request.classes is not None:
        why, instead = "--classes names others than the prompt's own", "leave out --classes"
    else:
        threshold = threshold_of(request.none, use, prompt, Path(str(request.prompt)))
        if threshold is not None or request.strangers is None:
            return threshold
        why = f"{request.prompt} calls nothing none of the classes: {without_threshold(use, prompt)}"
        instead = "tune again with more pictures"
    for name, value in (("--none", request.none), ("--strangers", request.strangers)):
        if value is not None:
            raise UsageError(
                f"{name} {value} has no meaning here: {why}. It takes a prompt that says when a picture is "
                f"none of its classes. Try without it, or {instead}"
            )
    return None


def _are_caught(
    request: EvaluateRequest,
    encoder: Encoder,
    logits_by: Way,
    threshold: float | None,
    skipped: Skipped,
    caller: Caller,
) -> NDArray[np.bool_]:
    """Whether each stranger is called none of the classes: (N,). Raises ImagesError when none can be read."""
    if request.strangers is None:
        return np.zeros(0, bool)
    no_pictures = Skipped()
    ask_stop = partial(caller.raise_if_stopped, NOTHING_KEPT)
    files = paths_of((request.strangers,), no_pictures, ask_stop)
    found: list[NDArray[np.bool_]] = []
    for _, image_features in encoder.files(files, skipped.add):
        found.append(are_none(logits_by(image_features), threshold))
        caller.status(f"{counted(sum(map(len, found)), 'stranger')} labelled")
        ask_stop()
    for line in no_pictures.lines("file"):
        caller.say(line)
    if not found:
        raise nothing_read((request.strangers,), skipped)
    return np.concatenate(found)


def _ways(
    request: EvaluateRequest,
    bundle: Bundle,
    folder: LabelledFolder,
    prompt: TunedPrompt | None,
    budget: Budget,
) -> tuple[list[str], dict[str, Way], ImagePlan]:
    """The names to choose among, the ways to get logits (b, K), and how the image tower will run."""
    scale = bundle.manifest.logit_scale
    if prompt and request.classes is None:
        image_plan = plan_images(
            bundle.manifest, request.threads, budget, folder.listing_bytes, prompt.n_bytes
        )
        budget.require_floor()
        own = {use: partial(prompt.logits, logit_scale=scale, use=use) for use in prompt.uses}
        return prompt.class_names, dict(own), image_plan
    own_names = folder.names, folder.folders
    names, folders = own_names if request.classes is None else (tuple(request.classes), ())
    contexts = {WORDS: context_from_words(bundle, _initial_words(bundle, prompt))}
    if prompt and PROMPT in prompt.uses:
        contexts[PROMPT] = prompt.context
    found: dict[str, Way] = {}
    for length in {len(context): None for context in contexts.values()}:  # one tower for equal lengths
        alike = {use: context for use, context in contexts.items() if len(context) == length}
        features, image_plan = _class_features(
            request, bundle, folder, names, folders, [*alike.values()], budget
        )
        for use, T in zip(alike, features, strict=True):
            found[use] = partial(logits_of, class_features=T, logit_scale=scale)
    return list(names), found, image_plan


def _initial_words(bundle: Bundle, prompt: TunedPrompt | None) -> str:
    """The words that a prompt was tuned from; the bundle's own where it was random vectors."""
    words = prompt.about["settings"].get("context_init") if prompt else None
    return words if isinstance(words, str) else bundle.manifest.initial_context


def _class_features(
    request: EvaluateRequest,
    bundle: Bundle,
    folder: LabelledFolder,
    names: tuple[str, ...],
    folders: tuple[str, ...],
    contexts: Sequence[Floats],
    budget: Budget,
) -> tuple[list[Floats], ImagePlan]:
    """Unit class features (K, E) of each context (m, D), and how the image tower will run.

    Costs a query for each.
    """
    n_context = len(contexts[0])
    ids = checked_token_ids(bundle, names, n_context, folders)
    work = Work(
        name_lengths=tuple(map(len, ids)),
        n_context=n_context,
        threads=request.threads,
        listing_bytes=folder.listing_bytes,
        listing_peak_bytes=folder.listing_peak_bytes,
    )
    plan = make_plan(bundle.manifest, work, budget)
    budget.require_floor()
    prompts = prompts_of(bundle, names, ids, n_context, plan.text.chunk_rows)
    with TextTower(bundle, plan.text) as tower:
        found = [tower.class_features(context[None], prompts)[0] for context in contexts]
    for features in found:
        if not np.isfinite(features).all():
            raise NumericsError(
                f"The text tower's answer holds {np.isnan(features).sum()} NaN among {features.size} "
                f"numbers. Class features must be finite. Check the bundle with: sharpzo-edge doctor "
                f"--bundle {bundle.folder}"
            )
    return found, plan.image


def _class_of_folder(folder: LabelledFolder, names: list[str], prompt: TunedPrompt | None) -> list[int]:
    """The class number of every folder: by its name on disk as when tuned, or by the words it reads as."""
    by_folder = {_same(f): k for k, f in enumerate(prompt.class_folders)} if prompt else {}
    by_name = {_same(name): k for k, name in enumerate(names)}
    found = [
        by_folder.get(_same(on_disk), by_name.get(_same(words)))
        for on_disk, words in zip(folder.folders, folder.names, strict=True)
    ]
    missing = [f for f, k in zip(folder.folders, found, strict=True) if k is None]
    if missing:
        raise ImagesError(
            f"The folders {missing[:5]} of {folder.root} are none of the classes {names[:5]}… "
            f"Every folder must be named like a class. Rename them, give words with --class-names FILE, or "
            f"name the classes to choose among with --classes"
        )
    return [k for k in found if k is not None]


def _same(name: str) -> str:
    """One spelling of a name: file systems spell accents in two ways."""
    return unicodedata.normalize("NFC", name)
