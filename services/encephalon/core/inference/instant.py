"""Small requests to a cheap network, answered while they are received: a task of their own would cost more than that.

This is a short cut and no second way: what needs more than the domain (shared memory, chosen outputs, a cancel message)
or cannot be answered without waiting is left to `Session`, and so is every message that may be malformed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from encephalon.core import logs
from encephalon.core.errors import InvalidInput
from encephalon.core.inference.answer import SHARED_FROM_BYTES, time_limit
from encephalon.core.inference.session import refusal
from encephalon.core.wire import InferRequest, InferResponse, decode_request, encode_stream_response

__all__ = ["Instant"]

# Parameters that mean nothing but to the domain and the time limit.
PLAIN = frozenset(("timeout", "priority"))


class Instant:
    """`infer_now` gives None when it would have to wait; `cheap` says beforehand whether it is worth asking.

    `default_timeout_s` applies to requests that say nothing; answers are shorter than `max_message_bytes`.
    """

    def __init__(
        self,
        infer_now: Callable[[InferRequest, float | None], InferResponse | None],
        cheap: Callable[[], bool],
        default_timeout_s: float,
        max_message_bytes: int,
    ) -> None:
        self._infer_now = infer_now
        self._cheap = cheap
        self._default_timeout_s = default_timeout_s
        self._max_message_bytes = max_message_bytes
        self._loop = asyncio.get_running_loop()

    def answer(self, message: bytes) -> bytes | None:
        """The encoded answer, or error; None leaves the message to the session."""
        if len(message) >= SHARED_FROM_BYTES or not self._cheap():
            return None
        try:
            request = decode_request(message)
        except InvalidInput:
            return None
        if request.outputs or request.shared_inputs or not request.parameters.keys() <= PLAIN:
            return None
        context = logs.request_id.set(request.id)
        try:
            encoded = self._answered(request)
        except Exception as error:  # noqa: BLE001 - becomes the answer, and is logged there when it is not ours
            return refusal(error, request.id)
        finally:
            logs.request_id.reset(context)
        # The session refuses in its own words what is too large.
        return encoded if encoded is not None and len(encoded) <= self._max_message_bytes else None

    def _answered(self, request: InferRequest) -> bytes | None:
        deadline = self._loop.time() + time_limit(request.parameters, None, self._default_timeout_s)
        response = self._infer_now(request, deadline)
        if response is None:
            return None
        response.id = request.id
        return encode_stream_response(response)
