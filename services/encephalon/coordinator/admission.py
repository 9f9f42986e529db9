"""How much may be on its way at once; more is refused, not queued."""

from __future__ import annotations

from encephalon.core.errors import InvalidInput, Overloaded

__all__ = ["Admission"]


class Admission:
    """Counts requests and their bytes between `enter` and `leave`."""

    __slots__ = ("_max_bytes", "_max_request_bytes", "_max_requests", "nbytes", "requests")

    def __init__(self, max_requests: int, max_bytes: int, max_request_bytes: int) -> None:
        self._max_requests, self._max_bytes, self._max_request_bytes = max_requests, max_bytes, max_request_bytes
        self.requests = 0
        self.nbytes = 0

    def enter(self, nbytes: int) -> None:
        """Overloaded when it would be too much at once, InvalidInput when it is too large for any time."""
        if nbytes > self._max_request_bytes:
            raise InvalidInput(
                f"the request has {nbytes} bytes of tensors, at most {self._max_request_bytes} fit; send fewer rows",
                got=nbytes,
                expected=self._max_request_bytes,
            )
        if self.requests >= self._max_requests or (self.requests and self.nbytes + nbytes > self._max_bytes):
            raise Overloaded(
                f"{self.requests} requests with {self.nbytes} bytes are on their way already; come back later",
                requests=self.requests,
                bytes=self.nbytes,
            )
        self.requests += 1
        self.nbytes += nbytes

    def leave(self, nbytes: int) -> None:
        self.requests -= 1
        self.nbytes -= nbytes
