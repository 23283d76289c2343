"""The forward-only text tower: context vectors in, unit class features out.

All names share [SOS] and the context, and nothing after EOT reaches EOT. So the names of a run lie one
behind the other in a single sequence of S = 1 + m + R rows: first the P = 1 + m rows that all share, then
every name's own, ended by its EOT. A mask keeps the names apart, positions start anew with each, and no
row is padding. It is exact, and every linear layer is one product over B S rows.

Inputs of the whole graph:
    context         (B, m, D)  candidates
    names           (R, D)     token embeddings of name, ".", EOT, one name behind the other
    name_positions  (R,)       of those rows in their prompts: 1 + m, 2 + m, …, anew for each name
    eot_rows        (K,)       where the EOT of each name stands in the sequence, P … S - 1
    mask            (S, S)     0 where a row sees another, -inf elsewhere
Output: class_features (B, K, E).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import TensorProto
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.transformer import TextTransformer
from torch import nn

from sharpzo_edge.clip.manifest import TextSpec
from sharpzo_edge.clip.tokenizer import EOT_ID

from . import tangent_graphs
from .graph import Array, DataFile, Graph, Places, Values, step
from .linear_weights import LinearWeights
from .tangent_graphs import norm_parts, norm_tangent, unit_tangent
from .transformer import (
    BlockForm,
    as_array,
    attended,
    attention_weights,
    block_form,
    mlp_half,
    mlp_weights,
    queries_keys_values,
    refuse,
)

GRAPH, DATA = "text.onnx", "text.data"
STEM, ATTENTION, LAST_ATTENTION, MLP, HEAD = (
    "text_stem.onnx",
    "text_attention.onnx",
    "text_last_attention.onnx",
    "text_mlp.onnx",
    "text_head.onnx",
)
VOCABULARY_SIZE = EOT_ID + 1
INITIAL_CONTEXT = "a photo of a"


@dataclass(frozen=True)
class TextParts:
    """A causal text tower with EOT pooling, whichever open_clip class carries it."""

    token_embedding: np.ndarray
    positional_embedding: np.ndarray
    blocks: nn.ModuleList
    form: BlockForm
    final_norm: nn.LayerNorm
    projection: torch.Tensor | None  # (D, E)
    projection_bias: np.ndarray | None

    @property
    def embed_dim(self) -> int:
        return self.form.width if self.projection is None else self.projection.shape[1]


def find_text_tower(model: nn.Module, tokenizer: Any) -> TextParts:
    """The parts of the model's text tower. Raises UsageError where the graph would not be exact."""
    if type(model) is CLIP:
        tower, pool, eos = model, model.text_pool_type, model.text_eos_id
        n_positions = model.context_length
    elif type(model) is CustomTextCLIP and type(model.text) is TextTransformer:
        tower, pool, eos = model.text, model.text.pool_type, model.text.eos_id
        n_positions = model.text.num_pos
        if model.text.cls_emb is not None:
            raise refuse("text", "it appends a class token (embed_cls)", "towers pooled at EOT")
        if model.text.output_tokens:
            raise refuse("text", "it returns its tokens too (output_tokens)", "towers that return features")
    else:
        inner = type(getattr(model, "text", model)).__name__
        raise refuse(
            "text",
            f"the model is {type(model).__name__} with {inner}",
            "open_clip's CLIP, and CustomTextCLIP with its TextTransformer",
        )
    if tower.attn_mask is None:
        raise refuse("text", "it is not causal, so names would change the context", "causal towers")
    if type(tokenizer).__name__ != "SimpleTokenizer" or tokenizer.vocab_size != VOCABULARY_SIZE:
        kind = "not CLIP's" if tokenizer is None else type(tokenizer).__name__
        raise refuse("text", f"its tokenizer is {kind}", "CLIP's own BPE of 49,408 tokens")
    if getattr(tokenizer, "reduction_fn", None) or tokenizer.clean_fn.__name__ != "_clean_lower":
        raise refuse("text", "its tokenizer cleans or shortens text its own way", "CLIP's cleaning")
    if pool == "eos" and eos != tokenizer.eot_token_id:
        raise refuse("text", f"it pools at token {eos}, which is not EOT", "pooling at EOT")
    if pool not in ("argmax", "eos"):
        raise refuse("text", f"it pools {pool!r}", "pooling at EOT (argmax, eos)")
    if tower.token_embedding.weight.shape[0] != VOCABULARY_SIZE:
        raise refuse("text", f"its vocabulary has {tower.token_embedding.weight.shape[0]} tokens", "49,408")
    if tower.positional_embedding.shape[0] != n_positions:
        raise refuse("text", "its position table has another length than its context", "equal ones")
    needed = len(tokenizer.encode(INITIAL_CONTEXT)) + 4  # [SOS], a token of name, ".", EOT
    if n_positions < needed:
        raise refuse("text", f"it has {n_positions} positions", f"at least {needed}, for {INITIAL_CONTEXT!r}")
    projection = tower.text_projection
    is_linear = isinstance(projection, nn.Linear)
    return TextParts(
        token_embedding=as_array(tower.token_embedding.weight),
        positional_embedding=as_array(tower.positional_embedding),
        blocks=tower.transformer.resblocks,
        form=block_form(tower.transformer.resblocks, "text"),
        final_norm=tower.ln_final,
        projection=projection.weight.T if is_linear else projection,
        projection_bias=as_array(projection.bias) if is_linear and projection.bias is not None else None,
    )


