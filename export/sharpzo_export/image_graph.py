"""The image tower: preprocessed pixels in, unit image features out.

Vision transformers and CLIP's ModifiedResNet are built node by node, in pieces: together they are the
whole graph, and each is a step that can be streamed. Any other tower goes through torch's own exporter
as one graph, its weights in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import torch
from open_clip.modified_resnet import AttentionPool2d, Bottleneck, ModifiedResNet
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import nn

from sharpzo_edge.clip.manifest import ImageSpec, Step

from .graph import IR_VERSION, OPSET, Array, DataFile, Graph, Places, Values, step
from .linear_weights import LinearWeights
from .liveness import image_activations
from .quantize import times_columns
from .transformer import (
    as_array,
    attention_weights,
    block_form,
    by_head,
    full_attention_half,
    mlp_half,
    mlp_weights,
    refuse,
)

GRAPH, DATA = "image.onnx", "image.data"

Shapes = dict[str, tuple[int | str, ...]]
Build = Callable[[Graph, list[str], Values], list[str]]  # (graph, values taken, weights) -> values given


@dataclass(frozen=True)
class Piece:
    """A stretch of the tower: part of the whole graph, and one step of the streamed tower.

    graph    the step's file; pieces that share it compute the same with weights of their own
    takes    names and shapes of what the piece before hands on
    gives    likewise, what this one hands on
    build    writes it into a graph
    weights  what a streaming runtime feeds; other weights `build` brings into the graph itself
    shapes   of these weights, where they differ between pieces that share a graph
    name     tells equal names of weights apart in the whole graph
    """

    graph: str
    takes: Shapes
    gives: Shapes
    build: Build
    weights: Places = field(default_factory=dict)
    shapes: Shapes | None = None
    name: str = ""


def write_image_graphs(
    folder: Path, visual: nn.Module, size: tuple[int, int], embed_dim: int, linear: LinearWeights
) -> ImageSpec:
    """Write image.data and its graphs; returns the manifest's part. `size` is (height, width)."""
    if getattr(visual, "output_tokens", False):
        raise refuse("image", "it returns its tokens too (output_tokens)", "towers that return features")
    pixels: Shapes = {"pixels": ("B", 3, *size)}
    features: Shapes = {"image_features": ("B", embed_dim)}
    if _is_plain_vit(visual):
        return _write_pieces(folder, "vit", lambda data: _vit(data, visual, linear, pixels, features))
    if type(visual) is ModifiedResNet:
        return _write_pieces(folder, "resnet", lambda data: _resnet(data, visual, linear, pixels, features))
    return _write_traced(folder, visual, size)


def _write_pieces(folder: Path, kind: str, cut: Callable[[DataFile], list[Piece]]) -> ImageSpec:
    """The weights of all pieces, the graph that joins them, and a graph for each kind of piece."""
    data = DataFile(folder / DATA)
    pieces = cut(data)
    data.close()

    whole = Graph("image", data)
    values = [whole.input(name, shape) for name, shape in pieces[0].takes.items()]
    for piece in pieces:
        values = piece.build(whole, values, whole.weights(piece.weights, f"{piece.name}."))
    _give(whole, values, pieces[-1].gives)
    whole.save(folder / GRAPH)

    for piece in {piece.graph: piece for piece in pieces}.values():
        g = Graph(piece.graph.removesuffix(".onnx"), data)
        values = [g.input(name, shape) for name, shape in piece.takes.items()]
        values = piece.build(g, values, g.weight_inputs(piece.weights, piece.shapes))
        _give(g, values, piece.gives)
        g.save(folder / piece.graph)

    return _spec(folder, kind, pieces[0].takes["pixels"], [step(p.graph, p.weights) for p in pieces])


def _spec(folder: Path, kind: str, pixels: tuple[int | str, ...], steps: list[Step]) -> ImageSpec:
    """The manifest's part, with what a picture's intermediate results take."""
    channels, height, width = (int(edge) for edge in pixels[1:])
    shape = channels, height, width
    alive, carried = image_activations(folder, GRAPH, DATA, tuple(steps), shape)
    return ImageSpec(
        graph=GRAPH, data=DATA, steps=tuple(steps), kind=kind, activation_bytes=alive, carried_bytes=carried
    )


def _give(g: Graph, values: list[str], gives: Shapes) -> None:
    for value, (name, shape) in zip(values, gives.items(), strict=True):
        g.output(name, value, shape)


# Vision transformer ------------------------------------------------------------------------------


def _is_plain_vit(visual: nn.Module) -> bool:
    return (
        type(visual) is VisionTransformer
        and visual.attn_pool is None
        and visual.pool_type in ("tok", "avg")
        and visual.proj is not None
        and type(visual.transformer.resblocks[0]) is ResidualAttentionBlock
    )


