"""The forward-only text tower: context vectors in, unit class features out.

With a causal mask and the class name after the context, [SOS] and the context vectors see only
themselves, so their rows are computed once for all classes; and nothing after EOT reaches EOT, so
names end there. Rows are laid out (B, P + K L, D): the P = 1 + m rows that all classes share, then
K names of L rows. One linear layer is then one product over all of them.

Inputs of the whole graph:
    context       (B, m, D)   candidates
    names         (K, L, D)   token embeddings of name, ".", EOT, zero-padded to L
    eot_index     (K,)        where EOT stands in each name, 0 … L-1
    context_mask  (P, P)      0 on and below the diagonal, -inf above
    name_mask     (L, L)      likewise
Output: class_features (B, K, E).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import TensorProto
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.transformer import TextTransformer
from torch import nn

from sharpzo_edge import bundle
from sharpzo_edge.tokenizer import EOT_ID

from .graph import Array, DataFile, Graph, Places, Values, step
from .quantize import LinearWeights
from .transformer import (
    BlockForm,
    as_array,
    attention_weights,
    block_form,
    by_head,
    from_heads,
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


def write_text_graphs(folder: Path, tower: TextParts, sos_id: int, linear: LinearWeights) -> bundle.TextSpec:
    """Write text.data, text.onnx and the step graphs; returns the manifest's part."""
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
    halves = [
        (data.append_block(attention_weights(b, linear)), data.append_block(mlp_weights(b, linear)))
        for b in tower.blocks
    ]
    data.close()

    whole = Graph("text", data)
    rows = _stem(whole, edge, form)
    masks = _mask_inputs(whole)
    for i, (attention, mlp) in enumerate(halves):
        half = _attention_half if i < len(halves) - 1 else _last_attention_half
        rows = half(whole, rows, whole.weights(attention, f"block.{i}."), form, *masks)
        rows = mlp_half(whole, rows, whole.weights(mlp, f"block.{i}."), form)
    _head(whole, rows, edge, tower)
    whole.save(folder / GRAPH)

    stem = Graph("text_stem", data)
    all_rows = ("B", "P+KL", form.width)
    stem.output("rows", _stem(stem, edge, form), all_rows)
    stem.save(folder / STEM)
    for name, half, out_shape in (
        (ATTENTION, _attention_half, all_rows),
        (LAST_ATTENTION, _last_attention_half, ("B", "K", form.width)),
    ):
        g = Graph(name.removesuffix(".onnx"), data)
        rows = g.input("rows", all_rows)
        masks = _mask_inputs(g)
        g.output("rows_out", half(g, rows, g.weight_inputs(halves[0][0]), form, *masks), out_shape)
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
    return bundle.TextSpec(
        graph=GRAPH,
        data=DATA,
        steps=tuple(steps),
        width=form.width,
        heads=form.heads,
        layers=len(halves),
        context_length=len(tower.positional_embedding),
        vocabulary=len(tower.token_embedding),
        activation=form.activation,
    )


def _stem(g: Graph, edge: Places, form: BlockForm) -> str:
    """context (B, m, D), names (K, L, D) -> rows (B, P + K L, D), positions added."""
    context = g.input("context", ("B", "m", form.width))
    names = g.input("names", ("K", "L", form.width))
    positions = g.weight(edge["positions"])
    batch, n_context, n_names, length = (
        g.size(context, 0),
        g.size(context, 1),
        g.size(names, 0),
        g.size(names, 1),
    )
    one, width = g.constant([1]), g.constant([form.width])
    shared = g.op("Add", n_context, one)  # P
    end = g.op("Add", shared, length)
    sos = g.op("Expand", g.weight(edge["sos"]), g.op("Concat", batch, one, one, axis=0))
    prefix = g.op("Add", g.op("Concat", sos, context, axis=1), g.slice(positions, 0, shared, 0))
    placed = g.op("Add", names, g.slice(positions, shared, end, 0))
    flat = g.reshape(placed, 1, -1, form.width)
    n_rows = g.op("Mul", n_names, length)
    repeated = g.op("Expand", flat, g.op("Concat", batch, n_rows, width, axis=0))
    return g.op("Concat", prefix, repeated, axis=1)


def _mask_inputs(g: Graph) -> tuple[str, str, str]:
    return (
        g.input("context_mask", ("P", "P")),
        g.input("name_mask", ("L", "L")),
        g.input("eot_index", ("K",), TensorProto.INT64),
    )


