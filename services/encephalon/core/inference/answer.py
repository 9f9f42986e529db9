"""One request from its decoded form to its answer: time limit, shared memory, the domain, the outputs asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from encephalon.core import logs
from encephalon.core.errors import DeadlineExceeded, InvalidInput, Unsupported
from encephalon.core.inference.bounded import Overran, bounded
from encephalon.core.inference.models import Models
from encephalon.core.inference.names import OUTPUT_BYTE_SIZE, OUTPUT_REGION
from encephalon.core.shared_memory import SharedMemory
from encephalon.core.wire import InferRequest, InferResponse, Parameter, RequestedOutput, SharedTensor, Tensor

__all__ = ["Answers"]

# The domain knows the deadline and says best what was late; only a domain that overruns is stopped from here.
GRACE_S = 0.05
# Below this a message carries a tensor faster than shared memory does.
SHARED_FROM_BYTES = 65536
ALIGNMENT = 64


class Answers:
    """Asks the domain. `default_timeout_s` applies to requests that say nothing."""

    def __init__(self, models: Models, shared_memory: SharedMemory | None, default_timeout_s: float) -> None:
        self._models = models
        self._shared_memory = shared_memory
        self._default_timeout_s = default_timeout_s

    async def answer(self, request: InferRequest, remaining_s: float | None = None) -> InferResponse:
        """`remaining_s` is what the transport allows. Every error of `core.errors` may come out."""
        # Each request has a task, and so a context, of its own: every line that is logged for it carries its id.
        if request.id:
            logs.request_id.set(request.id)
        timeout_s = time_limit(request.parameters, remaining_s, self._default_timeout_s)
        deadline = asyncio.get_running_loop().time() + timeout_s
        if request.shared_inputs:
            self._resolve(request)
        region, size = offered(request) if request.parameters else ("", 0)
        try:
            response = await bounded(self._models.infer(request, deadline), deadline + GRACE_S)
        except Overran:
            raise DeadlineExceeded(
                f"model '{request.model_name}' did not answer within {timeout_s:.3f} s", model=request.model_name
            ) from None
        response.id = request.id
        if request.outputs:
            self._select(request, response)
        if region:
            self._share(response, region, size)
        return response

    def _memory(self) -> SharedMemory:
        if self._shared_memory is None:
            raise Unsupported("this server uses no shared memory; send the tensors in the message")
        return self._shared_memory

    def _resolve(self, request: InferRequest) -> None:
        memory = self._memory()
        for shared in request.shared_inputs:
            data = memory.read(shared.region, shared.offset, shared.byte_size)
            request.inputs.append(Tensor.raw(shared.name, shared.datatype, shared.shape, data))
        request.shared_inputs = []

    def _select(self, request: InferRequest, response: InferResponse) -> None:
        """Keeps what was asked for; an output that this answer lacks is left out if the model knows it."""
        found = {tensor.name: tensor for tensor in response.outputs}
        if any(wanted.name not in found for wanted in request.outputs):
            contract = self._models.describe(request.model_name, request.model_version).contract
            check_known(request.outputs, [spec.name for spec in contract.outputs])
        response.outputs = []
        for wanted in request.outputs:
            tensor = found.get(wanted.name)
            if tensor is None:
                continue
            if (slot := wanted.slot) is None:
                response.outputs.append(tensor)
            else:
                response.shared_outputs.append(self._write(tensor, *slot))

    def _write(self, tensor: Tensor, region: str, offset: int, byte_size: int) -> SharedTensor:
        if tensor.nbytes > byte_size:
            raise InvalidInput(
                f"output '{tensor.name}' has {tensor.nbytes} bytes, but its shared memory has only {byte_size}",
                tensor=tensor.name,
                got=byte_size,
                expected=tensor.nbytes,
            )
        self._memory().write(region, offset, tensor.data)
        return SharedTensor(tensor.name, tensor.datatype, tensor.shape, region, offset, tensor.nbytes)

    def _share(self, response: InferResponse, region: str, size: int) -> None:
        """Puts large outputs where the caller offered room; what does not fit stays in the message."""
        if self._shared_memory is None or region not in self._shared_memory:
            return
        offset, kept = 0, []
        for tensor in response.outputs:
            if tensor.nbytes < SHARED_FROM_BYTES or offset + tensor.nbytes > size:
                kept.append(tensor)
                continue
            response.shared_outputs.append(self._write(tensor, region, offset, tensor.nbytes))
            offset += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
        response.outputs = kept


def time_limit(parameters: Mapping[str, Parameter], remaining_s: float | None, default_s: float) -> float:
    """Seconds for this request: the least of the transport's, ours and the parameter `timeout` (microseconds)."""
    limit = default_s if remaining_s is None else min(remaining_s, default_s)
    timeout = parameters.get("timeout", 0)
    if isinstance(timeout, bool) or not isinstance(timeout, int) or timeout < 0:
        raise InvalidInput(f"parameter 'timeout' came as {timeout!r}, expected microseconds", parameter="timeout")
    return min(limit, timeout / 1e6) if timeout else limit


def offered(request: InferRequest) -> tuple[str, int]:
    """Takes the region for outputs, and its size, out of the parameters; they are no business of the domain."""
    region, size = request.parameters.pop(OUTPUT_REGION, ""), request.parameters.pop(OUTPUT_BYTE_SIZE, 0)
    return (region, size) if isinstance(region, str) and isinstance(size, int) else ("", 0)


def check_known(wanted: Sequence[RequestedOutput], known: Sequence[str]) -> None:
    for output in wanted:
        if output.name not in known:
            raise InvalidInput(
                f"unknown output '{output.name}'; expected {', '.join(known) or 'none'}",
                tensor=output.name,
                expected=", ".join(known),
            )
