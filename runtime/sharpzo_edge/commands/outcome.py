"""What a tune has found, as its prompt file and as its result."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ..process_memory import peak_rss_mib
from ..requests import TuneRequest
from ..tuning.answers import BOTH, HEAD, Answers
from ..tuning.prepare import Prepared
from ..tuning.result import DoubtfulPicture, HeadResult, NoneResult, TuneResult
from ..tuning.tuned_prompt import FORMAT_VERSION, HEADS_FORMAT_VERSION, TunedPrompt
from .stages import Found


def prompt_of(request: TuneRequest, ready: Prepared, found: Found, answers: Answers) -> TunedPrompt:
    """The tuned prompt, with all that is told about it."""
    made_heads = {HEAD: answers.head, BOTH: answers.both}
    heads = {use: each.head for use, each in made_heads.items() if each}
    about = {
        "format_version": HEADS_FORMAT_VERSION if heads else FORMAT_VERSION,
        "class_names": list(ready.folder.names),
        "class_folders": list(ready.folder.folders),
        "model": ready.bundle.manifest.model,
        "bundle": ready.bundle.checksum,
        "seed": request.seed,
        "settings": {
            **dataclasses.asdict(ready.settings),
            "shots": request.shots,
            "val": request.val,
            "views": request.views,
            "context_init": ready.context_words,
            "context_tokens": request.context_tokens,
            "max_queries": ready.limits.max_queries,
        },
        "queries": found.queries,
        "train_loss": found.best.train.loss,
        "none": float(request.none),
        "known": {use: dataclasses.asdict(known) for use, known in answers.known.items()},
    }
    if heads:
        about["use"] = answers.use
        about["left_out"] = dataclasses.asdict(answers.left_out)
        about["words_temperature"] = answers.words_temperature
        about["heads"] = {use: {"kind": head.kind, **head.made_by} for use, head in heads.items()}
    return TunedPrompt(
        context=found.context,
        class_features=found.best.class_features,
        about=about,
        words=found.words if heads else None,
        head=heads.get(HEAD),
        both=heads.get(BOTH),
    )


def result_of(
    request: TuneRequest,
    ready: Prepared,
    found: Found,
    answers: Answers,
    n_shots: int = 0,
    doubtful: Sequence[DoubtfulPicture] = (),
) -> TuneResult:
    """n_shots: how many of the drawn pictures are shots, where the answers know the pictures"""
    best = found.best
    return TuneResult(
        queries=found.queries,
        stage1_queries=found.stage1_queries,
        stage2_queries=found.stage2_queries,
        seconds=round(found.seconds, 3),
        peak_rss_mib=round(peak_rss_mib(), 1),
        best_queries=found.best_queries,
        stopped=found.why_ended,
        train_loss=best.train.loss,
        train_accuracy=best.train.accuracy,
        val_accuracy=best.val.accuracy if best.val else None,
        val_loss=best.val.loss if best.val else None,
        zero_shot_train_loss=found.zero_shot_loss,
        plan=ready.plan.to_json(),
        prompt=str(request.output),
        head=_head_result(answers, n_shots),
        use=answers.use,
        left_out=answers.left_out,
        validated=answers.validated,
        covered=answers.covered,
        by_halves=answers.by_halves,
        doubtful=tuple(doubtful),
        none=_none_result(request.none, answers),
    )


def _none_result(share: float, answers: Answers) -> NoneResult:
    known, caught = answers.known.get(answers.use), answers.caught
    return NoneResult(
        share=share,
        pictures=known.pictures if known else 0,
        threshold=answers.threshold,
        called_none=answers.called_none,
        strangers=caught.share if caught else None,
        classes=caught.classes if caught else 0,
    )


def _head_result(answers: Answers, n_shots: int) -> HeadResult | None:
    if answers.head is None:
        return None
    left_out = answers.head.left_out
    of_val = None if left_out is None else left_out.losses[n_shots:]
    return HeadResult(
        kind=answers.head.head.kind,
        weight=answers.head.head.weight,
        val_accuracy=answers.validated.head,
        val_loss=float(of_val.mean()) if of_val is not None and len(of_val) else None,
    )
