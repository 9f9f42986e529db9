"""What a shard holds: its slices, the contributions that come, and what was decided about them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, TypeVar

import torch

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as pb
from encephalon.core.errors import EncephalonError, FailedPrecondition, Internal
from encephalon.learning.checkpoint import piece_of, read_slices, write_piece
from encephalon.learning.coverage import matched
from encephalon.learning.layout import check
from encephalon.parameter_server.changes import Changes
from encephalon.parameter_server.contribution import Contribution, Key, Received
from encephalon.parameter_server.decisions import Decided, Decision, Decisions
from encephalon.parameter_server.memory import Memory, check_size, private
from encephalon.parameter_server.metrics import APPLY_SECONDS, REDUCE_SECONDS, UPDATES
from encephalon.parameter_server.places import Places
from encephalon.parameter_server.reduction import Named, Prepared, Reduction
from encephalon.parameter_server.waiting import Waiting
from encephalon.parameter_server.weights import Weights
from encephalon.state import Objects

__all__ = ["Store"]

LOG = logging.getLogger(__name__)
BUFFERS: Final = 64
T = TypeVar("T")


class Store:
    """One shard of one generation of a run. Loading again makes another one; `close` ends this one.

    Whoever brings contributions or reads parameters may do so from any thread. One thread alone adds and applies, in
    the order of the calls; so a snapshot never sees a later decision. Memory: parameters, slots, and a buffer for each
    contribution that waits (at most `buffers`).
    """

    def __init__(
        self,
        layout: pb.Layout,
        shard: int,
        optimizer: pb.Optimizer,
        *,
        generation: int = 1,
        run: str = "",
        buffers: int = BUFFERS,
        memory: Memory = private,
        work: Executor | None = None,
    ) -> None:
        """Version 0, all zeros. memory: of the parameters, for example shared with workers of this machine. work: one
        thread; its own by default.

        InvalidInput and Unsupported for a layout or an optimiser that cannot be.
        """
        self.run, self.generation, self.layout, self.shard = run, generation, layout, shard
        self.places = Places(layout, shard)
        self.slices = self.places.numbers
        self.optimizer = optimizer
        self._weights = Weights(optimizer, self.places, memory)
        self._ends_work = work is None
        self._work = work or ThreadPoolExecutor(1, thread_name_prefix="shard")
        self._lock = threading.Lock()
        self._changes = Changes()
        self._waiting = Waiting(self.places, buffers, self._came)
        self._decisions = Decisions(published=0)
        self._end: EncephalonError | None = None
        """Why nothing is taken any more."""

    @classmethod
    async def load(
        cls,
        request: pb.LoadRequest,
        objects: Objects,
        folder: Path,
        *,
        memory: Memory = private,
        work: Executor | None = None,
    ) -> Store:
        """Out of a checkpoint, whatever layout wrote it. Raises as the constructor, `layout.check` and
        `checkpoint.read_slices`; InvalidInput for more than the machine's memory."""
        check(request.layout)
        matched(request.checkpoint, request.layout)
        check_size(4 * sum(cut.stop - cut.start for cut in request.layout.slices if cut.shard == request.shard))

        def made() -> Store:
            return cls(
                request.layout,
                request.shard,
                request.optimizer,
                generation=request.generation,
                run=request.run,
                buffers=request.buffers or BUFFERS,
                memory=memory,
                work=work,
            )

        # Memory of that size takes its time, and so does torch's first optimiser.
        store = await asyncio.get_running_loop().run_in_executor(work, made)
        try:
            into = {number: store._weights.view(number) for number in store.slices}
            held = await read_slices(objects, request.checkpoint, request.layout, into, folder)
            await store._done(store._weights.restore, held)
            store._decisions = Decisions(published=held.version)
        except BaseException:
            store.close()
            raise
        return store

    # What workers bring and take.

    def contribution(self, generation: int, update: int, rank: int, attempt: int) -> Contribution:
        """To be filled; several streams may fill one. A lower attempt that waits is forgotten.

        FailedPrecondition for another generation, an update that was decided, and an attempt below one that is here or
        that was prepared; Overloaded when `buffers` contributions wait.
        """
        key = Key(update, rank, attempt)
        with self._lock:
            self._check(generation)
            if self._decisions.has(update):
                raise FailedPrecondition(f"update {update} was decided; {key} comes too late", update=update)
            entry = self._waiting.enter(key)
        if entry.replaced is not None:
            self._forget(entry.reduction, entry.replaced, f"attempt {attempt} has taken the place of the one before")
        return Contribution(entry.received)

    async def reached(self, generation: int, version: int) -> None:
        """Until the parameters are at least of `version`; the caller sets the time. FailedPrecondition when another
        generation is, or gets, loaded."""

        def there() -> bool | None:
            self._check(generation)
            return True if self.version >= version else None

        await self._changes.until(there)

    def parameters(self, slice: int) -> tuple[int, torch.Tensor]:
        """Version and view, float32 [elements]; they fit together, and stay, while `reading`. InvalidInput for a slice
        of another shard."""
        return self.version, self._weights.view(slice)

    def reading(self) -> AbstractContextManager[None]:
        """`with store.reading():` nothing is applied. Short, for deciding waits for it; and it waits while an update is
        applied."""
        return self._weights.reading()

    # What the control node orders.

    async def prepare(self, update: int, contributions: Sequence[tuple[int, int]]) -> Prepared:
        """Until all (rank, attempt) have come as a whole and are added; the caller sets the time.

        FailedPrecondition when the update was decided or a higher attempt is here, also when that happens meanwhile,
        and when other contributions are named meanwhile.
        """
        wanted = tuple(Named(rank, attempt) for rank, attempt in contributions)
        with self._lock:
            self._check()
            if self._decisions.has(update):
                raise FailedPrecondition(f"update {update} was decided already", update=update)
            reduction = self._waiting.update(update)
            reduction.want(wanted)
            self._waiting.expected = len(wanted)
        self._submit(self._advance, reduction, self.slices)

        def ready() -> Prepared | None:
            self._check()
            if self._waiting.find(update) is not reduction:
                raise FailedPrecondition(f"update {update} was decided while it was prepared", update=update)
            if reduction.wanted != wanted:
                raise FailedPrecondition(f"update {update} is prepared from other contributions now", update=update)
            reduction.want(wanted)  # a higher attempt may have come
            return reduction.prepared

        return await self._changes.until(ready)

    async def decide(
        self, update: int, decision: Decision, *, version: int = 0, scale: float = 1.0, note: bytes = b""
    ) -> tuple[int, float]:
        """Version and learning rate after it. The same decision again changes nothing.

        FailedPrecondition when it was decided otherwise, when `version` is not the next one, or when what is to be
        applied is not prepared.
        """
        wanted = Decided(update, decision, version if decision is not Decision.DROP else self.version, scale, note)
        return await self._done(self._decide, wanted, self.generation)

    async def snapshot(self, path: Path, key: str, *, version: int) -> pb.Piece:
        """Writes the shard to a local file, as it is between two decisions. FailedPrecondition when that is not
        `version`, and when the disk does not take it."""
        return await self._done(self._snapshot, path, key, version)

    def published(self, version: int) -> None:
        """A checkpoint of this version is safe: what was decided up to it need not be told any more."""
        with self._lock:
            self._decisions.publish(version)

    async def renew(self, generation: int) -> None:
        """Goes on under another generation with what it holds, when all decisions that came before are taken; what
        waits is forgotten, and refused from now on. For a control node that has come back and does not know what the
        one before had given out."""
        await self._done(self._renew, generation)

    def close(self) -> None:
        """Whoever waits gets FailedPrecondition; nothing is taken any more. Closing twice is harmless."""
        reason = "the shard was loaded anew, or is ending; ask for the shards again"
        with self._lock:
            self._end = self._end or FailedPrecondition(reason, generation=self.generation)
            updates = self._waiting.take_all()
        for reduction in updates:
            for received in list(reduction.received.values()):
                received.refuse(reason)
            with contextlib.suppress(FailedPrecondition):  # nobody works any more, so nobody reads what was lent
                self._submit(reduction.release, reason)
        self._changes.told()
        self.memory.close()
        if self._ends_work:
            self._work.shutdown(wait=False)

    # How it is.

    @property
    def version(self) -> int:
        return self._weights.version

    @property
    def flat(self) -> torch.Tensor:
        """All parameters, float32, slice behind slice (`places.offsets`)."""
        return self._weights.flat

    @property
    def memory(self) -> Memory:
        """Where `flat` lies."""
        return self._weights.memory

    @property
    def learning_rate(self) -> float:
        return self._weights.learning_rate

    @property
    def decided(self) -> list[Decided]:
        """Since the checkpoint that was loaded or last published, in order, without what was dropped."""
        with self._lock:
            return self._decisions.since_published()

    @property
    def prepared(self) -> list[int]:
        """Updates that wait for their decision."""
        with self._lock:
            return self._waiting.prepared

    def missing(self, update: int) -> list[int]:
        """Ranks whose contribution was named and is not whole."""
        with self._lock:
            reduction = self._waiting.find(update)
            return [] if reduction is None else reduction.missing()

    @property
    def held_bytes(self) -> int:
        """Parameters and slots."""
        return self._weights.held_bytes

    @property
    def buffered_bytes(self) -> int:
        """Of what waits."""
        with self._lock:
            return self._waiting.buffered_bytes

    # Below here: behind the lock, or in the one thread that works.

    def _check(self, generation: int | None = None) -> None:
        if generation is not None and generation != self.generation:
            raise FailedPrecondition(
                f"generation {generation} is over, the shard has loaded {self.generation}; ask for the shards again",
                generation=self.generation,
            )
        if self._end is not None:
            raise type(self._end)(self._end.message, **self._end.details)

    def _came(self, update: int, number: int) -> None:
        reduction = self._waiting.find(update)
        if reduction is not None:
            self._submit(self._advance, reduction, [number])

    def _forget(self, reduction: Reduction, received: Received, reason: str) -> None:
        received.refuse(reason)
        self._submit(reduction.forget, received, reason)
        self._changes.told()

    def _submit(self, call: Callable[..., None], *arguments: object) -> None:
        try:
            self._work.submit(call, *arguments)
        except RuntimeError as error:  # the thread has ended
            raise FailedPrecondition("the shard is ending") from error

    async def _done(self, call: Callable[..., T], *arguments: object) -> T:
        try:
            future = self._work.submit(call, *arguments)
        except RuntimeError as error:
            raise FailedPrecondition("the shard is ending") from error
        return await asyncio.wrap_future(future)

    def _advance(self, reduction: Reduction, numbers: Sequence[int]) -> None:
        if self._waiting.find(reduction.update) is not reduction:
            return
        try:
            began = time.monotonic()
            for number in numbers:
                reduction.advance(number)
            finished = reduction.prepared is None and reduction.finish() is not None
            REDUCE_SECONDS.value += time.monotonic() - began
        except Exception as error:  # noqa: BLE001 - nobody waits for this thread's result
            self._fail(error)
            return
        if finished:
            self._changes.told()

    def _decide(self, wanted: Decided, generation: int) -> tuple[int, float]:
        with self._lock:
            self._check(generation)
            if self._decisions.find(wanted) is not None:
                return self.version, self.learning_rate
            reduction = self._waiting.find(wanted.update)
        if wanted.decision is not Decision.DROP and wanted.version != self.version + 1:
            raise FailedPrecondition(
                f"update {wanted.update} should become version {wanted.version}, but shard {self.shard} is at "
                f"{self.version}",
                version=self.version,
            )
        if wanted.decision is Decision.APPLY:
            self._apply(reduction, wanted)
        with self._lock:
            if wanted.decision is Decision.SKIP:
                self._weights.skip(wanted.version)
            self._decisions.take(wanted)
            reduction = self._waiting.take(wanted.update)
        if reduction is not None:
            reduction.release(f"update {wanted.update} was decided")
        UPDATES.labels(wanted.decision.value).value += 1
        self._changes.told()
        return self.version, self.learning_rate

    def _apply(self, reduction: Reduction | None, wanted: Decided) -> None:
        if reduction is None or reduction.prepared is None:
            raise FailedPrecondition(
                f"update {wanted.update} is not prepared at shard {self.shard}, so it cannot be applied",
                update=wanted.update,
            )
        began = time.monotonic()
        try:
            self._weights.apply(reduction.gradients(wanted.scale), wanted.version)
        except Exception as error:
            self._fail(error)
            raise Internal(f"shard {self.shard} failed while it applied update {wanted.update}: {error}") from error
        APPLY_SECONDS.value += time.monotonic() - began

    def _fail(self, error: Exception) -> None:
        """Half of an update may have been applied, so nothing here is true any more."""
        reason = error.message if isinstance(error, EncephalonError) else f"{type(error).__name__}: {error}"
        LOG.error("an update could not be added or applied", exc_info=error)
        with self._lock:
            self._end = self._end or Internal(f"shard {self.shard} failed while it added or applied: {reason}")
        self._changes.told()

    def _renew(self, generation: int) -> None:
        reason = (
            f"generation {self.generation} is over, the shard has gone on to {generation}; ask for the shards again"
        )
        with self._lock:
            self._check()
            self.generation = max(self.generation, generation)
            updates = self._waiting.take_all()
        for reduction in updates:
            reduction.release(reason)
        self._changes.told()

    def _snapshot(self, path: Path, key: str, version: int) -> pb.Piece:
        with self._lock:
            self._check()
        if version != self.version:
            raise FailedPrecondition(
                f"a checkpoint of version {version} was asked for, but shard {self.shard} is at {self.version}",
                version=self.version,
            )
        content = self._weights.content()
        return piece_of(key, write_piece(path, self.layout, content), self.layout, self.slices)
