"""The text tower's tangents: how the class features change along a direction of the context.

Forward-mode differentiation: a tangent dX travels beside the rows X, one half of a block after the other. All
directions share one primal pass. That is the ordinary forward pass, and it hands over what tangents need:

    linear      dY = dX W                                              no bias
    norm        dY = gamma (dX - mean dX - xhat mean(xhat dX)) / std   xhat = (X - mean X) / std
    attention   dS = dQ K^T + Q dK^T;  dP = P * (dS - rowsum(P * dS));  dO = dP V + P dV
    activation  dY = g'(X) * dX
    unit        dT = (dy - T (T . dy)) / |y|

`*` is element by element. The queries' scale is in Q and dQ (transformer.py). With t = P * dS the third line
is computed as dO = t V + P dV - rowsum(t) * O.

A tangent is linear in its direction, so there is no cancellation, and it may be rounded. In 8 bits, weights
are rounded for each output, and each row of a layer's input by the row's own largest number. So the answer to
a direction does not depend on what shares its run.

Each kind of half has a primal graph, and a graph for tangents in two forms: float32 products, 8-bit products.
Where rows are many, nothing here has the size of the depth: what a primal graph hands over is for one half.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

import numpy as np
from onnx import TensorProto

from sharpzo_edge.clip.manifest import TangentSpec, TangentStep, Tensor

from .graph import MICROSOFT, Array, DataFile, Graph, Places, Value, Values, step
from .quantize import Packed, dequantised, round_by_column
from .transformer import BlockForm, add_activated, add_mixed, attention, by_head, from_heads, of_normed

DATA = "text_int8.data"
HEAD = "text_tangent_head.onnx"
NUMBERS, SCALES = "numbers", "scales"  # an 8-bit matrix in the data file
TINY_ROW = 1e-30  # instead of a row's largest number, if that is 0
SQRT_HALF, DENSITY_AT_0 = math.sqrt(0.5), 1 / math.sqrt(2 * math.pi)
TANH_SCALE, TANH_CUBE = math.sqrt(2 / math.pi), 0.044715  # of GELU's approximation
QUICK_SCALE = 1.702

Shapes = dict[str, tuple[int | str, ...]]
Parts = dict[str, str]  # what a primal graph hands over, by name


def rounded_copies(arrays: dict[str, Array]) -> dict[str, Array]:
    """The 8-bit copies of a half's matrices, from the float32 numbers that they stand for."""
    copies: dict[str, Array] = {}
    for name, array in arrays.items():
        matrix = dequantised(array) if isinstance(array, Packed) else array
        if matrix.ndim == 2:
            layer = name.removesuffix(".weight")
            copies[f"{layer}.{NUMBERS}"], copies[f"{layer}.{SCALES}"] = round_by_column(matrix)
    return copies


def write_tangent_graphs(
    folder: Path,
    data: DataFile,
    form: BlockForm,
    halves: list[tuple[Places, Places]],
    rounded: list[tuple[Places, Places]],
    head: Callable[[Graph, str, str], str],
    embed_dim: int,
) -> TangentSpec:
    """Write all graphs of tangents; returns the manifest's part.

    halves:  the places of each block's weights in `data`
    rounded: those of their 8-bit copies; empty for float32 products alone
    head:    (graph, EOT rows, their tangents) -> tangents of the class features
    """
    kinds: tuple[_Half, ...] = (_Attention(form, False), _Attention(form, True), _Mlp(form, halves[0][1]))
    graphs = [_write_half(folder, data, kind, halves[0], rounded[0] if rounded else None) for kind in kinds]
    steps = []
    for i in range(len(halves)):
        for j, kind in enumerate((0 if i < len(halves) - 1 else 1, 2)):
            weights = step("", rounded[i][j]).weights if rounded else ()
            steps.append(TangentStep(*graphs[kind], weights=weights))
    g = Graph(HEAD.removesuffix(".onnx"), data)
    rows, tangents = g.input("rows", (1, "K", form.width)), g.input("tangents", ("B", "K", form.width))
    g.output("class_feature_tangents", head(g, rows, tangents), ("B", "K", embed_dim))
    g.save(folder / HEAD)
    return TangentSpec(steps=tuple(steps), head=HEAD, data=DATA if rounded else None)


