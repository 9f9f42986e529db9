"""Messages of the protocol, drawn at random, as ours and as protobuf's."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from encephalon.api.inference.v1 import inference_pb2 as pb
from encephalon.core.wire import (
    DATATYPES,
    InferRequest,
    InferResponse,
    Parameter,
    RequestedOutput,
    SharedTensor,
    Tensor,
    dtype_of,
)

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
values: st.SearchStrategy[Parameter] = st.one_of(
    st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False), texts
)
parameters = st.dictionaries(names.filter(lambda name: not name.startswith("shared_memory")), values, max_size=4)
# Of the form that is written without protobuf, and just beyond it.
usual_parameters = st.dictionaries(
    st.text(st.characters(codec="ascii"), min_size=1, max_size=70),
    st.one_of(values, st.integers(0, 200), st.text(st.characters(codec="ascii"), max_size=40)),
    max_size=6,
)
shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    name, datatype, shape = draw(names), draw(st.sampled_from(DATATYPES)), draw(shapes)
    count = int(np.prod(shape, dtype=np.int64))
    if datatype == "BYTES":
        array = np.empty(count, dtype=object)
        array[:] = draw(st.lists(st.binary(max_size=6), min_size=count, max_size=count))
        return Tensor.of(name, array.reshape(shape))
    size = count * dtype_of(datatype).itemsize
    seed = draw(st.integers(0, 2**32 - 1))
    data = np.random.default_rng(seed).integers(0, 2 if datatype == "BOOL" else 256, size, np.uint8).tobytes()
    return Tensor.raw(name, datatype, shape, data)


shared = st.builds(
    SharedTensor,
    name=names,
    datatype=st.sampled_from(DATATYPES),
    shape=shapes,
    region=names,
    offset=st.integers(0, 2**40),
    byte_size=st.integers(0, 2**40),
)
requests = st.builds(
    InferRequest,
    model_name=texts,
    model_version=texts,
    id=texts,
    parameters=parameters,
    inputs=st.lists(tensors(), max_size=3),
    outputs=st.lists(st.builds(RequestedOutput, name=names, parameters=parameters), max_size=3),
    shared_inputs=st.lists(shared, max_size=2),
)
responses = st.builds(
    InferResponse,
    model_name=texts,
    model_version=texts,
    id=texts,
    parameters=parameters,
    outputs=st.lists(tensors(), max_size=3),
    shared_outputs=st.lists(shared, max_size=2),
)


def fill(target: Any, given: dict[str, Parameter]) -> None:
    for name, value in given.items():
        if isinstance(value, bool):
            target[name].bool_param = value
        elif isinstance(value, int) and value < 2**63:
            target[name].int64_param = value
        elif isinstance(value, int):
            target[name].uint64_param = value
        elif isinstance(value, float):
            target[name].double_param = value
        else:
            target[name].string_param = value


def protobuf_request(request: InferRequest) -> pb.ModelInferRequest:
    """The same message by protobuf alone."""
    message = pb.ModelInferRequest(model_name=request.model_name, model_version=request.model_version, id=request.id)
    fill(message.parameters, request.parameters)
    for tensor in [*request.inputs, *request.shared_inputs]:
        header = message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if isinstance(tensor, SharedTensor):
            fill(header.parameters, tensor.parameters)
        else:
            message.raw_input_contents.append(bytes(tensor.data))
    for output in request.outputs:
        fill(message.outputs.add(name=output.name).parameters, output.parameters)
    return message


def protobuf_response(response: InferResponse) -> pb.ModelInferResponse:
    message = pb.ModelInferResponse(
        model_name=response.model_name, model_version=response.model_version, id=response.id
    )
    fill(message.parameters, response.parameters)
    for tensor in [*response.outputs, *response.shared_outputs]:
        header = message.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if isinstance(tensor, SharedTensor):
            fill(header.parameters, tensor.parameters)
            message.raw_output_contents.append(b"")
        else:
            message.raw_output_contents.append(bytes(tensor.data))
    return message
