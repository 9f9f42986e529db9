"""Keys, values and leases in etcd, API version 3."""

from __future__ import annotations

import asyncio
import contextlib
import math
import uuid
from collections.abc import AsyncGenerator, Awaitable, Sequence
from typing import Any, Self

from encephalon.core.errors import Conflict, Internal, NotFound, Overloaded, Unavailable
from encephalon.state import key_value
from encephalon.state.etcd_connection import IDENTITY, Connection, entries_of, entry_of, message
from encephalon.state.etcd_watch import EtcdWatch
from encephalon.state.key_value import Change, Entry, Event, Unchanged
from encephalon.state.key_value import Lease as AnyLease

__all__ = ["Etcd"]


class EtcdLease:
    def __init__(self, connection: Connection, number: int, ttl_seconds: float) -> None:
        self.number = number
        self._connection = connection
        self._ttl_seconds = ttl_seconds
        self._lost = asyncio.Event()

    @property
    def ttl_seconds(self) -> float:
        return self._ttl_seconds

    @property
    def lost(self) -> asyncio.Event:
        return self._lost

    async def keep(self) -> None:
        request = message("LeaseKeepAliveRequest", ID=self.number)
        answer = await self._connection.exchange(self._connection.leases.LeaseKeepAlive, request)
        if answer.TTL <= 0:
            self._lost.set()
            raise NotFound(f"lease {self.number:x} has run out; take a new one", lease=self.number)

    async def revoke(self) -> None:
        self._lost.set()
        try:
            await self._connection.call(
                self._connection.leases.LeaseRevoke, message("LeaseRevokeRequest", ID=self.number), patient=False
            )
        except NotFound:
            return


