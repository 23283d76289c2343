"""The image tower: preprocessed pixels in, unit image features out.

Vision transformers and CLIP's ModifiedResNet are built node by node; the transformer also in steps
that can be streamed. Any other tower goes through torch's own exporter as one graph.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from open_clip.modified_resnet import AttentionPool2d, Bottleneck, ModifiedResNet
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import nn

from sharpzo_edge import bundle

from .graph import IR_VERSION, OPSET, DataFile, Graph
from .transformer import (
    BlockForm,
    as_array,
    block_form,
    block_weights,
    by_head,
    full_attention_block,
    refuse,
)

GRAPH, DATA = "image.onnx", "image.data"
STEM, BLOCK, HEAD = "image_stem.onnx", "image_block.onnx", "image_head.onnx"


def write_image_graphs(
    folder: Path, visual: nn.Module, size: tuple[int, int], embed_dim: int
) -> bundle.ImageSpec:
    """Write image.data and its graphs; returns the manifest's part. `size` is (height, width)."""
    if getattr(visual, "output_tokens", False):
        raise refuse("image", "it returns its tokens too (output_tokens)", "towers that return features")
    if _is_plain_vit(visual):
        return _write_vit(folder, visual, size, embed_dim)
    if type(visual) is ModifiedResNet:
        return _write_resnet(folder, visual, size, embed_dim)
    return _write_traced(folder, visual, size)


# Vision transformer ------------------------------------------------------------------------------


def _is_plain_vit(visual: nn.Module) -> bool:
    return (
        type(visual) is VisionTransformer
        and visual.attn_pool is None
        and visual.pool_type in ("tok", "avg")
        and visual.proj is not None
        and type(visual.transformer.resblocks[0]) is ResidualAttentionBlock
    )


def _write_vit(
    folder: Path, visual: VisionTransformer, size: tuple[int, int], embed_dim: int
) -> bundle.ImageSpec:
    form = block_form(visual.transformer.resblocks, "image")
    data = DataFile(folder / DATA)
    edges = {
        "patch.weight": as_array(visual.conv1.weight),
        "class_token": as_array(visual.class_embedding)[None, None],
        "positions": as_array(visual.positional_embedding),
        "projection": as_array(visual.proj),
    }
    for name in ("ln_pre", "ln_post"):
        if isinstance(norm := getattr(visual, name), nn.LayerNorm):
            edges[f"{name}.weight"], edges[f"{name}.bias"] = as_array(norm.weight), as_array(norm.bias)
    edge = {name: data.append(name, array) for name, array in edges.items()}
    blocks = [data.append_block(block_weights(b)) for b in visual.transformer.resblocks]
    data.close()

    whole = Graph("image", data)
    rows = _vit_stem(whole, visual, edge, form, size)
    for i, block in enumerate(blocks):
        weights = {t.name: whole.weight(t, f"block.{i}.") for t in block}
        rows = full_attention_block(whole, rows, weights, form)
    _vit_head(whole, visual, rows, edge, embed_dim)
    whole.save(folder / GRAPH)

    n_rows = len(edges["positions"])
    stem = Graph("image_stem", data)
    stem.output("rows", _vit_stem(stem, visual, edge, form, size), ("B", n_rows, form.width))
    stem.save(folder / STEM)
    step = Graph("image_block", data)
    rows = step.input("rows", ("B", n_rows, form.width))
    weights = {t.name: step.weight_input(t) for t in blocks[0]}
    step.output("rows_out", full_attention_block(step, rows, weights, form), ("B", n_rows, form.width))
    step.save(folder / BLOCK)
    head = Graph("image_head", data)
    _vit_head(head, visual, head.input("rows", ("B", n_rows, form.width)), edge, embed_dim)
    head.save(folder / HEAD)

    steps = [bundle.Step(STEM, ()), *(bundle.Step(BLOCK, b) for b in blocks), bundle.Step(HEAD, ())]
    return bundle.ImageSpec(graph=GRAPH, data=DATA, steps=tuple(steps), kind="vit")


def _vit_stem(
    g: Graph,
    visual: VisionTransformer,
    edge: dict[str, bundle.Tensor],
    form: BlockForm,
    size: tuple[int, int],
) -> str:
    """pixels (B, 3, H, W) -> rows (B, 1 + patches, D)."""
    pixels = g.input("pixels", ("B", 3, *size))
    patch = list(visual.conv1.stride)
    patches = g.op("Conv", pixels, g.weight(edge["patch.weight"]), strides=patch, kernel_shape=patch)
    patches = g.transpose(g.reshape(patches, 0, form.width, -1), 0, 2, 1)
    batch, one = g.size(pixels, 0), g.constant([1])
    token = g.op("Expand", g.weight(edge["class_token"]), g.op("Concat", batch, one, one, axis=0))
    rows = g.op("Add", g.op("Concat", token, patches, axis=1), g.weight(edge["positions"]))
    return _norm(g, rows, "ln_pre", visual.ln_pre, edge)


def _vit_head(
    g: Graph, visual: VisionTransformer, rows: str, edge: dict[str, bundle.Tensor], embed_dim: int
) -> None:
    if not visual.final_ln_after_pool:
        rows = _norm(g, rows, "ln_post", visual.ln_post, edge)
    if visual.pool_type == "tok":
        pooled = g.op("Gather", rows, g.constant(0), axis=1)
    else:
        patches = g.slice(rows, 1, np.iinfo(np.int64).max, 1)
        pooled = g.op("ReduceMean", patches, g.constant([1]), keepdims=0)
    if visual.final_ln_after_pool:
        pooled = _norm(g, pooled, "ln_post", visual.ln_post, edge)
    features = g.linear(pooled, g.weight(edge["projection"]), None)
    g.output("image_features", g.unit(features), ("B", embed_dim))


