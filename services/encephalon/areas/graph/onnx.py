"""ONNX graphs, run by onnxruntime on the CPU; torch is not needed. Code 900 of every area with a contract, and of
`graph`, where the contract is the graph's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from encephalon.areas.arguments import construct
from encephalon.areas.contracts import check_fulfils
from encephalon.areas.graph.scan import scan
from encephalon.areas.network import Arrays, Network
from encephalon.core.contract import Contract, TensorSpec
from encephalon.core.errors import FailedPrecondition, InvalidInput, NotFound, Unsupported
from encephalon.library.areas import find_area

__all__ = ["OnnxNetwork", "load"]

DATATYPES: Mapping[str, str] = MappingProxyType(
    {
        "tensor(bool)": "BOOL",
        "tensor(double)": "FP64",
        "tensor(float)": "FP32",
        "tensor(float16)": "FP16",
        "tensor(int16)": "INT16",
        "tensor(int32)": "INT32",
        "tensor(int64)": "INT64",
        "tensor(int8)": "INT8",
        "tensor(uint16)": "UINT16",
        "tensor(uint32)": "UINT32",
        "tensor(uint64)": "UINT64",
        "tensor(uint8)": "UINT8",
    }
)
"""Of onnxruntime to those of the Open Inference Protocol."""

DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
"""Whose operators onnxruntime has built in."""

ENDLESS = ("Loop", "SequenceMap")
"""How often they repeat is decided by the data: such a graph could hold its region for ever."""

PRESENT = ".present"
ORT_FORMAT = b"ORTM"
MAX_THREADS = 256


class OnnxNetwork:
    """Runs a graph. Its first dimension is the batch; where it is fixed to 1 the rows go through one by one.

    An input for which the graph has another one named `NAME.present`, BOOL [batch], is optional. `rename` gives names
    of the graph's inputs and outputs to those of the contract.
    """

    def __init__(self, area: str, data: bytes, rename: Any = None, threads: Any = 1) -> None:
        if not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS:
            raise ValueError(f"threads is {threads!r}, expected 1 to {MAX_THREADS}")
        self._session = session_of(data, threads)
        names = checked_names(rename or {}, [tensor.name for tensor in self._tensors()])
        inputs = [spec_of(tensor, names) for tensor in self._session.get_inputs()]
        outputs = [spec_of(tensor, names) for tensor in self._session.get_outputs()]
        self._theirs = {names.get(tensor.name, tensor.name): tensor.name for tensor in self._session.get_inputs()}
        self._one_by_one = one_by_one(self._session.get_inputs())
        masks = {spec.name for spec in inputs if spec.name.endswith(PRESENT) and spec.datatype == "BOOL"}
        self._masked = [spec for spec in inputs if f"{spec.name}{PRESENT}" in masks]
        named = {f"{spec.name}{PRESENT}" for spec in self._masked}
        own = [optional(spec) if spec in self._masked else spec for spec in inputs if spec.name not in named]
        self.contract = Contract(tuple(own), tuple(outputs))
        wanted = find_area(area).contract
        if wanted is not None:
            check_fulfils(self.contract, wanted, f"the graph does not fulfil the contract of area {area}")

    def _tensors(self) -> list[Any]:
        return [*self._session.get_inputs(), *self._session.get_outputs()]

    def __call__(self, inputs: Arrays) -> Arrays:
        feed = self._complete(inputs)
        if not self._one_by_one:
            return self._run(feed)
        rows = len(next(iter(feed.values())))
        parts = [self._run({name: array[row : row + 1] for name, array in feed.items()}) for row in range(rows)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _run(self, feed: Arrays) -> Arrays:
        named = {self._theirs[name]: np.ascontiguousarray(array) for name, array in feed.items()}
        answers = self._session.run(None, named)
        return {spec.name: answer for spec, answer in zip(self.contract.outputs, answers, strict=True)}

    def _complete(self, inputs: Arrays) -> Arrays:
        """With zeros for what is not there, and the masks that say so."""
        if not self._masked:
            return inputs
        rows = len(next(iter(inputs.values())))
        feed: Arrays = {name: array for name, array in inputs.items() if not name.endswith(PRESENT)}
        for spec in self._masked:
            there = spec.name in inputs
            if not there:
                feed[spec.name] = np.zeros((rows, *(max(1, size) for size in spec.shape[1:])), NUMPY[spec.datatype])
            feed[f"{spec.name}{PRESENT}"] = inputs.get(f"{spec.name}{PRESENT}", np.full(rows, there))
        return feed


NUMPY: Mapping[str, type[np.generic]] = MappingProxyType(
    {"BOOL": np.bool_, "FP16": np.float16, "FP32": np.float32, "FP64": np.float64}
    | {f"{sign}{bits}": getattr(np, f"{sign.lower()}{bits}") for sign in ("INT", "UINT") for bits in (8, 16, 32, 64)}
)


def session_of(data: bytes, threads: int) -> Any:
    """Raises `InvalidInput` or `Unsupported`, in a sentence, for a graph that cannot be served."""
    check_graph(data)
    try:
        import onnxruntime
    except ImportError as error:
        raise FailedPrecondition(
            "the package 'onnxruntime' is missing; pip install 'encephalon[onnx]' where ONNX graphs are to run"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what fails is raised too
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common base
        raise InvalidInput(f"onnxruntime cannot load the graph: {first_line(error)}") from error


def check_graph(data: bytes) -> None:
    """Refuses what reaches beyond the file, and what onnxruntime alone cannot compute within bounds."""
    if data[4:8] == ORT_FORMAT:
        raise Unsupported("the graph is in onnxruntime's own format; give the ONNX file that it was made from")
    found = scan(data)
    if not found.graphs:
        raise InvalidInput("the file holds no ONNX graph, or is cut short")
    if found.external:
        raise Unsupported(
            "the graph keeps tensors in other files (external data); save it as one file: "
            "onnx.save(onnx.load(FILE), NEW, save_as_external_data=False)"
        )
    used = found.operators.keys() | {operator for uses in found.functions.values() for operator in uses}
    foreign = sorted(
        {f"{domain}::{name}" for domain, name, _ in used - found.functions.keys() if domain not in DOMAINS}
    )
    if foreign:
        raise Unsupported(
            f"the graph uses operators that onnxruntime does not have: {', '.join(foreign[:10])}; export it "
            "without them"
        )
    if endless := sorted({name for _, name, _ in used} & set(ENDLESS)):
        raise Unsupported(f"the graph repeats itself as its data decide ({', '.join(endless)}); export it unrolled")


def checked_names(rename: Any, there: Sequence[str]) -> Mapping[str, str]:
    if not isinstance(rename, Mapping) or not all(isinstance(name, str) for name in rename.values()):
        raise InvalidInput(f"rename is {rename!r}, expected names of the graph to names of the contract")
    for name in rename:
        if name not in there:
            raise InvalidInput(f"rename names '{name}', which the graph does not have; it has {', '.join(there)}")
    names = [rename.get(name, name) for name in there]
    if len(set(names)) < len(names):
        raise InvalidInput(f"two of the graph's tensors have one name: {', '.join(sorted(names))}; rename one")
    return dict(rename)


def spec_of(tensor: Any, names: Mapping[str, str]) -> TensorSpec:
    if tensor.type not in DATATYPES:
        raise Unsupported(
            f"tensor '{tensor.name}' of the graph is a {tensor.type}, expected one of {', '.join(DATATYPES)}",
            tensor=tensor.name,
        )
    shape = [size if isinstance(size, int) and size >= 0 else -1 for size in tensor.shape]
    if not shape or len(shape) > 8:
        raise Unsupported(
            f"tensor '{tensor.name}' of the graph has {len(shape)} dimensions, expected a batch first and at most 8",
            tensor=tensor.name,
        )
    if shape[0] not in (-1, 1):
        raise Unsupported(
            f"tensor '{tensor.name}' of the graph has shape {shape}: {shape[0]} rows at a time; export it with a first "
            "dimension of any size, or of 1",
            tensor=tensor.name,
        )
    return TensorSpec(names.get(tensor.name, tensor.name), DATATYPES[tensor.type], (-1, *shape[1:]))


def one_by_one(tensors: Sequence[Any]) -> bool:
    if not tensors:
        raise Unsupported("the graph has no input; a network needs one")
    return any(tensor.shape[0] == 1 for tensor in tensors)


def optional(spec: TensorSpec) -> TensorSpec:
    return TensorSpec(spec.name, spec.datatype, spec.shape, optional=True)


def first_line(error: Exception) -> str:
    """Without the name of the runtime's error class and number before it."""
    return " ".join(str(error).split())[:400]


def load(code: str, weights: Path | bytes | None, arguments: Mapping[str, Any]) -> Network:
    """`arguments` has the `area` whose contract is to be fulfilled."""
    given = dict(arguments)
    area = str(given.pop("area", "graph"))
    if weights is None:
        raise InvalidInput(f"network {area}/{code} has no graph of its own; name an ONNX file as its weights")
    return construct(f"{area}/{code}", partial(OnnxNetwork, area, bytes_of(weights)), given)


def bytes_of(weights: Path | bytes) -> bytes:
    if isinstance(weights, bytes):
        return weights
    try:
        return weights.read_bytes()
    except OSError as error:
        raise NotFound(f"the graph {weights} cannot be read: {error.strerror}", path=weights) from error