def _attention_half(
    g: Graph,
    rows: str,
    w: Values,
    form: BlockForm,
    context_mask: str,
    name_mask: str,
    eot_index: str,
) -> str:
    """Attention on all rows (B, P + K L, D). (`eot_index` is unused, as all rows go on.)"""
    n_shared, length = g.size(context_mask, 0), g.size(name_mask, 0)
    q, k, v = (by_head(g, x, form.heads, form.head_width) for x in queries_keys_values(g, rows, w, form))
    q, k, v = (_split_rows(g, x, n_shared, axis=2) for x in (q, k, v))

    scores = g.op("MatMul", q[0], g.transpose(k[0], 0, 1, 3, 2))
    scores = g.op("Softmax", g.op("Add", scores, context_mask), axis=-1)
    shared = g.op("MatMul", scores, v[0])  # (B, H, P, d)
    names = _attend_from_names(g, q[1], k, v, name_mask, form, length)

    mixed = from_heads(g, g.op("Concat", shared, names, axis=2), form)
    return g.op("Add", rows, g.linear(mixed, w["out.weight"], w["out.bias"]))


def _last_attention_half(
    g: Graph,
    rows: str,
    w: Values,
    form: BlockForm,
    context_mask: str,
    name_mask: str,
    eot_index: str,
) -> str:
    """The last block's attention, for the EOT rows alone: (B, P + K L, D) -> (B, K, D)."""
    n_shared, length, n_names = g.size(context_mask, 0), g.size(name_mask, 0), g.size(eot_index, 0)
    zero, one = g.constant(0), g.constant(1)
    number = g.op("Range", zero, g.op("Squeeze", n_names), one)
    eot_rows = g.op("Add", g.op("Add", g.op("Mul", number, length), eot_index), n_shared)

    q, k, v = queries_keys_values(g, rows, w, form)
    q = by_head(g, g.op("Gather", q, eot_rows, axis=1), form.heads, form.head_width)
    k, v = (_split_rows(g, by_head(g, x, form.heads, form.head_width), n_shared, axis=2) for x in (k, v))
    eot_mask = g.op("Unsqueeze", g.op("Gather", name_mask, eot_index, axis=0), g.constant([1]))
    names = _attend_from_names(g, q, k, v, eot_mask, form, length, queries_per_name=1)

    rows = g.op("Gather", rows, eot_rows, axis=1)
    return g.op("Add", rows, g.linear(from_heads(g, names, form), w["out.weight"], w["out.bias"]))


def _attend_from_names(
    g: Graph,
    q: str,
    k: list[str],
    v: list[str],
    mask: str,
    form: BlockForm,
    length: str,
    queries_per_name: int | None = None,
) -> str:
    """Names attend to the shared rows and to their own: one softmax over both.

    q (B, H, K n, d) with n = L, or `queries_per_name`; k, v: [shared (B, H, P, d), names (B, H, K L, d)];
    mask broadcasts over (B, H, K, n, L). Returns (B, H, K n, d).
    """
    n = length if queries_per_name is None else queries_per_name
    own_q = g.reshape(q, 0, 0, -1, n, form.head_width)
    own_k, own_v = (g.reshape(x, 0, 0, -1, length, form.head_width) for x in (k[1], v[1]))
    to_own = g.op("MatMul", own_q, g.transpose(own_k, 0, 1, 2, 4, 3))
    to_own = g.op("Add", to_own, mask)  # (B, H, K, n, L)
    to_shared = g.op("MatMul", q, g.transpose(k[0], 0, 1, 3, 2))  # (B, H, K n, P)
    to_own_flat = g.reshape(to_own, 0, 0, -1, length)
    scores = g.op("Softmax", g.op("Concat", to_shared, to_own_flat, axis=-1), axis=-1)
    n_shared = g.size(k[0], 2)
    to_shared, to_own_flat = _split_rows(g, scores, n_shared, axis=3)
    own = g.op("MatMul", g.reshape(to_own_flat, 0, 0, -1, n, length), own_v)
    return g.op("Add", g.op("MatMul", to_shared, v[0]), g.reshape(own, 0, 0, -1, form.head_width))


def _split_rows(g: Graph, x: str, n_first: str, axis: int) -> list[str]:
    """The first `n_first` entries along an axis, and the rest."""
    return [g.slice(x, 0, n_first, axis), g.slice(x, n_first, np.iinfo(np.int64).max, axis)]


def _head(g: Graph, rows: str, edge: Places, tower: TextParts) -> None:
    """EOT rows (B, K, D) -> unit class features (B, K, E)."""
    x = g.layer_norm(
        rows, g.weight(edge["ln_final.weight"]), g.weight(edge["ln_final.bias"]), tower.final_norm.eps
    )
    if "projection.weight" in edge:
        bias = edge.get("projection.bias")
        x = g.linear(x, g.weight(edge["projection.weight"]), g.weight(bias) if bias else None)
    g.output("class_features", g.unit(x), ("B", "K", tower.embed_dim))
