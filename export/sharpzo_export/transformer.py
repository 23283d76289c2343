"""Transformer blocks as ONNX nodes: their weights from open_clip, their attention for pictures.

A block has two halves, attention and MLP, which are streamed one after the other: so the larger half's
weights are all that must be in memory. A half takes its weights by name, so that one function serves the
whole graph (weights as initialisers) and the streamed one (weights as inputs).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from open_clip.transformer import LayerScale, QuickGELU, ResidualAttentionBlock
from torch import nn

from sharpzo_edge.errors import UsageError

from .graph import Array, Graph, Values
from .linear_weights import LinearWeights
from .quantize import times_columns


@dataclass(frozen=True)
class BlockForm:
    """What all blocks of one tower share."""

    width: int
    heads: int
    activation: str
    epsilon: float

    @property
    def head_width(self) -> int:
        return self.width // self.heads


def as_array(tensor: torch.Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().to(torch.float32).numpy()
    return array


def block_form(blocks: nn.ModuleList, tower: str) -> BlockForm:
    """The shared form of a tower's blocks. Raises UsageError for what these graphs cannot do exactly."""
    forms = {_form_of(block, tower) for block in blocks}
    if len(forms) != 1:
        raise refuse(tower, f"its blocks differ: {sorted(map(str, forms))}", "blocks of one form")
    return forms.pop()


