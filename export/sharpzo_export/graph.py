"""Building ONNX graphs node by node, with weights in one shared data file.

Clean initialisers, one layout for every graph that shares the weights, and a choice per linear
layer: that is what building by hand gives over tracing.

A weight is one array, or a packed matrix of three (quantize.py). It goes from an `Array` over a
`Place` in the data file to a `Value` of a graph, and each function here takes either form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from sharpzo_edge import __version__
from sharpzo_edge.clip.manifest import PACKED_BLOCK, Step, Tensor

from .quantize import Packed

# Read by every onnxruntime the device side allows; fixed, so that a newer onnx package changes nothing.
OPSET = 20
IR_VERSION = 9
TENSOR_ALIGNMENT = 64
PAGE_BYTES = 4096
TINY_NORM = 1e-12  # as torch's normalize
MICROSOFT = "com.microsoft"  # onnxruntime's own operators; an op set of version 1
FLOAT32_ACTIVATIONS = 1  # MatMulNBits' accuracy_level: never round what is multiplied by the weights

Array = np.ndarray | Packed[np.ndarray]
Place = Tensor | Packed[Tensor]
Value = str | Packed[str]
Places = dict[str, Place]
Values = dict[str, Value]
S = TypeVar("S")


class DataFile:
    """A tower's weights, appended one after the other; a block starts on a page of its own."""

    def __init__(self, path: Path):
        self.path = path
        self._file = path.open("wb")

    def append(self, name: str, array: Array) -> Place:
        """A packed matrix takes three places: `name`.blocks, `name`.scales, `name`.zero_points."""
        if isinstance(array, Packed):
            return array.map(lambda part, its_array: self._append_one(f"{name}.{part}", its_array))
        return self._append_one(name, array)

    def append_block(self, arrays: dict[str, Array]) -> Places:
        """Weights that are read together: they lie together."""
        self._pad_to(PAGE_BYTES)
        return {name: self.append(name, array) for name, array in arrays.items()}

    def close(self) -> None:
        self._pad_to(PAGE_BYTES)
        self._file.close()

    def _append_one(self, name: str, array: np.ndarray) -> Tensor:
        self._pad_to(TENSOR_ALIGNMENT)
        array = np.ascontiguousarray(array)
        tensor = Tensor(name, str(array.dtype), tuple(array.shape), self._file.tell())
        self._file.write(array.tobytes())
        return tensor

    def _pad_to(self, multiple: int) -> None:
        self._file.write(bytes(-self._file.tell() % multiple))


