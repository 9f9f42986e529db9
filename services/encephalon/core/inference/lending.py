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

    def has_room_for(self, request: InferRequest) -> bool:
        """Whether `lend` will find all the room that it wants, or there will never be more."""
        return not any(self._lacking(request))

    async def make_room_for(self, request: InferRequest) -> None:
        """Makes the slots that `lend` will want and that are not there, as far as the limits allow."""
        for size in self._lacking(request):
            if self._may_grow(size):
                await self._grow(size)

    def lend(self, request: InferRequest) -> InferRequest:
        """Moves large inputs into a slot and offers one for outputs; what finds no room stays as it is.

        The loan is known by the request's id, and lasts until `settle`.
        """
        loan = self._loans[request.id] = Loan(request.model_name)
        inputs, outputs = self._wanted(request)
        if not (inputs or outputs):
            return request
        loan.inputs = self._take(inputs)
        loan.outputs = self._take(outputs)
        return lent(request, loan, large_ones(request) if inputs else ())

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

    def _wanted(self, request: InferRequest) -> tuple[int, int]:
        """The sizes of the slots for inputs and for outputs; 0 for none."""
        if request.outputs:
            return 0, 0
        large = sum(map(aligned, large_ones(request)))
        outputs = self._outputs.get(request.model_name, 0)
        return rounded(large) if large else 0, rounded(outputs) if outputs else 0

    def _lacking(self, request: InferRequest) -> list[int]:
        """The sizes of the slots that are wanted, not there, and may still be made."""
        inputs, outputs = self._wanted(request)
        if not (inputs or outputs):
            return []
        there = {size: len(self._free.get(size, ())) for size in (inputs, outputs)}
        lacking = []
        for size in (inputs, outputs):
            there[size] -= 1
            if size and there[size] < 0 and self._may_grow(size):
                lacking.append(size)
        return lacking

    def _may_grow(self, size: int) -> bool:
        return not self._refused and self._slots < MAX_SLOTS and self._bytes + size <= MAX_BYTES

    def _take(self, size: int) -> Slot | None:
        free = self._free.get(size)
        return free.pop() if free else None

    async def _grow(self, size: int) -> None:
        self._slots += 1
        self._bytes += size
        try:
            self._give_back(await self._make(size))
        except (EncephalonError, OSError):
            # The server sees another /dev/shm or allows no such name, or memory is used up: carry on without.
            self._refused = True

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


def rounded(size: int) -> int:
    """Powers of two, so that requests of varying size find each other's slots."""
    return max(SHARED_FROM_BYTES, 1 << (size - 1).bit_length())


def large_ones(request: InferRequest) -> list[Tensor]:
    return [tensor for tensor in request.inputs if tensor.nbytes >= SHARED_FROM_BYTES]


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
