"""One process of the parameter server: what is loaded now, and the pieces that it writes."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Executor
from pathlib import Path
from typing import TypeAlias

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as pb
from encephalon.core.errors import EncephalonError, FailedPrecondition, InvalidInput, Unavailable
from encephalon.parameter_server.memory import Memory, private
from encephalon.parameter_server.metrics import CHECKPOINTS
from encephalon.parameter_server.store import Store
from encephalon.state import Objects

__all__ = ["Shard"]

LOG = logging.getLogger(__name__)
Write: TypeAlias = Callable[[Store, int, str, asyncio.Event], Coroutine[None, None, pb.Piece]]
PIECES = 4
"""Written lately, whose description is given again to who asks again."""


async def nothing() -> None:
    """For those whom it does not concern."""


class Writing:
    """A piece on its way, for all who ask for it."""

    def __init__(self, write: Write, store: Store, version: int, key: str) -> None:
        self._on_disk = asyncio.Event()
        self.task = asyncio.create_task(write(store, version, key, self._on_disk), name=f"checkpoint {key}")
        self.task.add_done_callback(self._ended)

    @property
    def failed(self) -> bool:
        return self.task.done() and (self.task.cancelled() or self.task.exception() is not None)

    async def on_disk(self) -> None:
        """Also when it failed."""
        await self._on_disk.wait()

    def _ended(self, task: asyncio.Task[pb.Piece]) -> None:
        self._on_disk.set()
        # Whoever asked may have gone; nobody need hear of a failure then, for it is asked for again.
        _ = task.cancelled() or task.exception()


class Shard:
    """Holds the store of the generation that was loaded last. Belongs to one event loop."""

    def __init__(
        self,
        run: str,
        number: int,
        objects: Objects,
        folder: Path,
        work: Executor,
        memory: Callable[[], Memory] = lambda: private,
    ) -> None:
        """memory: makes one for the parameters of each store. work: one thread."""
        self.run = run
        self.number = number
        self.incarnation = uuid.uuid4().hex
        self.store: Store | None = None
        self._objects = objects
        self._folder = folder
        self._work = work
        self._memory = memory
        self._loading: tuple[int, asyncio.Task[Store]] | None = None
        self._writing: dict[tuple[int, int, str], Writing] = {}

    def held(self, run: str, generation: int) -> Store:
        """FailedPrecondition unless that is what is loaded."""
        if run != self.run:
            raise FailedPrecondition(f"shard {self.number} serves run '{self.run}', not '{run}'", run=self.run)
        store = self.current()
        if store.generation != generation:
            raise FailedPrecondition(
                f"generation {generation} was named, but shard {self.number} has loaded {store.generation}",
                generation=store.generation,
            )
        return store

    def current(self) -> Store:
        """What is loaded. FailedPrecondition when nothing is."""
        if self.store is None:
            raise FailedPrecondition(f"shard {self.number} has loaded nothing yet; load it first", shard=self.number)
        return self.store

    async def load(self, request: pb.LoadRequest) -> Store:
        """What is loaded already is left alone; a load that is going on is joined. FailedPrecondition for an earlier
        generation; InvalidInput for another shard's number; else as `Store.load`.

        Without a checkpoint it goes on with what it holds; FailedPrecondition when that has another layout."""
        self._check(request)
        if self.store is not None and self.store.generation == request.generation:
            return self.store
        if not request.HasField("checkpoint"):
            return await self._renewed(request)
        if self._loading is None or self._loading[0] != request.generation:
            await self._break_off()
            self._loading = request.generation, asyncio.create_task(self._load(request), name="load")
        # Who asks may give up and ask again, which must not begin from the start.
        return await asyncio.shield(self._loading[1])

    async def _renewed(self, request: pb.LoadRequest) -> Store:
        store = self.current()
        if request.layout != store.layout or request.optimizer != store.optimizer:
            raise FailedPrecondition(
                f"shard {self.number} holds another layout or optimiser than it should go on with; load a checkpoint"
            )
        await store.renew(request.generation)
        LOG.info("goes on", extra={"generation": store.generation, "version": store.version})
        return store

    async def _load(self, request: pb.LoadRequest) -> Store:
        try:
            if self.store is not None:
                self.store.close()
                self.store = None
            self.store = await Store.load(request, self._objects, self._folder, memory=self._memory(), work=self._work)
        finally:
            self._loading = None
        LOG.info(
            "loaded",
            extra={"generation": request.generation, "version": self.store.version, "slices": len(self.store.slices)},
        )
        return self.store

    async def checkpoint(
        self, store: Store, version: int, key: str, taken: Callable[[], Awaitable[None]] = nothing
    ) -> pb.Piece:
        """The piece, when it lies in the object store. `taken` is called when it lies on the local disk, so that
        decisions may go on. FailedPrecondition, with the cause, when disk or store do not take it; nothing is lost by
        that, and it may be asked for again."""
        if not key:
            raise InvalidInput("a checkpoint was asked for without a key")
        name = store.generation, version, key
        writing = self._writing.get(name)
        if writing is None or writing.failed:
            writing = self._writing[name] = Writing(self._write, store, version, key)
            for old in list(self._writing)[:-PIECES]:
                if self._writing[old].task.done():
                    del self._writing[old]
        await writing.on_disk()
        await taken()
        return await asyncio.shield(writing.task)

    async def _write(self, store: Store, version: int, key: str, on_disk: asyncio.Event) -> pb.Piece:
        path = self._folder / f"{uuid.uuid4().hex}.piece"
        try:
            piece = await store.snapshot(path, key, version=version)
            on_disk.set()
            await self._objects.upload(key, path, sha256=piece.sha256)
        except Unavailable as error:
            CHECKPOINTS.labels("failed").value += 1
            raise FailedPrecondition(
                f"the checkpoint of version {version} did not reach the object store: {error.message}", key=key
            ) from error
        except EncephalonError:
            CHECKPOINTS.labels("failed").value += 1
            raise
        finally:
            path.unlink(missing_ok=True)
        CHECKPOINTS.labels("written").value += 1
        return piece

    async def close(self) -> None:
        """Breaks off what is going on; whoever waits gets an error."""
        await self._break_off()
        tasks = [writing.task for writing in self._writing.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.store is not None:
            self.store.close()

    async def _break_off(self) -> None:
        if self._loading is not None:
            _, task = self._loading
            task.cancel()
            await asyncio.wait([task])
            self._loading = None

    def _check(self, request: pb.LoadRequest) -> None:
        if request.run != self.run:
            raise FailedPrecondition(f"shard {self.number} serves run '{self.run}', not '{request.run}'", run=self.run)
        if request.shard != self.number:
            raise InvalidInput(f"this is shard {self.number}, not {request.shard}", shard=self.number)
        if request.generation < 1:
            raise InvalidInput("generations count from 1, a load came with 0")
        newest = max(self.store.generation if self.store else 0, self._loading[0] if self._loading else 0)
        if request.generation < newest:
            raise FailedPrecondition(
                f"generation {request.generation} is over, shard {self.number} has loaded {newest}", generation=newest
            )