class Graph:
    """One ONNX graph under construction. Values are named by strings, as in ONNX itself."""

    def __init__(self, name: str, data: DataFile | None = None):
        """data: where `weight` finds its weights; a graph that has all numbers inside needs none."""
        self.name = name
        self.data = data
        self._operators = {"": OPSET}
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}

    def input(self, name: str, shape: Sequence[int | str], dtype: int = TensorProto.FLOAT) -> str:
        self._inputs.append(helper.make_tensor_value_info(name, dtype, list(shape)))
        return name

    def output(self, name: str, value: str, shape: Sequence[int | str]) -> None:
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))

    def op(self, kind: str, *inputs: Value, **attributes: Any) -> str:
        """Append a node; returns its output's name. Only `linear` takes packed matrices."""
        name = f"{kind}_{len(self._nodes)}"
        self._append(kind, inputs, name, [name], attributes)
        return name

    def ops(self, kind: str, n_outputs: int, *inputs: Value, **attributes: Any) -> list[str]:
        """Append a node with several outputs; returns their names."""
        name = f"{kind}_{len(self._nodes)}"
        outputs = [f"{name}_{i}" for i in range(n_outputs)]
        self._append(kind, inputs, name, outputs, attributes)
        return outputs

    def split(self, x: str, sizes: Sequence[int]) -> list[str]:
        """Parts of these sizes along the last axis."""
        return self.ops("Split", len(sizes), x, self.constant(sizes), axis=-1)

    def _append(
        self, kind: str, inputs: Sequence[Value], name: str, outputs: list[str], attributes: dict[str, Any]
    ) -> None:
        names = [_plain(value) for value in inputs]
        self._nodes.append(helper.make_node(kind, names, outputs, name=name, **attributes))
        if attributes.get("domain") == MICROSOFT:
            self._operators[MICROSOFT] = 1

    def insert(self, model: onnx.ModelProto, value: str) -> str:
        """Put in another graph of one input and one output; returns the output of it for this value.

        The model is written over: its names get a prefix.
        """
        inside = onnx.compose.add_prefix_graph(model.graph, f"{model.graph.name}.", inplace=True)
        self._operators |= {each.domain: each.version for each in model.opset_import}
        self._nodes.append(helper.make_node("Identity", [value], [inside.input[0].name]))
        self._nodes += inside.node
        self._initializers |= {tensor.name: tensor for tensor in inside.initializer}
        return str(inside.output[0].name)

    def constant(self, value: Any, dtype: type = np.int64) -> str:
        """A small constant inside the graph file; equal ones are shared."""
        array: NDArray[Any] = np.asarray(value, dtype)
        name = f"const_{array.dtype}_{array.shape}_{array.tobytes().hex()}"
        self._initializers.setdefault(name, numpy_helper.from_array(array, name))
        return name

    def array(self, name: str, value: np.ndarray) -> str:
        """A weight inside the graph file."""
        self._initializers[name] = numpy_helper.from_array(value, name)
        return name

    def weight(self, place: Place, prefix: str = "") -> Value:
        """An initialiser that lies in the data file; `prefix` tells equal names of blocks apart."""
        return _each(place, lambda tensor: self._initializer(tensor, prefix))

    def weights(self, places: Places, prefix: str = "") -> Values:
        return {name: self.weight(place, prefix) for name, place in places.items()}

    def weight_inputs(
        self, places: Places, shapes: Mapping[str, Sequence[int | str]] | None = None
    ) -> Values:
        """The same weights as inputs of the graph: whoever streams the tower feeds them.

        `shapes` is for weights whose sizes differ between the blocks that one graph serves.
        """

        def feed(tensor: Tensor) -> str:
            shape = tensor.shape if shapes is None else shapes[tensor.name]
            return self.input(tensor.name, shape, helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype)))

        return {name: _each(place, feed) for name, place in places.items()}

    def _initializer(self, tensor: Tensor, prefix: str) -> str:
        assert self.data
        name = prefix + tensor.name
        proto = TensorProto(name=name, dims=tensor.shape)
        proto.data_type = helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
        proto.data_location = TensorProto.EXTERNAL
        place = {"location": self.data.path.name, "offset": tensor.offset, "length": tensor.n_bytes}
        for key, value in place.items():
            proto.external_data.add(key=key, value=str(value))
        self._initializers[name] = proto
        return name

    def save(self, path: Path) -> None:
        path.write_bytes(self.to_bytes())

    def to_bytes(self, about: str = "", metadata: Mapping[str, str] | None = None) -> bytes:
        """The file: the same bytes every time. about, metadata: for whoever opens it; `about` comes first."""
        graph = helper.make_graph(
            self._nodes, self.name, self._inputs, self._outputs, list(self._initializers.values())
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid(*operators) for operators in self._operators.items()],
            ir_version=IR_VERSION,
            producer_name="sharpzo-edge",
            producer_version=__version__,
            doc_string=about,
        )
        helper.set_model_props(model, dict(metadata or {}))
        data: bytes = model.SerializeToString(deterministic=True)
        return data

    # Idioms that several towers share.

    def linear(self, x: str, weight: Value, bias: Value | None) -> str:
        """x (…, in) @ weight (in, out) + bias: the one place where a linear layer is emitted."""
        if isinstance(weight, Packed):
            parts = weight.blocks, weight.scales, weight.zero_points
            y = self.op("MatMulNBits", x, *parts, **packed_product(weight))
        else:
            y = self.op("MatMul", x, weight)
        return self.op("Add", y, bias) if bias else y

    def layer_norm(self, x: str, weight: Value, bias: Value, epsilon: float) -> str:
        return self.layer_norm_parts(x, weight, bias, epsilon)[0]

    def layer_norm_parts(
        self, x: str, weight: Value, bias: Value, epsilon: float, n_parts: int = 1
    ) -> list[str]:
        """The layer norm of x (…, D); with 3 parts also the rows' means and 1/std (…, 1)."""
        return self.ops("LayerNormalization", n_parts, x, weight, bias, axis=-1, epsilon=epsilon)

    def activation(self, x: str, kind: str) -> str:
        """`kind` as export/load_clip.py names it: gelu, gelu_tanh or quick_gelu."""
        if kind == "quick_gelu":
            scaled = self.op("Mul", x, self.constant(1.702, np.float32))
            return self.op("Mul", x, self.op("Sigmoid", scaled))
        return self.op("Gelu", x, approximate={"gelu": "none", "gelu_tanh": "tanh"}[kind])

    def unit(self, x: str) -> str:
        """Rows of length one."""
        return self.op("Div", x, self.length(x))

    def length(self, x: str) -> str:
        """The rows' lengths (…, 1)."""
        length = self.op("ReduceL2", x, self.constant([-1]), keepdims=1)
        return self.op("Clip", length, self.number(TINY_NORM))

    def number(self, value: float) -> str:
        """A constant in float32."""
        return self.constant(value, np.float32)

    def size(self, x: str, axis: int) -> str:
        """The length of one axis, counted from the first, as a vector of one int64."""
        return self.op("Shape", x, start=axis, end=axis + 1)

    def reshape(self, x: str, *shape: int | str) -> str:
        """Reshape to sizes that are numbers (0 keeps an axis, -1 is worked out) or `size` values."""
        if all(isinstance(s, int) for s in shape):
            return self.op("Reshape", x, self.constant(shape))
        parts = [self.constant([s]) if isinstance(s, int) else s for s in shape]
        return self.op("Reshape", x, self.op("Concat", *parts, axis=0))

    def slice(self, x: Value, start: str | int, end: str | int, axis: int) -> str:
        a, b = (self.constant([v]) if isinstance(v, int) else v for v in (start, end))
        return self.op("Slice", x, a, b, self.constant([axis]))

    def transpose(self, x: str, *order: int) -> str:
        return self.op("Transpose", x, perm=order)


def packed_product(weight: Packed[Any]) -> dict[str, Any]:
    """The attributes of a MatMulNBits, the product with a packed matrix."""
    return {
        "domain": MICROSOFT,
        "K": weight.n_in,
        "N": weight.n_out,
        "bits": weight.bits,
        "block_size": PACKED_BLOCK,
        "accuracy_level": FLOAT32_ACTIVATIONS,
    }


def step(graph: str, weights: Places) -> Step:
    """The manifest's word on a graph that takes these weights as inputs."""
    tensors: list[Tensor] = []
    for place in weights.values():
        _each(place, tensors.append)
    return Step(graph, tuple(tensors))


def _plain(value: Value) -> str:
    """The one name of a weight that is not packed."""
    if isinstance(value, Packed):
        raise TypeError(f"{value.blocks} is packed: only a linear layer can take it")
    return value


def _each(place: Place, use: Callable[[Tensor], S]) -> S | Packed[S]:
    """use(tensor) for the one tensor of a plain weight, or for each of a packed matrix."""
    return place.map(lambda _, tensor: use(tensor)) if isinstance(place, Packed) else use(place)