def attention_weights(block: ResidualAttentionBlock, linear: LinearWeights) -> dict[str, Array]:
    """The weights of a block's first half, matrices as (in, out).

    Two things are folded in: the queries' scale 1/sqrt(head width), and LayerScale, which
    multiplies a branch's output column by column.
    """
    attention = block.attn
    width = attention.embed_dim
    queries = np.ones(3 * width, np.float32)
    queries[:width] = np.float32((width // attention.num_heads) ** -0.5)
    after_attention = _layer_scale(block.ls_1, width)
    return {
        "ln_1.weight": as_array(block.ln_1.weight),
        "ln_1.bias": as_array(block.ln_1.bias),
        "qkv.weight": times_columns(linear(attention.in_proj_weight.T), queries),
        "qkv.bias": as_array(attention.in_proj_bias) * queries,
        "out.weight": times_columns(linear(attention.out_proj.weight.T), after_attention),
        "out.bias": as_array(attention.out_proj.bias) * after_attention,
    }


def mlp_weights(block: ResidualAttentionBlock, linear: LinearWeights) -> dict[str, Array]:
    """The weights of a block's second half, matrices as (in, out), LayerScale folded in."""
    after_mlp = _layer_scale(block.ls_2, block.attn.embed_dim)
    return {
        "ln_2.weight": as_array(block.ln_2.weight),
        "ln_2.bias": as_array(block.ln_2.bias),
        "fc.weight": linear(block.mlp.c_fc.weight.T),
        "fc.bias": as_array(block.mlp.c_fc.bias),
        "proj.weight": times_columns(linear(block.mlp.c_proj.weight.T), after_mlp),
        "proj.bias": as_array(block.mlp.c_proj.bias) * after_mlp,
    }


def mlp_half(g: Graph, rows: str, w: Values, form: BlockForm) -> str:
    """rows + MLP(norm(rows)), for rows of any leading shape."""
    x = g.layer_norm(rows, w["ln_2.weight"], w["ln_2.bias"], form.epsilon)
    return add_activated(g, rows, g.linear(x, w["fc.weight"], w["fc.bias"]), w, form)


def add_activated(g: Graph, rows: str, hidden: str, w: Values, form: BlockForm) -> str:
    """rows + the second layer of the activated hidden numbers."""
    x = g.activation(hidden, form.activation)
    return g.op("Add", rows, g.linear(x, w["proj.weight"], w["proj.bias"]))


def queries_keys_values(g: Graph, rows: str, w: Values, form: BlockForm) -> list[str]:
    """Three of (B, R, D) from rows (B, R, D); the queries come scaled."""
    return of_normed(g, g.layer_norm(rows, w["ln_1.weight"], w["ln_1.bias"], form.epsilon), w, form)


def of_normed(g: Graph, normed: str, w: Values, form: BlockForm) -> list[str]:
    """The same from rows that the layer norm has seen."""
    return g.split(g.linear(normed, w["qkv.weight"], w["qkv.bias"]), [form.width] * 3)


def by_head(g: Graph, x: str, heads: int, head_width: int) -> str:
    """(B, R, D) -> (B, heads, R, head width)."""
    return g.transpose(g.reshape(x, 0, 0, heads, head_width), 0, 2, 1, 3)


def from_heads(g: Graph, x: str, form: BlockForm) -> str:
    """(B, heads, R, head width) -> (B, R, D)."""
    return g.reshape(g.transpose(x, 0, 2, 1, 3), 0, 0, form.width)


def full_attention_half(g: Graph, rows: str, w: Values, form: BlockForm, first_row_only: bool = False) -> str:
    """A picture tower's attention: every row of (B, N, D) attends to every row.

    With `first_row_only` nothing is computed that the class token does not need: (B, N, D) -> (B, 1, D).
    """
    q, k, v = queries_keys_values(g, rows, w, form)
    if first_row_only:
        q, rows = g.slice(q, 0, 1, 1), g.slice(rows, 0, 1, 1)
    return attended(g, rows, q, k, v, w, form)


def attended(
    g: Graph, rows: str, q: str, k: str, v: str, w: Values, form: BlockForm, mask: str | None = None
) -> str:
    """rows (B, n, D) + what they see of k and v (B, N, D) by q (B, n, D); mask (n, N): 0 or -inf."""
    return add_mixed(g, rows, attention(g, q, k, v, form, mask), w, form)


@dataclass(frozen=True)
class Attention:
    """By head: q (n, d), keys k^T (d, N), v (N, d), shares P = softmax (n, N), mixed P v (n, d)."""

    queries: str
    keys: str
    values: str
    shares: str
    mixed: str


def attention(g: Graph, q: str, k: str, v: str, form: BlockForm, mask: str | None) -> Attention:
    """softmax(q k^T + mask) v, for each head."""
    q, k, v = (by_head(g, x, form.heads, form.head_width) for x in (q, k, v))
    keys = g.transpose(k, 0, 1, 3, 2)
    scores = g.op("MatMul", q, keys)
    if mask is not None:
        scores = g.op("Add", scores, mask)
    shares = g.op("Softmax", scores, axis=-1)
    return Attention(q, keys, v, shares, g.op("MatMul", shares, v))


def add_mixed(g: Graph, rows: str, seen: Attention, w: Values, form: BlockForm) -> str:
    """rows (B, n, D) + the output layer of what they saw."""
    mixed = from_heads(g, seen.mixed, form)
    return g.op("Add", rows, g.linear(mixed, w["out.weight"], w["out.bias"]))


def refuse(tower: str, what: str, allowed: str) -> UsageError:
    return UsageError(
        f"The {tower} tower cannot be exported exactly: {what}. Export knows {allowed}. "
        f"Choose another --model; `python -c 'import open_clip; print(open_clip.list_models())'` "
        f"lists open_clip's."
    )


def _form_of(block: nn.Module, tower: str) -> BlockForm:
    if type(block) is not ResidualAttentionBlock or hasattr(block, "ln_1_kv"):
        raise refuse(
            tower,
            f"its blocks are {type(block).__name__} with options beyond the plain ones",
            "open_clip's ResidualAttentionBlock",
        )
    if block.ln_1.eps != block.ln_2.eps or block.ln_1.bias is None or block.ln_2.bias is None:
        raise refuse(tower, "its layer norms differ inside a block", "two equal layer norms a block")
    return BlockForm(
        width=block.attn.embed_dim,
        heads=block.attn.num_heads,
        activation=activation_kind(block.mlp.gelu, tower),
        epsilon=block.ln_1.eps,
    )


def activation_kind(module: nn.Module, tower: str) -> str:
    """gelu, gelu_tanh or quick_gelu: the names that `Graph.activation` takes."""
    if isinstance(module, QuickGELU):
        return "quick_gelu"
    if type(module) is nn.GELU:
        return {"none": "gelu", "tanh": "gelu_tanh"}[module.approximate]
    raise refuse(tower, f"its activation is {type(module).__name__}", "GELU and QuickGELU")


def _layer_scale(module: nn.Module, width: int) -> np.ndarray:
    return as_array(module.gamma) if isinstance(module, LayerScale) else np.ones(width, np.float32)