def _vit(
    data: DataFile, visual: VisionTransformer, linear: LinearWeights, pixels: Shapes, features: Shapes
) -> list[Piece]:
    """Stem, halves of blocks, head. A pooled class token's row is computed alone in the last block."""
    form = block_form(visual.transformer.resblocks, "image")
    edges: dict[str, Array] = {
        "patch.weight": as_array(visual.conv1.weight),
        "class_token": as_array(visual.class_embedding)[None, None],
        "positions": as_array(visual.positional_embedding),
        "projection": linear(visual.proj),
    }
    for name in ("ln_pre", "ln_post"):
        if isinstance(norm := getattr(visual, name), nn.LayerNorm):
            edges[f"{name}.weight"], edges[f"{name}.bias"] = as_array(norm.weight), as_array(norm.bias)
    edge = {name: data.append(name, array) for name, array in edges.items()}

    all_rows = ("B", len(visual.positional_embedding), form.width)
    pooled_rows = ("B", 1, form.width) if visual.pool_type == "tok" else all_rows
    any_rows = ("B", "N", form.width)

    def attention(first_row_only: bool) -> Build:
        return lambda g, taken, w: [full_attention_half(g, taken[0], w, form, first_row_only)]

    def mlp(g: Graph, taken: list[str], w: Values) -> list[str]:
        return [mlp_half(g, taken[0], w, form)]

    pieces = [
        Piece(
            "image_stem.onnx",
            takes=pixels,
            gives={"rows": all_rows},
            build=lambda g, taken, w: [_vit_stem(g, taken[0], visual, edge)],
        )
    ]
    blocks = visual.transformer.resblocks
    for i, block in enumerate(blocks):
        is_short = block is blocks[-1] and visual.pool_type == "tok"
        pieces.append(
            Piece(
                "image_last_attention.onnx" if is_short else "image_attention.onnx",
                takes={"rows": all_rows},
                gives={"rows_out": pooled_rows if is_short else all_rows},
                build=attention(is_short),
                weights=data.append_block(attention_weights(block, linear)),
                name=f"block.{i}",
            )
        )
        pieces.append(
            Piece(
                "image_mlp.onnx",
                takes={"rows": any_rows},
                gives={"rows_out": any_rows},
                build=mlp,
                weights=data.append_block(mlp_weights(block, linear)),
                name=f"block.{i}",
            )
        )
    pieces.append(
        Piece(
            "image_head.onnx",
            takes={"rows": pooled_rows},
            gives=features,
            build=lambda g, taken, w: [_vit_head(g, taken[0], visual, edge)],
        )
    )
    return pieces


def _vit_stem(g: Graph, pixels: str, visual: VisionTransformer, edge: Places) -> str:
    """pixels (B, 3, H, W) -> rows (B, 1 + patches, D)."""
    patch = list(visual.conv1.stride)
    patches = g.op("Conv", pixels, g.weight(edge["patch.weight"]), strides=patch, kernel_shape=patch)
    patches = g.transpose(g.reshape(patches, 0, visual.conv1.out_channels, -1), 0, 2, 1)
    batch, one = g.size(pixels, 0), g.constant([1])
    token = g.op("Expand", g.weight(edge["class_token"]), g.op("Concat", batch, one, one, axis=0))
    rows = g.op("Add", g.op("Concat", token, patches, axis=1), g.weight(edge["positions"]))
    return _norm(g, rows, "ln_pre", visual.ln_pre, edge)


def _vit_head(g: Graph, rows: str, visual: VisionTransformer, edge: Places) -> str:
    """rows (B, N, D), or the class token's (B, 1, D), -> features (B, E)."""
    if not visual.final_ln_after_pool:
        rows = _norm(g, rows, "ln_post", visual.ln_post, edge)
    if visual.pool_type == "tok":
        pooled = g.op("Squeeze", rows, g.constant([1]))
    else:
        patches = g.slice(rows, 1, np.iinfo(np.int64).max, 1)
        pooled = g.op("ReduceMean", patches, g.constant([1]), keepdims=0)
    if visual.final_ln_after_pool:
        pooled = _norm(g, pooled, "ln_post", visual.ln_post, edge)
    return g.unit(g.linear(pooled, g.weight(edge["projection"]), None))


def _norm(g: Graph, x: str, name: str, module: nn.Module, edge: Places) -> str:
    if f"{name}.weight" not in edge:
        return x
    return g.layer_norm(x, g.weight(edge[f"{name}.weight"]), g.weight(edge[f"{name}.bias"]), module.eps)


