"""How an error travels: as a gRPC status with `google.rpc.ErrorInfo`, or as one answer among others on a stream."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import NoReturn, Protocol, cast

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from encephalon.core import errors
from encephalon.core.errors import EncephalonError, Internal
from encephalon.core.wire import Parameter, StreamError

__all__ = [
    "DOMAIN",
    "INTERNAL_SENTENCE",
    "abort",
    "as_error",
    "error_from_stream",
    "from_rpc_error",
    "stream_error",
    "to_status",
    "trailing_metadata",
]

# `google.rpc.ErrorInfo.domain`: whose reasons they are.
DOMAIN = "encephalon"
STATUS_KEY = "grpc-status-details-bin"
# What a caller is told of a failure whose text could give away internals; the log has the rest.
INTERNAL_SENTENCE = "the server failed; its log says why"
# gRPC itself refuses a message beyond its limit with the status of a full queue, but sending it again would not help.
TOO_LARGE = "message larger than max"
# Bytes. Peers refuse trailers beyond 8 KiB, where the sentence stands percent-encoded and, with the details, in base64.
LONGEST_SENTENCE = 1200
LONGEST_DETAIL = 200
MOST_DETAILS = 8

LOG = logging.getLogger(__name__)

REASONS: dict[str, type[EncephalonError]] = {
    name: kind
    for name in errors.__all__
    if issubclass(kind := getattr(errors, name), EncephalonError) and kind.status is not grpc.StatusCode.UNKNOWN
}
# The first class that has a status stands for it when the other side gives no reason.
BY_STATUS: dict[grpc.StatusCode, type[EncephalonError]] = {kind.status: kind for kind in reversed(REASONS.values())}
BY_STATUS |= {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidInput,
    grpc.StatusCode.OUT_OF_RANGE: errors.InvalidInput,
    grpc.StatusCode.UNAUTHENTICATED: errors.Denied,
    grpc.StatusCode.UNKNOWN: errors.Internal,
}


class Aborting(Protocol):
    """What of `grpc.aio.ServicerContext` is needed to end a call with an error."""

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: tuple[tuple[str, bytes], ...] = ()
    ) -> NoReturn: ...


def as_error(error: BaseException) -> EncephalonError:
    """The error itself; anything that is not of our tree is logged and becomes Internal with a constant sentence."""
    if isinstance(error, EncephalonError):
        return error
    LOG.error("unexpected error", exc_info=error)
    return Internal(INTERNAL_SENTENCE)


def to_status(error: EncephalonError) -> status_pb2.Status:
    """With an ErrorInfo whose reason is the name of the class and whose metadata are the error's details."""
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=dict(details(error)))
    packed = Any()
    packed.Pack(info)
    return status_pb2.Status(code=error.status.value[0], message=sentence(error), details=[packed])


def trailing_metadata(error: EncephalonError) -> tuple[tuple[str, bytes], ...]:
    return ((STATUS_KEY, to_status(error).SerializeToString()),)


async def abort(context: Aborting, error: BaseException) -> NoReturn:
    """Ends the call with the error's status."""
    known = as_error(error)
    await context.abort(known.status, sentence(known), trailing_metadata(known))


def from_rpc_error(error: grpc.RpcError, **more: object) -> EncephalonError:
    """The class by ErrorInfo's reason, else by status code; `more` (such as region="visual") joins the details."""
    code, text = code_of(error), text_of(error)
    info = error_info(metadata_of(error))
    kind, facts = BY_STATUS.get(code, Internal), {}
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and TOO_LARGE in text:
        kind = errors.InvalidInput
    if info is not None and info.domain == DOMAIN:
        kind, facts = REASONS.get(info.reason, kind), dict(info.metadata)
    return restored(kind, text or code.name, {**facts, **more})


def stream_error(error: BaseException, id: str = "") -> StreamError:
    """For the answer of a stream; status, reason and details go as parameters."""
    known = as_error(error)
    parameters: dict[str, Parameter] = {"error_status": known.status.name, "error_reason": known.reason}
    parameters |= {f"error_detail.{name}": value for name, value in details(known)}
    return StreamError(sentence(known), id, parameters)


def error_from_stream(failure: StreamError, **more: object) -> EncephalonError:
    """The other way; a server that sends no parameters (any but ours) gives Internal."""
    reason, status = failure.parameters.get("error_reason"), failure.parameters.get("error_status")
    by_status = {code.name: kind for code, kind in BY_STATUS.items()}.get(str(status), Internal)
    prefix = "error_detail."
    facts = {name[len(prefix) :]: value for name, value in failure.parameters.items() if name.startswith(prefix)}
    return restored(REASONS.get(str(reason), by_status), failure.message, {**facts, **more})


def restored(kind: type[EncephalonError], message: str, facts: Mapping[str, object]) -> EncephalonError:
    error = kind(message)
    error.details = {name: str(value) for name, value in facts.items()}
    return error


def sentence(error: EncephalonError) -> str:
    return printable(error.message, LONGEST_SENTENCE)


def details(error: EncephalonError) -> Iterator[tuple[str, str]]:
    for name, value in list(error.details.items())[:MOST_DETAILS]:
        yield printable(name, LONGEST_DETAIL), printable(value, LONGEST_DETAIL)


def printable(text: str, limit: int) -> str:
    """At most `limit` bytes, without lone surrogates, which neither protobuf nor a header can carry."""
    encoded = text.encode("utf-8", "replace")
    return encoded.decode() if len(encoded) <= limit else encoded[:limit].decode("utf-8", "ignore") + "..."


def code_of(error: grpc.RpcError) -> grpc.StatusCode:
    code = error.code() if hasattr(error, "code") else None
    return code if isinstance(code, grpc.StatusCode) else grpc.StatusCode.UNKNOWN


def text_of(error: grpc.RpcError) -> str:
    return str(error.details() or "") if hasattr(error, "details") else str(error)


def metadata_of(error: grpc.RpcError) -> list[tuple[str, str | bytes]]:
    pairs = (error.trailing_metadata() or ()) if hasattr(error, "trailing_metadata") else ()
    return [(str(key), value) for key, value in cast(Iterable[tuple[str, str | bytes]], pairs)]


def error_info(metadata: Iterable[tuple[str, str | bytes]]) -> error_details_pb2.ErrorInfo | None:
    """None when there is no ErrorInfo, or none that can be read."""
    for key, value in metadata:
        if key != STATUS_KEY or not isinstance(value, bytes):
            continue
        try:
            for packed in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if packed.Unpack(info):
                    return info
        except DecodeError:
            return None
    return None
