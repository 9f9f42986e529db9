"""Errors over gRPC and over a stream, and back."""

from __future__ import annotations

from base64 import b64encode
from urllib.parse import quote

import grpc
import pytest
from grpc_status import rpc_status

from encephalon.core import errors, status
from encephalon.core.errors import EncephalonError, Internal, InvalidInput, Overloaded, Unavailable
from encephalon.core.wire import StreamError

KINDS = sorted(
    (kind for name in errors.__all__ if issubclass(kind := getattr(errors, name), EncephalonError)),
    key=lambda kind: kind.__name__,
)
LEAVES = [kind for kind in KINDS if kind.status is not grpc.StatusCode.UNKNOWN]


class Failed(grpc.RpcError):
    """What a call raises."""

    def __init__(self, code: object, text: str, metadata: tuple[tuple[str, str | bytes], ...] = ()) -> None:
        super().__init__()
        self._parts = code, text, metadata

    def code(self) -> object:
        return self._parts[0]

    def details(self) -> str:
        return self._parts[1]

    def trailing_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return self._parts[2]


def over_the_wire(error: EncephalonError) -> Failed:
    return Failed(error.status, error.message, status.trailing_metadata(error))


@pytest.mark.parametrize("kind", LEAVES)
def test_every_error_comes_back_as_itself(kind: type[EncephalonError]) -> None:
    error = kind("tensor 'x' came as ü", tensor="x", got=[1, 2])
    for again in (
        status.from_rpc_error(over_the_wire(error), region="visual"),
        status.error_from_stream(status.stream_error(error, "7"), region="visual"),
    ):
        assert type(again) is kind
        assert again.message == error.message
        assert again.details == {"tensor": "x", "got": "[1, 2]", "region": "visual"}


def test_others_can_read_the_status() -> None:
    found = rpc_status.from_call(over_the_wire(InvalidInput("no", tensor="x")))
    assert found is not None
    assert (found.code, found.message) == (3, "no")
    info = status.error_info(status.trailing_metadata(InvalidInput("no", tensor="x")))
    assert info is not None
    assert (info.reason, info.domain, dict(info.metadata)) == ("InvalidInput", "encephalon", {"tensor": "x"})


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, Unavailable),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Overloaded),
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidInput),
        (grpc.StatusCode.OUT_OF_RANGE, InvalidInput),
        (grpc.StatusCode.UNAUTHENTICATED, errors.Denied),
        (grpc.StatusCode.CANCELLED, errors.Cancelled),
        (grpc.StatusCode.UNKNOWN, Internal),
        (None, Internal),
        (17, Internal),
    ],
)
def test_foreign_statuses(code: object, kind: type[EncephalonError]) -> None:
    assert type(status.from_rpc_error(Failed(code, "text"))) is kind


def test_unreadable_details_fall_back_to_the_code() -> None:
    broken = (("grpc-status-details-bin", b"\xff\xff"), ("x", "y"))
    assert type(status.from_rpc_error(Failed(grpc.StatusCode.NOT_FOUND, "gone", broken))) is errors.NotFound


def test_what_is_too_large_for_the_transport_is_not_retried() -> None:
    text = "Received message larger than max (5 vs. 4)"
    assert type(status.from_rpc_error(Failed(grpc.StatusCode.RESOURCE_EXHAUSTED, text))) is InvalidInput


def test_a_foreign_stream_error_is_internal() -> None:
    assert type(status.error_from_stream(StreamError("no such model"))) is Internal
    named = StreamError("late", parameters={"error_status": "DEADLINE_EXCEEDED"})
    assert type(status.error_from_stream(named)) is errors.DeadlineExceeded


def test_a_subclass_travels_as_its_status() -> None:
    class OutOfReach(Unavailable):
        """Known on one side only."""

    assert type(status.from_rpc_error(over_the_wire(OutOfReach("gone")))) is Unavailable


def test_nothing_internal_leaks_but_the_log_has_it(caplog: pytest.LogCaptureFixture) -> None:
    hidden = status.as_error(ZeroDivisionError("secret"))
    assert (type(hidden), hidden.message) == (Internal, status.INTERNAL_SENTENCE)
    assert "secret" in caplog.text


def test_headers_stay_small_and_writable() -> None:
    long = InvalidInput("脑\ud800" * 5000, **{f"d{n}": "脑" * 5000 for n in range(50)})
    escaped, packed = quote(status.sentence(long)), b64encode(status.to_status(long).SerializeToString())
    assert len(escaped) + len(packed) < 8000
    assert status.stream_error(long).message.encode()