# ModifiedResNet ----------------------------------------------------------------------------------


def _resnet(
    data: DataFile, visual: ModifiedResNet, linear: LinearWeights, pixels: Shapes, features: Shapes
) -> list[Piece]:
    """Stem, residual blocks, and the attention pool in one piece a matrix."""
    convolutions = [(getattr(visual, f"conv{i}"), getattr(visual, f"bn{i}")) for i in (1, 2, 3)]
    stem = data.append_block(_folded({f"stem.{i}": pair for i, pair in enumerate(convolutions, 1)}))
    maps = ("B", "C", "H", "W")
    pieces = [
        Piece(
            "image_stem.onnx",
            takes=pixels,
            gives={"maps": maps},
            build=lambda g, taken, w: [_resnet_stem(g, taken[0], g.weights(stem), visual.conv1.stride)],
        )
    ]
    for i in (1, 2, 3, 4):
        for j, block in enumerate(getattr(visual, f"layer{i}")):
            pieces.append(_bottleneck_piece(data, block, f"layer{i}.{j}"))
    return pieces + _attention_pool(data, visual.attnpool, linear, features)


def _resnet_stem(g: Graph, pixels: str, w: Values, stride: tuple[int, int]) -> str:
    """Three convolutions and a pool: pixels (B, 3, H, W) -> maps (B, C, H/4, W/4)."""
    x = g.op("Relu", _conv(g, pixels, w, "stem.1", 3, stride))
    x = g.op("Relu", _conv(g, x, w, "stem.2", 3))
    x = g.op("Relu", _conv(g, x, w, "stem.3", 3))
    return _average_pool(g, x, 2)


def _bottleneck_piece(data: DataFile, block: Bottleneck, name: str) -> Piece:
    """One graph serves all blocks that are alike but for the numbers of channels."""
    convolutions = {i: (getattr(block, f"conv{i}"), getattr(block, f"bn{i}")) for i in "123"}
    shapes: Shapes = {
        "1.weight": ("M", "C", 1, 1),
        "2.weight": ("M", "M", 3, 3),
        "3.weight": ("C", "M", 1, 1),
        "1.bias": ("M",),
        "2.bias": ("M",),
        "3.bias": ("C",),
    }
    kind, gives = "bottleneck", ("B", "C", "H", "W")
    if block.downsample is not None:
        convolutions["down"] = (block.downsample[1], block.downsample[2])
        shapes |= {"3.weight": ("C_out", "M", 1, 1), "3.bias": ("C_out",)}
        shapes |= {"down.weight": ("C_out", "C", 1, 1), "down.bias": ("C_out",)}
        kind, gives = "bottleneck_down", ("B", "C_out", "H_out", "W_out")
    return Piece(
        f"image_{kind}_{block.stride}.onnx",
        takes={"maps": ("B", "C", "H", "W")},
        gives={"maps_out": gives},
        build=lambda g, taken, w: [_bottleneck(g, taken[0], w, block.stride)],
        weights=data.append_block(_folded(convolutions)),
        shapes=shapes,
        name=name,
    )


def _bottleneck(g: Graph, x: str, w: Values, stride: int) -> str:
    y = g.op("Relu", _conv(g, x, w, "1", 1))
    y = g.op("Relu", _conv(g, y, w, "2", 3))
    y = _conv(g, _average_pool(g, y, stride), w, "3", 1)
    if "down.weight" in w:
        x = _conv(g, _average_pool(g, x, stride), w, "down", 1)
    return g.op("Relu", g.op("Add", x, y))


def _folded(convolutions: dict[str, tuple[nn.Conv2d, nn.BatchNorm2d]]) -> dict[str, Array]:
    """Weights and biases with the batch norms folded in (in float64, rounded once)."""
    arrays: dict[str, Array] = {}
    for name, (conv, norm) in convolutions.items():
        gain = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
        arrays[f"{name}.weight"] = as_array(conv.weight.double() * gain[:, None, None, None])
        arrays[f"{name}.bias"] = as_array(norm.bias.double() - norm.running_mean.double() * gain)
    return arrays


