"""One graph from the crop of a picture to the probabilities of the classes.

    pixels (B, H, W, 3) uint8 -> scaled and normalised -> image tower -> logits of one way to label -> softmax

The largest logit is a second output: it tells whether a picture is none of the classes. The formulas are
those of the device: preprocess.to_pixels, Head.logits, losses.softmax.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from sharpzo_edge.clip.bundle import Bundle
from sharpzo_edge.clip.manifest import Preprocess
from sharpzo_edge.errors import BundleError, SharpzoError
from sharpzo_edge.heads.head import Head
from sharpzo_edge.types import Floats

from .graph import Graph, packed_product
from .quantize import PARTS, PackedArrays, dequantised, pack

PIXELS, FEATURES = "pixels", "features"
PROBABILITIES, LARGEST_LOGIT = "probabilities", "largest_logit"  # in this order


def classifier_graph(
    tower: onnx.ModelProto, how: Preprocess, class_features: Floats, logit_scale: float, head: Head | None
) -> Graph:
    """The whole graph. The tower is written over: it becomes a part of it."""
    g = Graph("classifier")
    crops = g.input(PIXELS, ("B", *how.size, 3), TensorProto.UINT8)
    features = g.insert(tower, _normalised(g, crops, how))
    _answer(g, features, class_features, logit_scale, head)
    return g


def answer_graph(class_features: Floats, logit_scale: float, head: Head | None) -> Graph:
    """Its end alone, from features (B, E) on."""
    g = Graph("answer")
    _answer(g, g.input(FEATURES, ("B", class_features.shape[1])), class_features, logit_scale, head)
    return g


def _normalised(g: Graph, crops: str, how: Preprocess) -> str:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32."""
    levels = g.op("Cast", g.transpose(crops, 0, 3, 1, 2), to=TensorProto.FLOAT)
    mean, std = (g.constant(np.reshape(v, (3, 1, 1)), np.float32) for v in (how.mean, how.std))
    return g.op("Div", g.op("Sub", g.op("Div", levels, g.number(255)), mean), std)


def _answer(g: Graph, features: str, class_features: Floats, logit_scale: float, head: Head | None) -> None:
    """base s F T^T + phi(F) weights^T + bias; s F T^T without a head. Outputs its softmax and its largest."""
    factor = np.float32(logit_scale * (1 if head is None else head.base))
    logits = g.op("MatMul", features, g.array("class_features", factor * class_features.T))
    if head is not None:
        phi = features
        if head.pictures is not None:
            alike = g.op("MatMul", features, g.array("head_pictures", head.pictures.T))
            phi = g.op("Exp", g.op("Mul", g.op("Sub", alike, g.number(1)), g.number(head.made_by["scale"])))
        own = g.op("MatMul", phi, g.array("head_weights", head.weights.T))
        logits = g.op("Add", logits, g.op("Add", own, g.array("head_bias", head.bias)))
    g.output(PROBABILITIES, g.op("Softmax", logits, axis=-1), ("B", len(class_features)))
    g.output(LARGEST_LOGIT, g.op("ReduceMax", logits, g.constant([-1]), keepdims=0), ("B",))


def image_tower(bundle: Bundle) -> onnx.ModelProto:
    """The bundle's whole image tower, with the weights in it. Raises BundleError, SharpzoError."""
    spec = bundle.manifest.image
    graph, data = bundle.verified(spec.graph), bundle.verified(spec.data)
    try:
        model = onnx.load_model_from_string(graph.read_bytes())
        if len(model.graph.input) != 1 or len(model.graph.output) != 1:
            raise ValueError("it has several inputs or outputs")
        with bundle.reading(spec.data), data.open("rb") as file:
            for tensor in model.graph.initializer:
                if tensor.data_location == TensorProto.EXTERNAL:
                    place = {entry.key: entry.value for entry in tensor.external_data}
                    file.seek(int(place["offset"]))
                    tensor.raw_data = file.read(int(place["length"]))
                    tensor.ClearField("external_data")
                    tensor.ClearField("data_location")
    except SharpzoError:
        raise
    except Exception as error:  # protobuf's have no common base class with others
        raise BundleError(
            f"{graph} cannot be read as a graph: {type(error).__name__}. It must be as export wrote it. "
            f"Copy the bundle again"
        ) from error
    return model


# Rounded weights ---------------------------------------------------------------------------------


def packed_layers(tower: onnx.ModelProto, bits: int) -> dict[str, PackedArrays]:
    """The matrices of the linear layers, rounded, by the names of their weights."""
    weights = {tensor.name: tensor for tensor in tower.graph.initializer}
    names = [node.input[1] for node in tower.graph.node if node.op_type == "MatMul"]
    arrays = {name: numpy_helper.to_array(weights[name]) for name in names if name in weights}
    return {name: pack(array, bits) for name, array in arrays.items()}


def round_layers(tower: onnx.ModelProto, packed: dict[str, PackedArrays]) -> None:
    """Write rounded numbers over the matrices, in float32."""
    for tensor in tower.graph.initializer:
        if tensor.name in packed:
            tensor.raw_data = dequantised(packed[tensor.name]).tobytes()


def pack_layers(tower: onnx.ModelProto, packed: dict[str, PackedArrays]) -> None:
    """Put packed matrices in place of the others, and products with packed matrices."""
    for node in tower.graph.node:
        if node.op_type == "MatMul" and (weight := node.input[1]) in packed:
            x, matrix = node.input[0], packed[weight]
            names = [f"{weight}.{part}" for part in PARTS]
            node.CopyFrom(
                onnx.helper.make_node(
                    "MatMulNBits", [x, *names], node.output, node.name, **packed_product(matrix)
                )
            )
    kept = [tensor for tensor in tower.graph.initializer if tensor.name not in packed]
    del tower.graph.initializer[:]
    tower.graph.initializer.extend(kept)
    for weight, matrix in packed.items():
        for part in PARTS:
            name = f"{weight}.{part}"
            tower.graph.initializer.append(numpy_helper.from_array(getattr(matrix, part), name))