class Etcd:
    def __init__(self, address: str, *, deadline_s: float) -> None:
        """`address` is host:port; `deadline_s` bounds every call but a watch."""
        self._address = address
        self._deadline_s = deadline_s
        self._connection: Connection | None = None

    async def __aenter__(self) -> Self:
        connection = Connection(self._address, self._deadline_s)
        try:
            await connection.call(connection.kv.Range, message("RangeRequest", key=IDENTITY), patient=False)
        except BaseException:
            await connection.close()
            raise
        self._connection = connection
        return self

    async def __aexit__(self, *exc: object) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    @property
    def closed(self) -> bool:
        return self._connection is None

    @property
    def connection(self) -> Connection:
        if self._connection is None:
            raise Unavailable(f"the connection to etcd at {self._address} is closed")
        return self._connection

    async def get(self, key: str) -> Entry | None:
        request = message("RangeRequest", key=key_value.check_key(key))
        answer = await self.connection.call(self.connection.kv.Range, request)
        return entry_of(answer.kvs[0]) if answer.kvs else None

    async def list(self, prefix: str, *, page: int = 1000) -> AsyncGenerator[Entry, None]:
        async with contextlib.aclosing(self.pages(prefix, page=page)) as pages:
            async for entries in pages:
                for entry in entries:
                    yield entry

    async def pages(self, prefix: str, *, page: int = 1000, after: str = "") -> AsyncGenerator[Sequence[Entry], None]:
        async with contextlib.aclosing(self._answers(prefix, page, after=after)) as answers:
            async for answer in answers:
                if entries := entries_of(answer):
                    yield entries

    async def put(self, key: str, value: bytes, *, lease: AnyLease | None = None, expected: int | None = None) -> int:
        encoded = key_value.check_key(key)
        number = _number(lease)
        request = message("PutRequest", key=encoded, value=key_value.check_value(key, value), lease=number)
        if expected is None:
            with_lease = [lease] if lease is not None else []
            answer = await self._leased(self.connection.call(self.connection.kv.Put, request), with_lease)
            return int(answer.header.revision)
        return await self.commit([Change(key, value, expected, lease)])

    async def delete(self, key: str, *, expected: int | None = None) -> bool:
        encoded = key_value.check_key(key)
        if expected is None:
            request = message("DeleteRangeRequest", key=encoded)
            return bool((await self.connection.call(self.connection.kv.DeleteRange, request)).deleted)
        await self.commit([Change(key, None, expected)])
        return expected != key_value.ABSENT

    async def commit(self, changes: Sequence[Change | Unchanged]) -> int:
        key_value.check_commit(changes)
        conditions = [(item.key, item.expected) for item in changes if item.expected is not None]
        request = message(
            "TxnRequest",
            compare=[_compare(key, expected) for key, expected in conditions],
            success=[_operation(item) for item in changes if isinstance(item, Change)],
            failure=[_revision(key) for key, _ in conditions],
        )
        leases = [item.lease for item in changes if isinstance(item, Change) and item.lease is not None]
        answer = await self._leased(self.connection.call(self.connection.kv.Txn, request), leases)
        if not answer.succeeded:
            raise _conflict(conditions, answer)
        return int(answer.header.revision)

    async def lease(self, ttl_seconds: float) -> EtcdLease:
        request = message("LeaseGrantRequest", TTL=math.ceil(ttl_seconds))
        answer = await self.connection.call(self.connection.leases.LeaseGrant, request)
        return EtcdLease(self.connection, answer.ID, answer.TTL)

    def watch(self, prefix: str, from_revision: int | None = None) -> AsyncGenerator[Event, None]:
        return EtcdWatch(self, prefix).events(from_revision)

    async def compact(self, revision: int) -> None:
        await self.connection.call(self.connection.kv.Compact, message("CompactionRequest", revision=revision - 1))

    async def snapshot(self, prefix: str, revision: int = 0) -> tuple[Sequence[Entry], int]:
        """The entries as they were together at one revision (0: the present one), and that revision.

        Raises FailedPrecondition when the history does not reach there.
        """
        entries: list[Entry] = []
        async for answer in self._answers(prefix, 1000, revision, together=True):
            revision = revision or int(answer.header.revision)
            entries += entries_of(answer)
        return entries, revision

    async def identity(self) -> bytes:
        """A name that this store keeps for as long as it keeps its data."""
        absent = message("Compare", key=IDENTITY, target="CREATE", result="EQUAL", create_revision=0)
        put = message("PutRequest", key=IDENTITY, value=uuid.uuid4().bytes)
        read = message("RequestOp", request_range=message("RangeRequest", key=IDENTITY))
        request = message(
            "TxnRequest", compare=[absent], success=[message("RequestOp", request_put=put), read], failure=[read]
        )
        answer = await self.connection.call(self.connection.kv.Txn, request)
        return bytes(answer.responses[-1].response_range.kvs[0].value)

    async def _answers(
        self, prefix: str, page: int, revision: int = 0, *, after: str = "", together: bool = False
    ) -> AsyncGenerator[Any, None]:
        encoded = key_value.check_prefix(prefix)
        start, end = key_value.scan_start(encoded, after) or b"\x00", key_value.prefix_end(encoded) or b"\x00"
        if start >= end > b"\x00":
            return
        while True:
            request = message("RangeRequest", key=start, range_end=end, limit=page, revision=revision)
            try:
                answer = await self.connection.call(self.connection.kv.Range, request)
            except Overloaded:
                # A page of large values is more than one message may hold.
                if page == 1:
                    raise
                page = max(1, page // 4)
                continue
            yield answer
            if not answer.more:
                return
            start = answer.kvs[-1].key + b"\x00"
            revision = int(answer.header.revision) if together and not revision else revision

    async def _leased(self, call: Awaitable[Any], leases: Sequence[AnyLease]) -> Any:
        """The answer to a call that puts under `leases`; when one of them is gone it is told so."""
        try:
            return await call
        except NotFound:
            for lease in leases:
                request = message("LeaseTimeToLiveRequest", ID=_number(lease))
                answer = await self.connection.call(self.connection.leases.LeaseTimeToLive, request)
                if answer.TTL <= 0:
                    lease.lost.set()
                    raise NotFound(
                        f"cannot put: lease {answer.ID:x} has run out; take a new one", lease=answer.ID
                    ) from None
            raise


def _compare(key: str, expected: int) -> Any:
    return message("Compare", key=key.encode(), target="MOD", result="EQUAL", mod_revision=expected)


def _operation(change: Change) -> Any:
    key = change.key.encode()
    if change.value is None:
        return message("RequestOp", request_delete_range=message("DeleteRangeRequest", key=key))
    put = message("PutRequest", key=key, value=change.value, lease=_number(change.lease))
    return message("RequestOp", request_put=put)


def _revision(key: str) -> Any:
    return message("RequestOp", request_range=message("RangeRequest", key=key.encode(), keys_only=True))


def _conflict(conditions: Sequence[tuple[str, int]], answer: Any) -> Conflict:
    for (key, expected), response in zip(conditions, answer.responses, strict=True):
        kvs = response.response_range.kvs
        found = int(kvs[0].mod_revision) if kvs else key_value.ABSENT
        if found != expected:
            return key_value.conflict(key, expected, found)
    raise Internal("etcd has refused a transaction although all its conditions hold")


def _number(lease: AnyLease | None) -> int:
    if lease is None:
        return 0
    if not isinstance(lease, EtcdLease):
        raise TypeError(f"a lease of another store: {lease!r}")
    return lease.number