def _write_half(
    folder: Path,
    data: DataFile,
    half: _Half,
    weights: tuple[Places, Places],
    rounded: tuple[Places, Places] | None,
) -> tuple[str, str, str | None]:
    """Write a half's graphs; returns their names: primal, tangents with float32 and with 8-bit products.

    weights, rounded: of a block, both halves
    """
    width, places = half.form.width, weights[half.number]
    g = Graph(f"text_primal_{half.name}", data)
    rows, parts = half.primal(g, g.input("rows", (1, "S", width)), g.weight_inputs(places))
    g.output("rows_out", rows, (1, half.n_out, width))
    for name, shape in half.handed_over().items():
        g.output(name, parts[name], shape)
    graphs = [g]
    matrices = {name: p for name, p in places.items() if isinstance(p, Packed) or len(p.shape) == 2}
    for precision, taken in (("fp32", matrices), ("int8", rounded and rounded[half.number])):
        if taken:
            g = Graph(f"text_tangent_{half.name}_{precision}", data)
            tangents = g.input("tangents", ("B", "S", width))
            parts = {name: g.input(name, shape) for name, shape in half.handed_over().items()}
            changed = half.tangents(g, tangents, parts, g.weight_inputs(taken), PRODUCTS[precision])
            g.output("tangents_out", changed, ("B", half.n_out, width))
            graphs.append(g)
    for g in graphs:
        g.save(folder / f"{g.name}.onnx")
    names = [f"{g.name}.onnx" for g in graphs]
    return names[0], names[1], names[2] if rounded else None


# The formulas.


def norm_parts(g: Graph, rows: str, weight: Value, bias: Value, epsilon: float) -> tuple[str, dict[str, str]]:
    """norm(rows), and what its tangent needs: xhat, and gain = gamma / std."""
    normed, mean, inverse_std = g.layer_norm_parts(rows, weight, bias, epsilon, n_parts=3)
    xhat = g.op("Mul", g.op("Sub", rows, mean), inverse_std)
    return normed, {"xhat": xhat, "gain": g.op("Mul", inverse_std, weight)}


def rowsum(g: Graph, x: str, weight: str | None = None) -> str:
    """The rows' sums (…, 1) of x (…, N), times a weight (1,).

    It is a matrix product, since the order of the additions in ReduceSum depends on where in memory a row
    begins, so on what shares a run. A product with one column has that fault too; one with two has not.
    """
    n = g.op("Shape", x, start=-1)
    columns = g.op("Expand", weight or g.number(1), g.op("Concat", n, g.constant([2]), axis=0))
    return g.slice(g.op("MatMul", x, columns), 0, 1, -1)


def norm_tangent(g: Graph, tangents: str, parts: dict[str, str]) -> str:
    """gain * (dX - mean dX - xhat mean(xhat dX)), of dX (B, R, D)."""
    xhat = parts["xhat"]
    share = g.op("Reciprocal", g.op("Cast", g.size(xhat, 2), to=TensorProto.FLOAT))
    mean = rowsum(g, tangents, share)
    along = rowsum(g, g.op("Mul", tangents, xhat), share)
    rest = g.op("Sub", g.op("Sub", tangents, mean), g.op("Mul", xhat, along))
    return g.op("Mul", rest, parts["gain"])


def unit_tangent(g: Graph, y: str, dy: str) -> str:
    """(dy - T (T . dy)) / |y| for T = y / |y|."""
    length = g.length(y)
    T = g.op("Div", y, length)
    along = rowsum(g, g.op("Mul", T, dy))
    return g.op("Div", g.op("Sub", dy, g.op("Mul", T, along)), length)