def write_text_graphs(
    folder: Path, tower: TextParts, sos_id: int, linear: LinearWeights, tangents: str
) -> TextSpec:
    """Write text.data, text.onnx, the step graphs and the tangents'; returns the manifest's part.

    tangents: as export's option has it
    """
    form = tower.form
    data = DataFile(folder / DATA)
    edges: dict[str, Array] = {
        "sos": tower.token_embedding[sos_id][None, None],
        "positions": tower.positional_embedding,
        "ln_final.weight": as_array(tower.final_norm.weight),
        "ln_final.bias": as_array(tower.final_norm.bias),
    }
    if tower.projection is not None:
        edges["projection.weight"] = linear(tower.projection)
    if tower.projection_bias is not None:
        edges["projection.bias"] = tower.projection_bias
    edge = {name: data.append(name, array) for name, array in edges.items()}
    copies = DataFile(folder / tangent_graphs.DATA) if tangents == "int8" else None
    halves, rounded = [], []
    for block in tower.blocks:
        arrays = attention_weights(block, linear), mlp_weights(block, linear)
        halves.append((data.append_block(arrays[0]), data.append_block(arrays[1])))
        if copies:
            of_attention, of_mlp = map(tangent_graphs.rounded_copies, arrays)
            rounded.append((copies.append_block(of_attention), copies.append_block(of_mlp)))
    data.close()
    if copies:
        copies.close()

    whole = Graph("text", data)
    rows = _stem(whole, edge, form)
    places = _place_inputs(whole)
    for i, (attention, mlp) in enumerate(halves):
        half = _attention_half if i < len(halves) - 1 else _last_attention_half
        rows = half(whole, rows, whole.weights(attention, f"block.{i}."), form, *places)
        rows = mlp_half(whole, rows, whole.weights(mlp, f"block.{i}."), form)
    _head(whole, rows, edge, tower)
    whole.save(folder / GRAPH)

    stem = Graph("text_stem", data)
    all_rows = ("B", "S", form.width)
    stem.output("rows", _stem(stem, edge, form), all_rows)
    stem.save(folder / STEM)
    for name, half, out_shape in (
        (ATTENTION, _attention_half, all_rows),
        (LAST_ATTENTION, _last_attention_half, ("B", "K", form.width)),
    ):
        g = Graph(name.removesuffix(".onnx"), data)
        rows = g.input("rows", all_rows)
        places = _place_inputs(g)
        g.output("rows_out", half(g, rows, g.weight_inputs(halves[0][0]), form, *places), out_shape)
        g.save(folder / name)
    g = Graph(MLP.removesuffix(".onnx"), data)
    any_rows = ("B", "R", form.width)
    rows = g.input("rows", any_rows)
    g.output("rows_out", mlp_half(g, rows, g.weight_inputs(halves[0][1]), form), any_rows)
    g.save(folder / MLP)
    head = Graph("text_head", data)
    rows = head.input("rows", ("B", "K", form.width))
    _head(head, rows, edge, tower)
    head.save(folder / HEAD)

    steps = [step(STEM, {})]
    for i, (attention, mlp) in enumerate(halves):
        graph = ATTENTION if i < len(halves) - 1 else LAST_ATTENTION
        steps += [step(graph, attention), step(MLP, mlp)]
    steps.append(step(HEAD, {}))
    spec = None
    if tangents != "none":
        head_tangent = partial(_head_tangent, edge=edge, tower=tower)
        spec = tangent_graphs.write_tangent_graphs(
            folder, data, form, halves, rounded, head_tangent, tower.embed_dim
        )
    return TextSpec(
        graph=GRAPH,
        data=DATA,
        steps=tuple(steps),
        width=form.width,
        heads=form.heads,
        layers=len(halves),
        context_length=len(tower.positional_embedding),
        vocabulary=len(tower.token_embedding),
        activation=form.activation,
        tangents=spec,
    )


