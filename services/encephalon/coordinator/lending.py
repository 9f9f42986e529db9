"""Large tensors to a replica on this machine through shared memory that is lent to it.

A slot is one object of POSIX shared memory. A request borrows it: inputs are written from its start, the replica copies
them out before it computes, and then writes its outputs from the start of the same slot.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import uuid
from pathlib import Path

from encephalon.core.errors import EncephalonError, Internal
from encephalon.core.inference import InferenceClient, InferStream
from encephalon.core.inference.names import OUTPUT_BYTE_SIZE, OUTPUT_REGION, STREAM_REGION_PREFIX
from encephalon.core.tasks import spawn
from encephalon.core.wire import InferRequest, InferResponse, SharedTensor, Tensor

__all__ = ["LARGE_BYTES", "Lending"]

FOLDER = Path("/dev/shm")  # noqa: S108 - where Linux keeps what shm_open creates
# Below this a message carries a tensor faster (64 KiB as on the other side).
LARGE_BYTES = 64 * 1024
ALIGNMENT = 64
SMALLEST, LARGEST = 1 << 20, 1 << 26
# Requests with large tensors that a replica can have at once by this way; others travel in messages.
MAX_SLOTS = 8


class Slot:
    """A named object of `size` bytes, mapped here."""

    def __init__(self, size: int) -> None:
        self.name = f"{STREAM_REGION_PREFIX}{os.getpid()}-{uuid.uuid4().hex}"
        self.size = size
        descriptor = os.open(FOLDER / self.name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, size)
            self.memory = mmap.mmap(descriptor, size)
        except BaseException:
            self.unlink()
            raise
        finally:
            os.close(descriptor)

    def write(self, tensors: list[Tensor]) -> list[SharedTensor]:
        shared, offset = [], 0
        for tensor in tensors:
            end = offset + tensor.nbytes
            self.memory[offset:end] = tensor.data
            shared.append(SharedTensor(tensor.name, tensor.datatype, tensor.shape, self.name, offset, tensor.nbytes))
            offset = aligned(end)
        return shared

    def read(self, shared: SharedTensor) -> Tensor:
        end = shared.offset + shared.byte_size
        if shared.region != self.name or not 0 <= shared.offset <= end <= self.size:
            raise Internal(f"output '{shared.name}' lies outside the shared memory that was lent")
        return Tensor.raw(shared.name, shared.datatype, shared.shape, self.memory[shared.offset : end])

    def unlink(self) -> None:
        """Nobody else can open it any more; it is gone with its last descriptor."""
        with contextlib.suppress(OSError):
            os.unlink(FOLDER / self.name)

    def close(self) -> None:
        self.unlink()
        self.memory.close()


class Lending:
    """The slots lent to one replica; the replica forgets them when the stream ends."""

    def __init__(self, client: InferenceClient, stream: InferStream) -> None:
        self._client = client
        self._stream = stream
        self._free: list[Slot] = []
        self._count = 0
        self._usable = True
        # What an answer needed last: slots are made for it, too.
        self._answer_bytes = 0

    async def infer(self, request: InferRequest, timeout_s: float) -> InferResponse:
        """As a stream's `infer`, with the large tensors through a slot when there is one."""
        large = [tensor for tensor in request.inputs if tensor.nbytes >= LARGE_BYTES]
        slot = await self._borrow(sum(aligned(tensor.nbytes) for tensor in large), timeout_s)
        if slot is None:
            return await self._stream.infer(request, timeout_s)
        try:
            response = await self._stream.infer(lent(request, large, slot), timeout_s)
            response.outputs += [slot.read(shared) for shared in response.shared_outputs]
            response.shared_outputs = []
        except BaseException:
            # The replica may still write into it, so nobody may borrow it again.
            self._drop(slot)
            raise
        self._answer_bytes = sum(aligned(output.nbytes) for output in response.outputs)
        if self._usable:
            self._free.append(slot)
        else:
            slot.close()
        return response

    def close(self) -> None:
        """The slots that are not borrowed are gone; others go when they are given back."""
        self._usable = False
        for slot in self._free:
            slot.close()
        self._free.clear()

    async def _borrow(self, nbytes: int, timeout_s: float) -> Slot | None:
        """None: send it in the message."""
        needed = max(nbytes, min(self._answer_bytes, LARGEST))
        if not self._usable or not nbytes or nbytes > LARGEST:
            return None
        while self._free:
            slot = self._free.pop()
            if slot.size >= needed:
                return slot
            self._drop(slot)
        return await self._lend(size_for(needed), timeout_s) if self._count < MAX_SLOTS else None

    async def _lend(self, size: int, timeout_s: float) -> Slot | None:
        self._count += 1
        slot = None
        try:
            slot = Slot(size)
            await self._client.register_memory(slot.name, f"/{slot.name}", size, timeout_s=timeout_s)
        except (EncephalonError, OSError):
            # The replica does not allow it, or there is no memory: messages always work.
            self._usable = False
            self._count -= 1
            if slot is not None:
                slot.close()
            return None
        except BaseException:
            self._drop(slot)
            raise
        slot.unlink()
        return slot

    def _drop(self, slot: Slot | None) -> None:
        self._count -= 1
        if slot is not None:
            slot.close()
            if self._stream.broken is None:
                spawn(f"take back {slot.name}", self._take_back(slot))

    async def _take_back(self, slot: Slot) -> None:
        with contextlib.suppress(EncephalonError):
            await self._client.unregister_memory(slot.name)


def lent(request: InferRequest, large: list[Tensor], slot: Slot) -> InferRequest:
    return InferRequest(
        request.model_name,
        request.model_version,
        request.id,
        {**request.parameters, OUTPUT_REGION: slot.name, OUTPUT_BYTE_SIZE: slot.size},
        [tensor for tensor in request.inputs if tensor.nbytes < LARGE_BYTES],
        request.outputs,
        slot.write(large),
    )


def aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def size_for(nbytes: int) -> int:
    return max(SMALLEST, 1 << (nbytes - 1).bit_length())