def _conv(g: Graph, x: str, w: Values, name: str, kernel: int, stride: tuple[int, int] = (1, 1)) -> str:
    """A convolution that keeps height and width, but for its stride."""
    return g.op(
        "Conv",
        *(x, w[f"{name}.weight"], w[f"{name}.bias"]),
        kernel_shape=[kernel] * 2,
        strides=list(stride),
        pads=[kernel // 2] * 4,
    )


def _average_pool(g: Graph, x: str, stride: int) -> str:
    if stride == 1:
        return x
    return g.op("AveragePool", x, kernel_shape=[stride] * 2, strides=[stride] * 2)


def _attention_pool(
    data: DataFile, pool: AttentionPool2d, linear: LinearWeights, features: Shapes
) -> list[Piece]:
    """(B, C, H, W) -> (B, E): the mean row asks, all rows answer; only its answer is needed."""
    width, heads = pool.k_proj.in_features, pool.num_heads
    head_width = width // heads
    positions = data.append("pool.positions", as_array(pool.positional_embedding))
    n_rows = len(pool.positional_embedding)

    def weights(name: str, scale: float = 1.0) -> Places:
        layer = getattr(pool, f"{name}_proj")
        factors = np.full(layer.out_features, scale, np.float32)
        matrix, bias = times_columns(linear(layer.weight.T), factors), as_array(layer.bias) * factors
        return data.append_block({f"{name}.weight": matrix, f"{name}.bias": bias})

    def project(g: Graph, x: str, w: Values, name: str) -> str:
        return g.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def build_q(g: Graph, taken: list[str], w: Values) -> list[str]:
        rows = g.transpose(g.reshape(taken[0], 0, width, -1), 0, 2, 1)
        mean = g.op("ReduceMean", rows, g.constant([1]), keepdims=1)
        rows = g.op("Add", g.op("Concat", mean, rows, axis=1), g.weight(positions))
        query = project(g, g.slice(rows, 0, 1, 1), w, "q")
        return [rows, by_head(g, query, heads, head_width)]

    def build_k(g: Graph, taken: list[str], w: Values) -> list[str]:
        rows, q = taken
        k = by_head(g, project(g, rows, w, "k"), heads, head_width)
        return [rows, g.op("Softmax", g.op("MatMul", q, g.transpose(k, 0, 1, 3, 2)), axis=-1)]

    def build_v(g: Graph, taken: list[str], w: Values) -> list[str]:
        rows, scores = taken
        v = by_head(g, project(g, rows, w, "v"), heads, head_width)
        return [g.reshape(g.transpose(g.op("MatMul", scores, v), 0, 2, 1, 3), 0, width)]

    def build_c(g: Graph, taken: list[str], w: Values) -> list[str]:
        return [g.unit(project(g, taken[0], w, "c"))]

    def piece(name: str, takes: Shapes, gives: Shapes, build: Build, scale: float = 1.0) -> Piece:
        return Piece(f"image_pool_{name}.onnx", takes, gives, build, weights(name, scale), name="pool")

    rows, mixed = ("B", n_rows, width), ("B", width)
    q, scores = ("B", heads, 1, head_width), ("B", heads, 1, n_rows)
    return [
        piece("q", {"maps": ("B", width, "H", "W")}, {"rows": rows, "q": q}, build_q, head_width**-0.5),
        piece("k", {"rows": rows, "q": q}, {"rows_out": rows, "scores": scores}, build_k),
        piece("v", {"rows": rows, "scores": scores}, {"mixed": mixed}, build_v),
        piece("c", {"mixed": mixed}, features, build_c),
    ]


# Everything else ---------------------------------------------------------------------------------


class _UnitFeatures(nn.Module):  # type: ignore[misc]  # torch is not there where types are checked
    def __init__(self, visual: nn.Module):
        super().__init__()
        self.visual = visual

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(self.visual(pixels), dim=-1)


def _write_traced(folder: Path, visual: nn.Module, size: tuple[int, int]) -> ImageSpec:
    """Other towers (timm's) through torch.onnx.export; export's parity check decides on them."""
    was_enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its fused operator has no ONNX form
    try:
        program = torch.onnx.export(
            _UnitFeatures(visual).eval(),
            (torch.zeros(2, 3, *size),),
            input_names=["pixels"],
            output_names=["image_features"],
            dynamic_shapes=({0: torch.export.Dim("B", min=1)},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    except Exception as error:
        raise refuse(
            "image",
            f"torch.onnx.export fails on {type(visual).__name__} ({type(error).__name__})",
            "plain vision transformers, CLIP's ResNets, and what torch.onnx.export can trace",
        ) from error
    finally:
        torch.backends.mha.set_fastpath_enabled(was_enabled)
    model = program.model_proto
    model.ir_version = IR_VERSION
    model.graph.doc_string = model.doc_string = ""
    del model.metadata_props[:]
    for node in model.graph.node:  # stack traces of this machine
        del node.metadata_props[:]
        node.doc_string = ""
    onnx.save_model(
        model,
        folder / GRAPH,
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=DATA,
        size_threshold=1024,
    )
    (folder / DATA).touch()
    return _spec(folder, "traced", ("B", 3, *size), [])