def _norm(g: Graph, x: str, name: str, module: nn.Module, edge: dict[str, bundle.Tensor]) -> str:
    if f"{name}.weight" not in edge:
        return x
    return g.layer_norm(x, g.weight(edge[f"{name}.weight"]), g.weight(edge[f"{name}.bias"]), module.eps)


# ModifiedResNet ----------------------------------------------------------------------------------


def _write_resnet(
    folder: Path, visual: ModifiedResNet, size: tuple[int, int], embed_dim: int
) -> bundle.ImageSpec:
    data = DataFile(folder / DATA)
    g = Graph("image", data)
    x = g.input("pixels", ("B", 3, *size))
    for i in (1, 2, 3):
        conv, norm = getattr(visual, f"conv{i}"), getattr(visual, f"bn{i}")
        x = g.op("Relu", _conv(g, x, f"stem.{i}", conv, norm))
    x = _average_pool(g, x, 2)
    for i in (1, 2, 3, 4):
        for j, block in enumerate(getattr(visual, f"layer{i}")):
            x = _bottleneck(g, x, f"layer{i}.{j}", block)
    features = _attention_pool(g, x, visual.attnpool)
    g.output("image_features", g.unit(features), ("B", embed_dim))
    data.close()
    g.save(folder / GRAPH)
    return bundle.ImageSpec(graph=GRAPH, data=DATA, steps=(), kind="resnet")


def _bottleneck(g: Graph, x: str, name: str, block: Bottleneck) -> str:
    y = g.op("Relu", _conv(g, x, f"{name}.1", block.conv1, block.bn1))
    y = g.op("Relu", _conv(g, y, f"{name}.2", block.conv2, block.bn2))
    y = _average_pool(g, y, block.stride)
    y = _conv(g, y, f"{name}.3", block.conv3, block.bn3)
    if block.downsample is not None:
        x = _average_pool(g, x, block.stride)
        x = _conv(g, x, f"{name}.down", block.downsample[1], block.downsample[2])
    return g.op("Relu", g.op("Add", x, y))


def _conv(g: Graph, x: str, name: str, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> str:
    """A convolution with its batch norm folded in (in float64, rounded once)."""
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    gain = norm.weight.double() / torch.sqrt(variance + norm.eps)
    weight = conv.weight.double() * gain[:, None, None, None]
    bias = norm.bias.double() - mean * gain
    kernel, pad = list(conv.kernel_size), list(conv.padding)
    return g.op(
        "Conv",
        x,
        g.weight(g.data.append(f"{name}.weight", as_array(weight))),
        g.weight(g.data.append(f"{name}.bias", as_array(bias))),
        kernel_shape=kernel,
        strides=list(conv.stride),
        pads=pad * 2,
    )


def _average_pool(g: Graph, x: str, stride: int) -> str:
    if stride == 1:
        return x
    return g.op("AveragePool", x, kernel_shape=[stride] * 2, strides=[stride] * 2)


def _attention_pool(g: Graph, x: str, pool: AttentionPool2d) -> str:
    """(B, C, h, w) -> (B, E): the mean row asks, all rows answer; only its answer is needed."""
    width = pool.k_proj.in_features
    heads, head_width = pool.num_heads, width // pool.num_heads
    rows = g.transpose(g.reshape(x, 0, width, -1), 0, 2, 1)
    mean = g.op("ReduceMean", rows, g.constant([1]), keepdims=1)
    positions = g.data.append("pool.positions", as_array(pool.positional_embedding))
    rows = g.op("Add", g.op("Concat", mean, rows, axis=1), g.weight(positions))
    query = g.slice(rows, 0, 1, 1)

    def project(y: str, name: str, linear: nn.Linear, scale: float = 1.0) -> str:
        weight = g.data.append(f"pool.{name}.weight", as_array(linear.weight).T * np.float32(scale))
        bias = g.data.append(f"pool.{name}.bias", as_array(linear.bias) * np.float32(scale))
        return g.linear(y, g.weight(weight), g.weight(bias))

    scale = head_width**-0.5
    q, k, v = (
        by_head(g, project(query, "q", pool.q_proj, scale), heads, head_width),
        by_head(g, project(rows, "k", pool.k_proj), heads, head_width),
        by_head(g, project(rows, "v", pool.v_proj), heads, head_width),
    )
    scores = g.op("Softmax", g.op("MatMul", q, g.transpose(k, 0, 1, 3, 2)), axis=-1)
    mixed = g.reshape(g.transpose(g.op("MatMul", scores, v), 0, 2, 1, 3), 0, width)
    return project(mixed, "c", pool.c_proj)


# Everything else ---------------------------------------------------------------------------------


class _UnitFeatures(nn.Module):
    def __init__(self, visual: nn.Module):
        super().__init__()
        self.visual = visual

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(self.visual(pixels), dim=-1)


def _write_traced(folder: Path, visual: nn.Module, size: tuple[int, int]) -> bundle.ImageSpec:
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
    return bundle.ImageSpec(graph=GRAPH, data=DATA, steps=(), kind="traced")
