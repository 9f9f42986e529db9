"""The client's side of shared memory on a stream: large tensors go through memory that both processes see.

A slot is one POSIX shared-memory object, opened by both sides and then unlinked, so that it goes with the last of them.
Whoever dies leaves nothing: the server forgets the slots of a stream when the stream ends.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
import weakref
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from encephalon.core.errors import EncephalonError, Internal
from encephalon.core.inference.answer import ALIGNMENT, SHARED_FROM_BYTES
from encephalon.core.inference.names import OUTPUT_BYTE_SIZE, OUTPUT_REGION, STREAM_REGION_PREFIX
from encephalon.core.shared_memory import FOLDER
from encephalon.core.wire import InferRequest, InferResponse, Parameter, SharedTensor, Tensor

__all__ = ["Lender"]

# Per stream. Beyond them tensors travel in messages, which is slower but has no limit of its own.
MAX_SLOTS = 128
MAX_BYTES = 512 * 2**20

Register = Callable[[str, str, int], Awaitable[None]]


@dataclass(slots=True)
class Slot:
    """`size` bytes that the server knows as `region`."""

    region: str
    size: int
    memory: mmap.mmap


@dataclass(slots=True)
class Loan:
    """The slots that the server may use until it has answered."""

    model_name: str
    inputs: Slot | None = None
    outputs: Slot | None = None


class Lender:
    """Not to be used by two event loops. `register(name, key, byte_size)` tells the server of a slot."""

    def __init__(self, register: Register) -> None:
        self._register = register
        self._free: dict[int, list[Slot]] = {}
        self._slots = 0
        self._bytes = 0
        self._refused = False
        self._loans: dict[str, Loan] = {}
        # By model: the bytes of its large outputs, as far as seen; that much room is offered.
        self._outputs: dict[str, int] = {}

    def is_for(self, request: InferRequest) -> bool:
        """Whether there is, or will be, something large to move."""
        large = any(tensor.nbytes >= SHARED_FROM_BYTES for tensor in request.inputs)
        return large or bool(self._outputs.get(request.model_name))

    def note(self, id: str, request: InferRequest) -> None:
        """The request went as it is; its answer tells how much room the next one's outputs need."""
        self._loans[id] = Loan(request.model_name)

    async def lend(self, request: InferRequest) -> InferRequest:
        """Moves large inputs into a slot and offers one for outputs; what finds no room stays as it is.

        The loan is known by the request's id, and lasts until `settle`.
        """
        large = [tensor for tensor in request.inputs if tensor.nbytes >= SHARED_FROM_BYTES]
        wanted = self._outputs.get(request.model_name, 0)
        if not (large or wanted) or request.outputs:
            self._loans[request.id] = Loan(request.model_name)
            return request
        loan = Loan(request.model_name)
        loan.inputs = await self._take(sum(map(aligned, large))) if large else None
        loan.outputs = await self._take(wanted) if wanted else None
        self._loans[request.id] = loan
        return lent(request, loan, large)

    def settle(self, id: str, response: InferResponse | None) -> None:
        """The server has answered (None: with an error), or never heard of the request: its slots are free again.

        Outputs stay in their slot, which is free when the last of them is forgotten. Internal when they lie elsewhere.
        """
        loan = self._loans.pop(id, None)
        if loan is None:
            return
        if loan.inputs is not None:
            self._give_back(loan.inputs)
        try:
            if response is not None:
                self._collect(loan, response)
        finally:
            if loan.outputs is not None:
                self._give_back(loan.outputs)

    def _give_back(self, slot: Slot) -> None:
        self._free.setdefault(slot.size, []).append(slot)

    def _collect(self, loan: Loan, response: InferResponse) -> None:
        slot = loan.outputs
        if response.shared_outputs:
            if slot is None:
                raise not_offered(response.shared_outputs[0])
            # Views keep their base alive, so no output is overwritten while anybody still holds it.
            base = np.frombuffer(slot.memory, np.uint8)
            response.outputs += [fetch(slot, base, shared) for shared in response.shared_outputs]
            response.shared_outputs = []
            loan.outputs = None
            weakref.finalize(base, self._give_back, slot).atexit = False
        size = sum(aligned(tensor) for tensor in response.outputs if tensor.nbytes >= SHARED_FROM_BYTES)
        if size > self._outputs.get(loan.model_name, 0):
            self._outputs[loan.model_name] = size

    async def _take(self, size: int) -> Slot | None:
        # Powers of two, so that requests of varying size find each other's slots.
        rounded = max(SHARED_FROM_BYTES, 1 << (size - 1).bit_length())
        if free := self._free.get(rounded):
            return free.pop()
        if self._refused or self._slots >= MAX_SLOTS or self._bytes + rounded > MAX_BYTES:
            return None
        self._slots += 1
        self._bytes += rounded
        try:
            return await self._make(rounded)
        except (EncephalonError, OSError):
            # The server sees another /dev/shm or allows no such name, or memory is used up: carry on without.
            self._refused = True
            return None

    async def _make(self, size: int) -> Slot:
        name = STREAM_REGION_PREFIX + secrets.token_hex(16)
        path = FOLDER / name
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            # Reserved at once: writing to a mapping that finds no memory would end the process.
            os.posix_fallocate(descriptor, 0, size)
            memory = mmap.mmap(descriptor, size)
            await self._register(name, f"/{name}", size)
        finally:
            os.close(descriptor)
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
        return Slot(name, size, memory)


def lent(request: InferRequest, loan: Loan, large: Sequence[Tensor]) -> InferRequest:
    if loan.inputs is not None:
        small = [tensor for tensor in request.inputs if tensor.nbytes < SHARED_FROM_BYTES]
        request = replace(request, inputs=small, shared_inputs=place(loan.inputs, large))
    if loan.outputs is not None:
        offer: dict[str, Parameter] = {OUTPUT_REGION: loan.outputs.region, OUTPUT_BYTE_SIZE: loan.outputs.size}
        request = replace(request, parameters={**request.parameters, **offer})
    return request


def place(slot: Slot, tensors: Sequence[Tensor]) -> list[SharedTensor]:
    placed, offset = [], 0
    for tensor in tensors:
        slot.memory[offset : offset + tensor.nbytes] = tensor.data
        placed.append(SharedTensor(tensor.name, tensor.datatype, tensor.shape, slot.region, offset, tensor.nbytes))
        offset += aligned(tensor)
    return placed


def fetch(slot: Slot, base: npt.NDArray[np.uint8], shared: SharedTensor) -> Tensor:
    if shared.region != slot.region or shared.offset + shared.byte_size > slot.size:
        raise not_offered(shared)
    data = base[shared.offset : shared.offset + shared.byte_size].data
    return Tensor.raw(shared.name, shared.datatype, shared.shape, data)


def not_offered(shared: SharedTensor) -> Internal:
    return Internal(f"output '{shared.name}' came in shared memory that was not offered", tensor=shared.name)


def aligned(tensor: Tensor) -> int:
    return -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
