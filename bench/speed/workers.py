"""The processes that are measured: torch's ways, and our text tower as the command line runs it.

python -m speed.workers KIND
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

from shared.class_names import CONTEXT_WORDS

from .profiles import last_passes, our_kind, torch_kind
from .task import MODEL, N_CONTEXT

BUDGET_MIB, SHOTS, DIM = 128, 16, 512  # of the tune that a streamed tower is planned for
RANK, KEPT_ROUNDS = 32, 3  # of a round of edge
PASSES_PROFILED = 3


class TorchWorker:
    """torch's two ways, on the weights that the bundle was made of."""

    def prepare(self, bundle: str, names: list[str], threads: int, contexts: str) -> dict[str, Any]:
        import numpy as np
        import torch

        from shared.torch_text import TorchText
        from sharpzo_export.load_clip import load_clip

        torch.set_num_threads(threads)
        self.text = TorchText(load_clip(MODEL, "none", None), names, CONTEXT_WORDS)
        self.contexts = torch.from_numpy(np.load(contexts))
        return {"ordinary": self.text.ordinary_positions, "shared": self.text.shared_positions}

    def run(self, way: str, at_once: int, candidates: int, save: str | None = None) -> float:
        """Seconds for so many candidates."""
        import numpy as np
        import torch

        started = time.perf_counter()
        answers = [getattr(self.text, way)(part) for part in self.contexts[:candidates].split(at_once)]
        seconds = time.perf_counter() - started
        if save:
            np.save(save, torch.cat(answers).numpy())
        return seconds

    def profile(self, way: str, at_once: int) -> dict[str, Any]:
        """Milliseconds a candidate by kind of operator."""
        import torch

        part = self.contexts[:at_once]
        getattr(self.text, way)(part)
        started = time.perf_counter()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
            getattr(self.text, way)(part)
        wall = time.perf_counter() - started
        totals: dict[str, float] = defaultdict(float)
        for event in profiler.key_averages():
            totals[torch_kind(event.key)] += event.self_cpu_time_total / 1e3 / at_once
        return {"ms": dict(totals), "wall_ms": wall * 1e3 / at_once}