def slope(g: Graph, x: str, kind: str) -> str:
    """g'(x) of the activation g. kind: as `Graph.activation` has it."""
    one, half = g.number(1), g.number(0.5)
    if kind == "quick_gelu":  # g = x s(c x);  g' = s + c x s (1 - s)
        scaled = g.op("Mul", x, g.number(QUICK_SCALE))
        s = g.op("Sigmoid", scaled)
        return g.op("Mul", s, g.op("Add", one, g.op("Mul", scaled, g.op("Sub", one, s))))
    square = g.op("Mul", x, x)
    if kind == "gelu":  # g = x Phi(x);  g' = Phi(x) + x phi(x)
        below = g.op("Mul", half, g.op("Add", one, g.op("Erf", g.op("Mul", x, g.number(SQRT_HALF)))))
        density = g.op("Mul", g.number(DENSITY_AT_0), g.op("Exp", g.op("Mul", square, g.number(-0.5))))
        return g.op("Add", below, g.op("Mul", x, density))
    # g = x (1 + t) / 2, t = tanh(c x (1 + a x^2));  g' = (1 + t + x (1 - t^2) c (1 + 3 a x^2)) / 2
    cubic = g.op("Add", one, g.op("Mul", square, g.number(TANH_CUBE)))
    t = g.op("Tanh", g.op("Mul", g.op("Mul", x, g.number(TANH_SCALE)), cubic))
    inner = g.op("Add", one, g.op("Mul", square, g.number(3 * TANH_CUBE)))
    steep = g.op("Mul", g.op("Sub", one, g.op("Mul", t, t)), g.op("Mul", inner, g.number(TANH_SCALE)))
    return g.op("Mul", half, g.op("Add", g.op("Add", one, t), g.op("Mul", x, steep)))


# Products with weights: the values, and what each row is still to be multiplied by (if anything).

Product = Callable[[Graph, str, Values, str], tuple[str, str | None]]


def float_product(g: Graph, x: str, w: Values, layer: str) -> tuple[str, str | None]:
    return g.linear(x, w[f"{layer}.weight"], None), None


def rounded_product(g: Graph, x: str, w: Values, layer: str) -> tuple[str, str | None]:
    """x (B, R, in), each row rounded to 255 steps between its largest numbers, times 8-bit weights."""
    largest = g.op("ReduceMax", g.op("Abs", x), g.constant([-1]), keepdims=1)
    factor = g.op("Mul", g.op("Max", largest, g.number(TINY_ROW)), g.number(1 / 127))
    of_rows = g.reshape(factor, -1)
    zeros = g.op("Expand", g.constant([128], np.uint8), g.op("Shape", of_rows))
    rows = g.reshape(x, -1, g.size(x, 2))
    numbers = g.op("QuantizeLinear", rows, of_rows, zeros, axis=0)
    y = g.op(
        "MatMulIntegerToFloat",
        *(numbers, w[f"{layer}.{NUMBERS}"], g.number(1), w[f"{layer}.{SCALES}"], g.constant(128, np.uint8)),
        domain=MICROSOFT,
    )
    return g.reshape(y, g.size(x, 0), g.size(x, 1), -1), factor


PRODUCTS: dict[str, Product] = {"fp32": float_product, "int8": rounded_product}


def times(g: Graph, x: str, *factors: str | None) -> str:
    """x (B, R, D) times row factors (B, R, 1)."""
    by_row = [factor for factor in factors if factor]
    while len(by_row) > 1:
        by_row = [g.op("Mul", by_row[0], by_row[1]), *by_row[2:]]
    return g.op("Mul", x, by_row[0]) if by_row else x


# The two halves of a block.


class _Half(Protocol):
    """number: 0 or 1 in its block; n_out: rows that it gives, as a graph's axis."""

    form: BlockForm
    name: str
    number: int
    n_out: str

    def handed_over(self) -> Shapes:
        """What the primal graph gives beside the rows, and the tangents' graphs take."""

    def primal(self, g: Graph, rows: str, w: Values) -> tuple[str, Parts]:
        """The half itself on rows (1, S, D), and what it hands over."""

    def tangents(self, g: Graph, tangents: str, parts: Parts, w: Values, product: Product) -> str:
        """The tangents of what the half gives, from those of its rows (B, S, D)."""


