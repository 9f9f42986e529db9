"""One watch of one prefix in etcd, through restarts, cuts of the history and a store that comes back with other
data.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator
from typing import TYPE_CHECKING, Any

import grpc
import structlog

from encephalon.core.errors import FailedPrecondition, Internal, Retryable, Unavailable
from encephalon.state import key_value
from encephalon.state.etcd_connection import entry_of, message
from encephalon.state.key_value import Event, EventKind
from encephalon.state.told import Told

if TYPE_CHECKING:
    from encephalon.state.etcd import Etcd

__all__ = ["EtcdWatch"]

_log = structlog.get_logger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0


class _HistoryLost(Exception):
    """The changes since the last told revision cannot be had one by one."""


class EtcdWatch:
    """Reads the stream only when its reader asks for more, so flow control, not memory, holds back a store that is
    quicker.
    """

    def __init__(self, store: Etcd, prefix: str) -> None:
        self._store = store
        self._prefix = prefix
        self._range = key_value.check_prefix(prefix)
        self._told = Told()
        self._next = 0
        self._identity = b""
        self._interrupted = False
        self._history_lost = False

    async def events(self, from_revision: int | None) -> AsyncGenerator[Event, None]:
        async with contextlib.aclosing(self._beginning(from_revision)) as beginning:
            async for event in beginning:
                yield event
        pause = FIRST_PAUSE_S
        while True:
            try:
                async with contextlib.aclosing(self._changes()) as changes:
                    async for event in changes:
                        pause = FIRST_PAUSE_S
                        yield event
            except _HistoryLost:
                self._history_lost = True
                continue
            except (Retryable, FailedPrecondition, Internal) as error:
                if self._store.closed:
                    raise
                _log.warning("the watch was interrupted and tries again", prefix=self._prefix, cause=str(error))
                self._interrupted = True
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_S)

    async def _beginning(self, from_revision: int | None) -> AsyncGenerator[Event, None]:
        self._identity = await self._store.identity()
        if from_revision is not None:
            # The first revision of an etcd is 1, and empty.
            base, _ = await self._store.snapshot(self._prefix, max(1, from_revision - 1))
            self._told.assume(base)
            self._next = from_revision
            return
        entries, revision = await self._store.snapshot(self._prefix)
        self._next = revision + 1
        for entry in entries:
            yield self._told.put(entry)
        yield Event(EventKind.LISTED, "", b"", revision)

    async def _changes(self) -> AsyncGenerator[Event, None]:
        """Until the stream breaks (Retryable) or cannot go on (_HistoryLost)."""
        identity = await self._store.identity()
        if self._history_lost or identity != self._identity:
            entries, revision = await self._store.snapshot(self._prefix)
            if identity != self._identity:
                self._told.doubt()
            yield Event(EventKind.RESUMED, "", b"", revision)
            for event in self._told.differences(entries, revision):
                yield event
            self._next, self._identity = revision + 1, identity
            self._interrupted = self._history_lost = False
        connection = self._store.connection
        async with connection.stream(connection.watches.Watch, self._request()) as (call, response):
            if response.header.revision < self._next - 1:
                raise _HistoryLost
            if self._interrupted:
                self._interrupted = False
                yield Event(EventKind.RESUMED, "", b"", self._next - 1)
            while response is not grpc.aio.EOF and not response.canceled:
                for event in self._events(response):
                    yield event
                response = await call.read()
            if response is not grpc.aio.EOF and response.compact_revision:
                raise _HistoryLost
            raise Unavailable(f"etcd at {connection.address} ended the watch")

    def _request(self) -> Any:
        start, end = self._range or b"\x00", key_value.prefix_end(self._range) or b"\x00"
        create = message("WatchCreateRequest", key=start, range_end=end, start_revision=self._next)
        return message("WatchRequest", create_request=create)

    def _events(self, response: Any) -> Iterator[Event]:
        for change in response.events:
            # The header's revision would be wrong here: a watch that catches up gets the old changes in batches, each
            # under the present revision.
            self._next = max(self._next, int(change.kv.mod_revision) + 1)
            if (entry := entry_of(change.kv)) is not None:
                yield (
                    self._told.put(entry) if change.type == change.PUT else self._told.delete(entry.key, entry.revision)
                )