class OurWorker:
    """The device side's text tower, in a process as the command line starts it: without torch."""

    def prepare(
        self, bundle: str, names: list[str], threads: int, contexts: str, way: str, **more_work: Any
    ) -> dict[str, Any]:
        """way: "resident" or "streamed";  more_work: of the plan, see Work"""
        import numpy as np

        from sharpzo_edge.clip.bundle import Bundle
        from sharpzo_edge.clip.class_prompts import checked_token_ids, class_prompts
        from sharpzo_edge.clip.sessions import onnxruntime_version
        from sharpzo_edge.memory.budget import budget_of
        from sharpzo_edge.memory.plan import Work, make_plan, tower_json
        from sharpzo_edge.search import cmaes
        from sharpzo_edge.tuning.objective import projection_bytes

        self.bundle = Bundle.open(Path(bundle))
        manifest = self.bundle.manifest
        lengths = tuple(map(len, checked_token_ids(self.bundle, names, N_CONTEXT)))
        work = Work(
            name_lengths=lengths,
            n_context=N_CONTEXT,
            n_features=len(names) * SHOTS,
            threads=threads,
            dim=DIM,
            search_bytes=cmaes.peak_bytes(cmaes.Settings(dim=DIM)),
            projection_bytes=projection_bytes(N_CONTEXT * manifest.text.width, DIM),
            **more_work,
        )
        budget = budget_of(f"{BUDGET_MIB}MiB" if way == "streamed" else None, onnxruntime_version())
        self.plan = make_plan(manifest, work, budget).text
        self.contexts = np.load(contexts)
        self.prompts = class_prompts(self.bundle, names, N_CONTEXT, self.plan.chunk_rows)
        self.tower = self._tower()
        return {
            "plan": tower_json(self.plan.tower) | {"chunk_rows": self.plan.chunk_rows},
            "positions": sum(len(chunk.mask) for chunk in self.prompts.chunks),
            "needed": 1 + N_CONTEXT + sum(lengths),
        }

    def run(self, candidates: int, save: str | None = None) -> float:
        """Seconds for so many candidates, in passes as planned."""
        import numpy as np

        step, answers = self.plan.tower.batch, []
        started = time.perf_counter()
        for first in range(0, candidates, step):
            contexts = self.contexts[first : min(first + step, candidates)]
            answers.append(self.tower.class_features(contexts, self.prompts))
        seconds = time.perf_counter() - started
        if save:
            np.save(save, np.concatenate(answers))
        return seconds

    def regroup(self, group: int) -> None:
        """From now on so many candidates in a run, in a tower of its own."""
        tower = self.plan.tower
        batch = max(group, tower.batch) if tower.mode == "streamed" else group
        self.plan = replace(self.plan, tower=replace(tower, micro_batch=group, batch=batch))
        self.tower.close()
        self.tower = self._tower()

    def profile(self, candidates: int) -> dict[str, Any]:
        """Milliseconds a candidate by kind of operator, in onnxruntime, in reads and around them."""
        from sharpzo_edge.clip.quiet_onnxruntime import ort

        folder = self.bundle.folder.parent
        for left in folder.glob("profile*.json"):  # by a run that was killed
            left.unlink()
        plain, read = ort.SessionOptions, os.preadv
        reading = 0.0

        class Profiled(plain):  # type: ignore[misc, valid-type]
            def __init__(self) -> None:
                super().__init__()
                self.enable_profiling = True
                self.profile_file_prefix = str(folder / "profile")

        def timed(*arguments: Any) -> int:
            nonlocal reading
            started = time.perf_counter()
            n_bytes = read(*arguments)
            reading += time.perf_counter() - started
            return n_bytes

        ort.SessionOptions, os.preadv = Profiled, timed
        try:
            tower = self._tower()
        finally:
            ort.SessionOptions = plain
        self.pass_through(tower, candidates)  # warm
        reading = 0.0
        started = time.perf_counter()
        for _ in range(PASSES_PROFILED):
            self.pass_through(tower, candidates)
        wall = (time.perf_counter() - started) / PASSES_PROFILED
        os.preadv = read
        tower.close()  # writes the profiles
        events = [
            event
            for path in folder.glob("profile*.json")
            for event in last_passes(json.loads(path.read_text()), PASSES_PROFILED, PASSES_PROFILED + 1)
        ]
        for path in folder.glob("profile*.json"):
            path.unlink()
        scale = 1e-3 / PASSES_PROFILED / candidates  # from microseconds
        totals: dict[str, float] = defaultdict(float)
        for event in events:
            if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
                totals[our_kind(event)] += event["dur"] * scale
        runs = sum(e["dur"] for e in events if e["name"] == "model_run") * scale
        totals["between operators"] = runs - sum(totals.values())
        totals["reading blocks"] = reading * 1e3 / PASSES_PROFILED / candidates
        totals["Python and calls"] = wall * 1e3 / candidates - runs - totals["reading blocks"]
        return {"ms": dict(totals), "wall_ms": wall * 1e3 / candidates}

    def pass_through(self, tower: Any, candidates: int) -> Any:
        """What is profiled."""
        return tower.class_features(self.contexts[:candidates], self.prompts)

    def _tower(self) -> Any:
        from sharpzo_edge.clip.towers import TextTower

        return TextTower(self.bundle, self.plan)


class DirectionsWorker(OurWorker):
    """The same with a plan that has tangents. Directions are profiled."""

    def prepare(self, tangents: str, **arguments: Any) -> dict[str, Any]:  # type: ignore[override]
        from sharpzo_edge.search.sketched_descent import Sketch

        return super().prepare(**arguments, tangents=tangents, sketches=(Sketch(RANK, KEPT_ROUNDS),))

    def run_directions(self, directions: int) -> float:
        """Seconds for so many directions and the pass that they share, in batches as planned."""
        step = self.plan.tower.batch
        started = time.perf_counter()
        for first in range(0, directions, step):
            some = self.contexts[first : min(first + step, directions)]
            self.tower.class_feature_tangents(self.contexts[0], some, self.prompts)
        return time.perf_counter() - started

    def pass_through(self, tower: Any, candidates: int) -> Any:
        return tower.class_feature_tangents(self.contexts[0], self.contexts[:candidates], self.prompts)


KINDS: dict[str, type] = {"torch": TorchWorker, "ours": OurWorker, "directions": DirectionsWorker}


def work(name: str) -> None:
    """Serve requests, one JSON object a line: {"do": method, ...} -> its answer."""
    kind = KINDS[name]
    if kind is not TorchWorker:
        from sharpzo_edge.process_memory import govern

        govern()
    worker, answers = kind(), os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(getattr(worker, request.pop("do"))(**request)), file=answers, flush=True)


class Worker:
    """A process that does one thing at a time, and sleeps in between."""

    def __init__(self, kind: str):
        """kind: of KINDS"""
        self._process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name, kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        )

    def __call__(self, do: str, **arguments: Any) -> Any:
        assert self._process.stdin and self._process.stdout
        print(json.dumps({"do": do, **arguments}), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a worker process ended; its message is above")
        return json.loads(line)

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


if __name__ == "__main__":
    work(sys.argv[1])
