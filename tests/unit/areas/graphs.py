"""Small ONNX graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

__all__ = ["Size", "graph_of", "model", "value", "vision"]

Size = int | str


def value(name: str, shape: Sequence[Size] | None, kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any], constants: Any = None, **more: Any
) -> Any:
    held = [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()]
    graph = helper.make_graph(list(nodes), "graph", list(inputs), list(outputs), held)
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(name, 1) for name in more.pop("domains", ()))]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, **more)


def graph_of(batch: Size = "N", wide: Size = 3) -> bytes:
    """`y = x @ w + b`, [batch, wide] to [batch, 2]."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Add", ["m", "b"], ["y"])]
    constants = {"w": np.arange(6, dtype=np.float32).reshape(3, 2), "b": np.ones(2, np.float32)}
    result: bytes = model(nodes, [value("x", [batch, wide])], [value("y", [batch, 2])], constants).SerializeToString()
    return result


def vision(features: str = "features", kind: int = TensorProto.UINT8) -> bytes:
    """Fulfils the contract of vision: features are the picture's mean and its opposite, and classes likewise."""
    nodes = [
        helper.make_node("Cast", ["image"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["numbers"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "one"], ["column"]),
        helper.make_node("Neg", ["column"], ["negative"]),
        helper.make_node("Concat", ["column", "negative"], [features], axis=1),
        helper.make_node("Softmax", [features], ["probabilities"], axis=1),
    ]
    inputs = [value("image", ["N", "H", "W"], kind)]
    outputs = [value(features, ["N", 2]), value("probabilities", ["N", 2])]
    result: bytes = model(nodes, inputs, outputs, {"one": np.array([1])}).SerializeToString()
    return result