def _stem(g: Graph, edge: Places, form: BlockForm) -> str:
    """context (B, m, D), names (R, D) -> rows (B, S, D), positions added."""
    context = g.input("context", ("B", "m", form.width))
    names = g.input("names", ("R", form.width))
    places = g.input("name_positions", ("R",), TensorProto.INT64)
    table = g.weight(edge["positions"])
    batch, one = g.size(context, 0), g.constant([1])
    n_shared = g.op("Add", g.size(context, 1), one)  # P
    sos = g.op("Expand", g.weight(edge["sos"]), g.op("Concat", batch, one, one, axis=0))
    shared = g.op("Add", g.op("Concat", sos, context, axis=1), g.slice(table, 0, n_shared, 0))
    placed = g.op("Add", names, g.op("Gather", table, places, axis=0))
    repeated = g.op(
        "Expand", g.op("Unsqueeze", placed, g.constant([0])), g.op("Concat", batch, one, one, axis=0)
    )
    return g.op("Concat", shared, repeated, axis=1)


def _place_inputs(g: Graph) -> tuple[str, str]:
    return g.input("mask", ("S", "S")), g.input("eot_rows", ("K",), TensorProto.INT64)


def _attention_half(g: Graph, rows: str, w: Values, form: BlockForm, mask: str, eot_rows: str) -> str:
    """Attention on all rows (B, S, D). (`eot_rows` is unused, as all rows go on.)"""
    q, k, v = queries_keys_values(g, rows, w, form)
    return attended(g, rows, q, k, v, w, form, mask)


def _last_attention_half(g: Graph, rows: str, w: Values, form: BlockForm, mask: str, eot_rows: str) -> str:
    """The last block's attention, for the EOT rows alone: (B, S, D) -> (B, K, D)."""
    q, k, v = queries_keys_values(g, rows, w, form)
    q, rows = (g.op("Gather", x, eot_rows, axis=1) for x in (q, rows))
    return attended(g, rows, q, k, v, w, form, g.op("Gather", mask, eot_rows, axis=0))


def _head(g: Graph, rows: str, edge: Places, tower: TextParts) -> None:
    """EOT rows (B, K, D) -> unit class features (B, K, E)."""
    w = _head_weights(g, edge)
    x = g.layer_norm(rows, w["ln_final.weight"], w["ln_final.bias"], tower.final_norm.eps)
    g.output("class_features", g.unit(_projected(g, x, w)), ("B", "K", tower.embed_dim))


def _head_tangent(g: Graph, rows: str, tangents: str, *, edge: Places, tower: TextParts) -> str:
    """EOT rows (1, K, D) and their tangents (B, K, D) -> tangents of unit class features (B, K, E)."""
    w = _head_weights(g, edge)
    x, parts = norm_parts(g, rows, w["ln_final.weight"], w["ln_final.bias"], tower.final_norm.eps)
    dx = norm_tangent(g, tangents, parts)
    if "projection.weight" in w:
        dx = g.linear(dx, w["projection.weight"], None)
    return unit_tangent(g, _projected(g, x, w), dx)


def _head_weights(g: Graph, edge: Places) -> Values:
    return g.weights({n: place for n, place in edge.items() if n.startswith(("ln_final", "projection"))})


def _projected(g: Graph, x: str, w: Values) -> str:
    """Rows (B, K, D) -> (B, K, E)."""
    if "projection.weight" not in w:
        return x
    return g.linear(x, w["projection.weight"], w.get("projection.bias"))
