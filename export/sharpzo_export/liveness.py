"""How much memory a tower's intermediate results take: the planner's arithmetic on the device rests on it.

Every value of a graph is looked at once, for one picture: a value is alive from the node that makes it to
the last node that reads it, and the largest sum of what is alive together is what one run needs besides
weights and inputs. onnxruntime fuses nodes and reuses buffers, so it needs that much or less.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from sharpzo_edge.clip.manifest import Step, Tensor
from sharpzo_edge.clip.quiet_onnxruntime import ort

Values = dict[str, np.ndarray]


def image_activations(
    folder: Path, graph: str, data: str, steps: tuple[Step, ...], pixels: tuple[int, int, int]
) -> tuple[int, int]:
    """(bytes alive in the hungriest run, bytes carried between the steps at most), each for one picture.

    The steps one after the other, or the whole graph where there are none.
    """
    alive, carried = 0, 0
    values = [np.zeros((1, *pixels), np.float32)]
    for step in steps or (Step(graph, ()),):
        values, most = _run(folder, step.graph, values, _read(folder / data, step.weights))
        alive, carried = max(alive, most), max(carried, sum(v.nbytes for v in values))
    return alive, carried if steps else 0


def _run(folder: Path, graph: str, taken: list[np.ndarray], weights: Values) -> tuple[list[np.ndarray], int]:
    """A graph's answers, and the most bytes alive in it at once."""
    model = onnx.load(folder / graph, load_external_data=False)
    answers = [output.name for output in model.graph.output]
    made = [name for node in model.graph.node for name in node.output if name]
    model.graph.output.extend(helper.make_empty_tensor_value_info(n) for n in made if n not in answers)
    exposed = folder / f"{graph}.exposed"  # beside the data file, which it refers to
    try:
        exposed.write_bytes(model.SerializeToString())
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        session = ort.InferenceSession(str(exposed), options, providers=["CPUExecutionProvider"])
        names = [i.name for i in session.get_inputs()]
        feeds = dict(zip(names, taken, strict=False)) | {n: w for n, w in weights.items() if n in names}
        found = dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds), strict=True))
    finally:
        exposed.unlink(missing_ok=True)
    n_bytes = {name: value.nbytes for name, value in found.items()}
    return [found[name] for name in answers], _most_alive(model.graph.node, n_bytes, answers)


def _most_alive(nodes: Sequence[onnx.NodeProto], n_bytes: dict[str, int], answers: list[str]) -> int:
    last_use = {name: i for i, node in enumerate(nodes) for name in node.input}
    last_use |= dict.fromkeys(answers, len(nodes))
    alive: set[str] = set()
    most = 0
    for i, node in enumerate(nodes):
        alive |= {name for name in node.output if name}
        most = max(most, sum(n_bytes[name] for name in alive) + _unpacked_bytes(node))
        alive = {name for name in alive if last_use.get(name, i) > i}
    return most


def _unpacked_bytes(node: onnx.NodeProto) -> int:
    """A product with packed weights spreads them to float32 while it runs."""
    if node.op_type != "MatMulNBits":
        return 0
    size: dict[str, int] = {a.name: a.i for a in node.attribute}
    return 4 * size["K"] * size["N"]


def _read(path: Path, weights: tuple[Tensor, ...]) -> Values:
    return {
        t.name: np.fromfile(path, t.dtype, int(np.prod(t.shape)), offset=t.offset).reshape(t.shape)
        for t in weights
    }