class _Attention:
    """Attention on all rows, or in the last block for the EOT rows alone."""

    number = 0

    def __init__(self, form: BlockForm, is_last: bool):
        self.form = form
        self.name = "last_attention" if is_last else "attention"
        self.n_out = "K" if is_last else "S"
        self._is_last = is_last

    def handed_over(self) -> Shapes:
        heads, d, n = self.form.heads, self.form.head_width, self.n_out
        return _of_norm(self.form) | {
            "queries": (1, heads, n, d),
            "keys": (1, heads, d, "S"),
            "values": (1, heads, "S", d),
            "shares": (1, heads, n, "S"),
            "mixed": (1, heads, n, d),
        }

    def primal(self, g: Graph, rows: str, w: Values) -> tuple[str, Parts]:
        mask = g.input("mask", ("S", "S"))
        normed, parts = norm_parts(g, rows, w["ln_1.weight"], w["ln_1.bias"], self.form.epsilon)
        q, k, v = of_normed(g, normed, w, self.form)
        if self._is_last:
            eot_rows = _eot_rows(g)
            q, rows = (g.op("Gather", x, eot_rows, axis=1) for x in (q, rows))
            mask = g.op("Gather", mask, eot_rows, axis=0)
        seen = attention(g, q, k, v, self.form, mask)
        return add_mixed(g, rows, seen, w, self.form), parts | asdict(seen)

    def tangents(self, g: Graph, tangents: str, parts: Parts, w: Values, product: Product) -> str:
        form = self.form
        qkv = times(g, *product(g, norm_tangent(g, tangents, parts), w, "qkv"))
        dq, dk, dv = g.split(qkv, [form.width] * 3)
        if self._is_last:
            eot_rows = _eot_rows(g)
            dq, tangents = (g.op("Gather", x, eot_rows, axis=1) for x in (dq, tangents))
        dq, dk, dv = (by_head(g, x, form.heads, form.head_width) for x in (dq, dk, dv))
        of_queries = g.op("MatMul", dq, parts["keys"])
        of_keys = g.op("MatMul", parts["queries"], g.transpose(dk, 0, 1, 3, 2))
        t = g.op("Mul", parts["shares"], g.op("Add", of_queries, of_keys))
        moved = g.op("Add", g.op("MatMul", t, parts["values"]), g.op("MatMul", parts["shares"], dv))
        mixed = g.op("Sub", moved, g.op("Mul", rowsum(g, t), parts["mixed"]))
        out = times(g, *product(g, from_heads(g, mixed, form), w, "out"))
        return g.op("Add", tangents, out)


class _Mlp:
    """The MLP, for rows of any number."""

    name, number, n_out = "mlp", 1, "S"

    def __init__(self, form: BlockForm, weights: Places):
        self.form = form
        bias = weights["fc.bias"]
        assert isinstance(bias, Tensor)  # only matrices are packed
        (self._hidden,) = bias.shape

    def handed_over(self) -> Shapes:
        return _of_norm(self.form) | {"slope": (1, "S", self._hidden)}

    def primal(self, g: Graph, rows: str, w: Values) -> tuple[str, Parts]:
        normed, parts = norm_parts(g, rows, w["ln_2.weight"], w["ln_2.bias"], self.form.epsilon)
        hidden = g.linear(normed, w["fc.weight"], w["fc.bias"])
        rows = add_activated(g, rows, hidden, w, self.form)
        return rows, parts | {"slope": slope(g, hidden, self.form.activation)}

    def tangents(self, g: Graph, tangents: str, parts: Parts, w: Values, product: Product) -> str:
        hidden, of_hidden = product(g, norm_tangent(g, tangents, parts), w, "fc")
        activated = g.op("Mul", hidden, parts["slope"])  # the rows' factors wait: all is linear in them
        out, of_out = product(g, activated, w, "proj")
        return g.op("Add", tangents, times(g, out, of_hidden, of_out))


def _of_norm(form: BlockForm) -> Shapes:
    return {"xhat": (1, "S", form.width), "gain": (1, "S", form.width)}


def _eot_rows(g: Graph) -> str:
    return g.input("eot_rows", ("K",), TensorProto.INT64)
