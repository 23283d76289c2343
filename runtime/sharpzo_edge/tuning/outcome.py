"""What a run came to: the tuned prompt with all that is told about it, and the result that is printed."""

from __future__ import annotations

import dataclasses

from ..memory.plan import Plan
from ..process_memory import peak_rss_mib
from .heads import Head
from .loop import Look, Run
from .objective import Objective
from .prepare import Prepared
from .record import Head as HeadFound
from .record import Result
from .request import TuneRequest
from .tuned_prompt import FORMAT_VERSION, HEAD_FORMAT_VERSION, TunedPrompt


def prompt_of(
    request: TuneRequest, ready: Prepared, objective: Objective, best: Look, head: Head | None
) -> TunedPrompt:
    """request: with the settings that the run had; best: its best look."""
    words = request.initial_words(ready.bundle) if request.context_tokens is None else None
    return TunedPrompt(
        context=objective.contexts(best.w[None])[0],
        class_features=best.class_features,
        about={
            "format_version": FORMAT_VERSION if head is None else HEAD_FORMAT_VERSION,
            "class_names": list(ready.folder.names),
            "class_folders": list(ready.folder.folders),
            "model": ready.bundle.manifest.model,
            "bundle": ready.bundle.checksum,
            "seed": request.seed,
            "settings": {
                **dataclasses.asdict(request.settings),
                "shots": request.shots,
                "val": request.val,
                "views": request.views,
                "context_init": words,
                "context_tokens": request.context_tokens,
                "max_queries": request.query_limit,
            },
            "queries": objective.queries,
            "train_loss": best.train.loss,
            **({} if head is None else {"head": {"kind": request.head, "weight": head.weight}}),
        },
        head=head,
    )


def result_of(request: TuneRequest, plan: Plan, run: Run, head: HeadFound | None) -> Result:
    """Of a run that has come to its end; head: what it is worth with the prompt."""
    state, best = run.state, run.state.best
    return Result(
        queries=run.queries,
        stage1_queries=state.stage1_queries,
        stage2_queries=state.stage2_queries,
        seconds=round(run.seconds, 3),
        peak_rss_mib=round(peak_rss_mib(), 1),
        best_queries=state.best_queries,
        stopped=run.why_stopped,
        train_loss=best.train.loss,
        train_accuracy=best.train.accuracy,
        val_accuracy=best.val.accuracy if best.val else None,
        val_loss=best.val.loss if best.val else None,
        zero_shot_train_loss=state.zero_shot_loss,
        plan=plan.report(),
        prompt=str(request.output),
        head=head,
    )
