"""Messages to bytes and back.

A message is its small fields, then `tag | length | payload` of each tensor's raw bytes: what protobuf itself would
write, but with one copy of the elements on the way out and none on the way in (protobuf copies on every access and
takes no memoryview).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from google.protobuf.message import DecodeError

from encephalon.api.inference.v1.inference_pb2 import ModelInferRequest
from encephalon.core.errors import InvalidInput
from encephalon.core.wire import layout, parameters, recurring
from encephalon.core.wire.fields import head, malformed, scan, text
from encephalon.core.wire.layout import Layout
from encephalon.core.wire.messages import InferRequest, InferResponse, Parameters, RequestedOutput, StreamError
from encephalon.core.wire.tensor import Tensor

__all__ = [
    "decode_request",
    "decode_response",
    "decode_stream_response",
    "encode_request",
    "encode_response",
    "encode_stream_error",
    "encode_stream_response",
    "peek_id",
    "peek_stream_id",
]

# Field numbers of ModelInferRequest and ModelInferResponse, which agree up to the tensors.
MODEL_NAME, MODEL_VERSION, ID, PARAMETERS, TENSORS = 1, 2, 3, 4, 5
REQUESTED_OUTPUTS, RAW_INPUTS = 6, 7
RAW_OUTPUTS = 6
# Of InferRequestedOutputTensor.
OUTPUT_NAME = 1
# Of ModelStreamInferResponse.
ERROR_MESSAGE, INFER_RESPONSE = 1, 2

Pieces = list[bytes | memoryview]


def encode_request(request: InferRequest) -> bytes:
    """InvalidInput for parameters and names that the protocol cannot carry."""
    pieces = common(request, request.inputs)
    pieces += [layout.encode_shared(shared) for shared in request.shared_inputs]
    pieces += [encode_requested(output) for output in request.outputs]
    append_raw(pieces, RAW_INPUTS, request.inputs)
    return b"".join(pieces)


def encode_response(response: InferResponse) -> bytes:
    return b"".join(response_pieces(response))


def encode_stream_response(response: InferResponse) -> bytes:
    pieces = response_pieces(response)
    pieces.insert(0, head(INFER_RESPONSE, sum(map(len, pieces))))
    return b"".join(pieces)


def encode_stream_error(error: StreamError) -> bytes:
    """An error without a message would read as success, so it gets one."""
    inner = b"".join([text(ID, error.id), *parameter_pieces(error.parameters)])
    return text(ERROR_MESSAGE, error.message or "failed") + head(INFER_RESPONSE, len(inner)) + inner


def decode_request(message: bytes) -> InferRequest:
    """InvalidInput, with a sentence that names the tensor, for whatever is not a request."""
    try:
        known = recurring.recall(message)
    except UnicodeDecodeError:
        known = None
    return known if known is not None else read_request(message)


def read_request(message: bytes) -> InferRequest:
    request = InferRequest("")
    layouts: list[Layout] = []
    ids: list[tuple[int, int]] = []
    raw: list[tuple[int, int]] = []
    for number, start, stop in scan(message, 0, len(message), known=RAW_INPUTS):
        if number == TENSORS:
            layouts.append(layout.layout(message[start:stop]))
        elif number == RAW_INPUTS:
            raw.append((start, stop))
        elif number == REQUESTED_OUTPUTS:
            request.outputs.append(decode_requested(message[start:stop]))
        elif number < TENSORS:
            common_field(request, number, message[start:stop])
            if number == ID:
                ids.append((start, stop))
    if any(each.shared for each in layouts):
        request.shared_inputs = [each.shared_tensor() for each in layouts if each.shared]
        layouts = [each for each in layouts if not each.shared]
    view = memoryview(message)
    request.inputs = tensors(layouts, [view[start:stop] for start, stop in raw])
    if len(raw) == len(layouts) and not request.shared_inputs:
        recurring.remember(message, request, ids, layouts, raw)
    return request


def decode_response(message: bytes) -> InferResponse:
    """InvalidInput for whatever is not a response."""
    return decode_response_between(message, 0, len(message))


def decode_stream_response(message: bytes) -> InferResponse | StreamError:
    """InvalidInput for whatever is neither an answer nor an error."""
    error, answers = "", []
    for number, start, stop in scan(message, 0, len(message), known=INFER_RESPONSE):
        if number == ERROR_MESSAGE:
            error = decode_text(message[start:stop])
        elif number == INFER_RESPONSE:
            answers.append((start, stop))
    if len(answers) == 1:
        response = decode_response_between(message, *answers[0])
    else:
        # protobuf merges a field that came several times, which is the same as reading its payloads as one.
        response = decode_response(b"".join(message[start:stop] for start, stop in answers))
    return StreamError(error, response.id, response.parameters) if error else response


def peek_id(message: bytes) -> str:
    """The id of a request that may be malformed elsewhere; empty when it has none or it cannot be read."""
    return peek(message, ID).decode("utf-8", "ignore")


def peek_stream_id(message: bytes) -> str:
    """The id of an answer of a stream that may be malformed elsewhere; empty when it cannot be read."""
    return peek(peek(message, INFER_RESPONSE), ID).decode("utf-8", "ignore")


def peek(message: bytes, wanted: int) -> bytes:
    try:
        fields = scan(message, 0, len(message), known=0)
    except InvalidInput:
        return b""
    found = [message[start:stop] for number, start, stop in fields if number == wanted]
    return found[-1] if found else b""


def common(message: InferRequest | InferResponse, tensors: Sequence[Tensor]) -> Pieces:
    pieces: Pieces = [names(message.model_name, message.model_version)]
    if message.id:
        pieces.append(text(ID, message.id))
    if message.parameters:
        pieces += parameter_pieces(message.parameters)
    for tensor in tensors:
        pieces.append(layout.encode(tensor.name, tensor.datatype, tensor.shape))
    return pieces


@lru_cache(maxsize=256)
def names(model_name: str, model_version: str) -> bytes:
    return text(MODEL_NAME, model_name) + text(MODEL_VERSION, model_version)


def response_pieces(response: InferResponse) -> Pieces:
    pieces = common(response, response.outputs)
    if response.shared_outputs:
        pieces += [layout.encode_shared(shared) for shared in response.shared_outputs]
    append_raw(pieces, RAW_OUTPUTS, response.outputs)
    # Clients find an output's bytes by its place, so what lies in shared memory has an empty one (as Triton does it).
    pieces += [head(RAW_OUTPUTS, 0)] * len(response.shared_outputs)
    return pieces


def append_raw(pieces: Pieces, number: int, tensors: Sequence[Tensor]) -> None:
    for tensor in tensors:
        data = tensor.data
        pieces += (head(number, len(data)), data)


def parameter_pieces(values: Parameters) -> Sequence[bytes]:
    try:
        return parameters.quick_entries(values)
    except parameters.NotQuick:
        message = ModelInferRequest()
        parameters.fill(message.parameters, values)
        return [message.SerializeToString(deterministic=True)]


def encode_requested(output: RequestedOutput) -> bytes:
    message = ModelInferRequest.InferRequestedOutputTensor()
    parameters.fill(message.parameters, output.parameters)
    payload = text(OUTPUT_NAME, output.name) + message.SerializeToString(deterministic=True)
    return head(REQUESTED_OUTPUTS, len(payload)) + payload


def decode_requested(payload: bytes) -> RequestedOutput:
    try:
        message = ModelInferRequest.InferRequestedOutputTensor.FromString(payload)
    except DecodeError:
        raise malformed("a requested output cannot be read (not protobuf, or a name that is not UTF-8)") from None
    return RequestedOutput(message.name, parameters.plain(message.parameters))


def decode_response_between(message: bytes, start: int, end: int) -> InferResponse:
    response = InferResponse("")
    layouts: list[Layout] = []
    raw: list[memoryview] = []
    view = memoryview(message)
    for number, first, stop in scan(message, start, end, known=RAW_OUTPUTS):
        if number == TENSORS:
            layouts.append(layout.layout(message[first:stop]))
        elif number == RAW_OUTPUTS:
            raw.append(view[first:stop])
        elif number < TENSORS:
            common_field(response, number, message[first:stop])
    if any(each.shared for each in layouts):
        response.shared_outputs = [each.shared_tensor() for each in layouts if each.shared]
        if len(raw) == len(layouts):
            raw = [data for data, each in zip(raw, layouts, strict=True) if not each.shared]
        layouts = [each for each in layouts if not each.shared]
    response.outputs = tensors(layouts, raw)
    return response


def common_field(message: InferRequest | InferResponse, number: int, payload: bytes) -> None:
    if number == ID:
        message.id = decode_text(payload)
    elif number == MODEL_NAME:
        message.model_name = decode_text(payload)
    elif number == MODEL_VERSION:
        message.model_version = decode_text(payload)
    else:
        name, value = parameters.entry(payload)
        message.parameters[name] = value


def tensors(layouts: Sequence[Layout], raw: Sequence[memoryview]) -> list[Tensor]:
    if not raw:
        return [typed(each) for each in layouts]
    if len(raw) != len(layouts):
        for each in layouts:
            if each.typed is not None:
                raise each.twice()
        names = ", ".join(f"'{each.name}'" for each in layouts[:10]) or "no tensor"
        raise InvalidInput(
            f"{len(raw)} raw contents came for {len(layouts)} tensors ({names}); send one for each, in the same order",
            got=len(raw),
            expected=len(layouts),
        )
    return [each.tensor(data) for each, data in zip(layouts, raw, strict=True)]


def typed(each: Layout) -> Tensor:
    if each.typed is None and each.count:
        raise InvalidInput(
            f"tensor '{each.name}' came without contents, expected {each.count} elements of {each.datatype}",
            tensor=each.name,
            expected=each.count,
        )
    return Tensor(each.name, each.datatype, each.shape, each.typed if each.typed is not None else memoryview(b""))


def decode_text(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise malformed(f"{payload[:40]!r} stands where a name is expected, and is not UTF-8") from None
