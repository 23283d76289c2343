"""What the profilers of onnxruntime and torch tell, by kind of operator."""

from __future__ import annotations

from typing import Any


def last_passes(events: list[dict[str, Any]], n: int, of: int) -> list[dict[str, Any]]:
    """The events of the last n of so many equal passes."""
    runs = sorted(e["ts"] for e in events if e["name"] == "model_run")
    if not runs:  # a session that was opened and never used
        return []
    first = runs[len(runs) * (of - n) // of]
    return [e for e in events if e["ts"] >= first and e["cat"] in ("Node", "Session")]


def our_kind(event: dict[str, Any]) -> str:
    operator = event["args"]["op_name"]
    if operator in ("MatMulIntegerToFloat", "DynamicQuantizeLinear"):
        return "products with weights"
    if operator in ("QuantizeLinear", "Abs", "ReduceMax", "Max"):
        return "rounding to 8 bits"
    if operator in ("MatMul", "FusedMatMul", "Gemm", "MatMulNBits"):
        _, *second = event["args"]["input_type_shape"]  # a packed matrix is not an input any more
        has_weights = not second or len(next(iter(second[0].values()))) == 2
        return "products with weights" if has_weights else "products in attention"
    if operator in ("Softmax", "BiasSoftmax"):
        return "softmax"
    if "LayerNorm" in operator:
        return "layer norm"
    if "Gelu" in operator or operator in ("Erf", "Sigmoid", "Tanh", "QuickGelu"):
        return "activation"
    if operator in ("Transpose", "Concat", "Slice", "Split", "Gather", "Expand", "Reshape"):
        return "moving numbers"
    return "adding and the rest"


def torch_kind(key: str) -> str:
    name = key.removeprefix("aten::")
    if name in ("addmm", "mm"):
        return "products with weights"
    if "attention" in name or name in ("bmm", "baddbmm", "_masked_softmax", "_softmax"):
        return "attention (products, softmax)"
    if "layer_norm" in name:
        return "layer norm"
    if "gelu" in name or name == "sigmoid":
        return "activation"
    if name in ("copy_", "cat", "repeat", "index", "clone", "contiguous", "_transform_bias_rescale_qkv"):
        return "moving numbers"
    return "adding and the rest"
