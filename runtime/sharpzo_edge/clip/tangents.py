"""Tangents of the text tower: how the class features change along directions of the context.

This is forward-mode differentiation, so forward passes alone: a tangent dX travels beside the rows X through
each half of a block, one half after the other. The halves' graphs are from export (tangent_graphs.py has the
formulas). All directions share one primal pass, which is the ordinary pass at the context. What it hands over
to the tangents is that of one half, so nothing kept has the size of the depth.

It runs step by step in every mode. So a resident tower and a streamed one give the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..types import Floats
from .bundle import Bundle
from .class_prompts import ClassPrompts, NameChunk
from .sessions import giving_back, open_session, run_session
from .streaming import StepWeights, Weights, kept
from .tower_plan import STREAMING, TextPlan

HALVES = slice(1, -1)  # of the text tower's steps: all but stem and head


@dataclass
class _Chunk:
    """The rows of one chunk of names on their way through the tower.

    rows:     (1, S, D), the primal ones
    tangents: one array (n, S, D) for each micro-batch of directions
    places:   mask and EOT rows, by the names of inputs
    """

    names: NameChunk
    rows: Floats
    tangents: list[Floats]
    places: dict[str, Any]


class TangentTower:
    """Runs the graphs of tangents, with float32 or 8-bit products."""

    def __init__(self, bundle: Bundle, plan: TextPlan, weights: StepWeights | None):
        """plan: has tangents, of a kind that the bundle has.  weights: of the tower, if it is streamed."""
        text = bundle.manifest.text
        # Also for a mapped tower packed: products with weights as they lie on disk have other bits.
        mode = "packed" if plan.tower.mode == "mapped" else plan.tower.mode
        spec, in_8_bits = text.tangents, plan.tangents == "int8"
        assert spec  # the plan was made for this bundle
        self._halves = [(step.primal, step.graph(in_8_bits)) for step in spec.steps]
        self._stem, self._head = text.steps[0].graph, spec.head
        graphs = dict.fromkeys([self._stem, *(g for half in self._halves for g in half), self._head])
        self._sessions = {g: open_session(bundle, g, text.data, mode, plan.threads) for g in graphs}
        self._inputs = {g: {i.name for i in s.get_inputs()} for g, s in self._sessions.items()}
        self._handed_over = {g: [o.name for o in s.get_outputs()][1:] for g, s in self._sessions.items()}
        is_held = mode not in STREAMING
        self._weights = weights or StepWeights(bundle, text.data, text.steps, is_held)
        self._rounded = (
            StepWeights(bundle, spec.data, spec.steps, is_held) if in_8_bits and spec.data else None
        )
        self._micro_batch = plan.tower.micro_batch
        self._at_the_end = giving_back() if mode == "streamed" else None
        self._embed_dim = bundle.manifest.embed_dim

    def tangents(self, context: Floats, directions: Floats, prompts: ClassPrompts) -> Floats:
        """context (m, D), directions (n, m, D), n > 0 -> tangents of the class features (n, K, E) float32."""
        starts = range(0, len(directions), self._micro_batch)
        parts = [slice(start, start + self._micro_batch) for start in starts]
        chunks = [self._begun(context, [directions[p] for p in parts], names) for names in prompts.chunks]
        for half, weights in zip(self._halves, self._read_weights(), strict=True):
            for chunk in chunks:
                self._through_half(chunk, *half, weights)
        return self._class_features(chunks, parts, len(prompts.names))

    def _read_weights(self) -> Iterator[Weights]:
        """Yields the weights of each half, those of its 8-bit products among them."""
        halves = self._weights.read(HALVES)
        if not self._rounded:
            yield from halves
            return
        for weights, rounded in zip(halves, self._rounded.read(), strict=True):
            yield weights | rounded

    def _begun(self, context: Floats, directions: list[Floats], names: NameChunk) -> _Chunk:
        """The rows that enter the first block. Only those of the context have a tangent."""
        of_names = {"names": names.embeddings(), "name_positions": names.positions}
        (rows,) = self._run(self._stem, {"context": context[np.newaxis]} | of_names)
        tangents = []
        for part in directions:
            begun = np.zeros((len(part), *rows.shape[1:]), np.float32)
            begun[:, 1 : 1 + len(context)] = part
            tangents.append(begun)
        # At least two EOT rows: the bits of a product with one row differ from those with several.
        eot_rows = np.resize(names.eot_rows, max(2, len(names.eot_rows)))
        return _Chunk(names, np.array(rows), tangents, {"mask": names.mask, "eot_rows": eot_rows})

    def _through_half(self, chunk: _Chunk, primal: str, tangent: str, weights: Weights) -> None:
        """Move a chunk's rows and tangents through one half of a block."""
        rows, *values = self._run(primal, {"rows": chunk.rows} | chunk.places | weights)
        shared = dict(zip(self._handed_over[primal], values, strict=True)) | chunk.places | weights
        for i, tangents in enumerate(chunk.tangents):
            (moved,) = self._run(tangent, {"tangents": tangents} | shared)
            chunk.tangents[i] = kept(tangents, moved)
        chunk.rows = kept(chunk.rows, rows)

    def _class_features(self, chunks: list[_Chunk], parts: list[slice], n_names: int) -> Floats:
        """The tangents of the class features (n, K, E), from those of all chunks' EOT rows."""
        n_directions = parts[-1].start + len(chunks[0].tangents[-1])
        result = np.empty((n_directions, n_names, self._embed_dim), np.float32)
        for chunk in chunks:
            for part, tangents in zip(parts, chunk.tangents, strict=True):
                is_end = chunk is chunks[-1] and part is parts[-1]
                feeds = {"rows": chunk.rows, "tangents": tangents}
                (answer,) = self._run(self._head, feeds, self._at_the_end if is_end else None)
                result[part, chunk.names.classes] = answer[:, : len(chunk.names.eot_rows)]
        return result

    def _run(self, graph: str, feeds: dict[str, Any], options: Any = None) -> list[Floats]:
        """Run a graph with those of the feeds that are its inputs."""
        names = self._inputs[graph]
        return run_session(self._sessions[graph], {n: v for n, v in feeds.items() if n in names}, options)
