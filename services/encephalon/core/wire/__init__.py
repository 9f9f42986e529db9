"""Tensors and the messages that carry them: the Open Inference Protocol's bytes in both directions.

Knows numpy and protobuf, nothing of gRPC, models or time. Whatever bytes come in, `InvalidInput` is the only error that
ever comes out.
"""

from encephalon.core.wire.codec import (
    decode_request,
    decode_response,
    decode_stream_response,
    encode_request,
    encode_response,
    encode_stream_error,
    encode_stream_response,
    peek_id,
    peek_stream_id,
)
from encephalon.core.wire.datatypes import DATATYPES, datatype_of, dtype_of
from encephalon.core.wire.messages import (
    InferRequest,
    InferResponse,
    Parameter,
    RequestedOutput,
    SharedTensor,
    StreamError,
)
from encephalon.core.wire.tensor import MAX_RANK, Tensor

__all__ = [
    "DATATYPES",
    "MAX_RANK",
    "InferRequest",
    "InferResponse",
    "Parameter",
    "RequestedOutput",
    "SharedTensor",
    "StreamError",
    "Tensor",
    "datatype_of",
    "decode_request",
    "decode_response",
    "decode_stream_response",
    "dtype_of",
    "encode_request",
    "encode_response",
    "encode_stream_error",
    "encode_stream_response",
    "peek_id",
    "peek_stream_id",
]
