"""Writes a record: itself, its summary, its lineage, the head of its name and perhaps an alias, all or nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import AlreadyExists, Conflict, FailedPrecondition, Unavailable
from encephalon.library.records.checks import MAX_VERSION, check_record
from encephalon.library.records.kinds import name_of_kind
from encephalon.library.records.named import digests_of
from encephalon.library.records.reference import Reference
from encephalon.library.records.summary import summary_of
from encephalon.library.store import aliases
from encephalon.library.store.drafts import finished, says
from encephalon.library.store.entries import bytes_of, message_or_none, record_in
from encephalon.library.store.heads import Head, read_head, versions_of
from encephalon.library.store.holding import Holder
from encephalon.library.store.liveness import lives, lives_if_there
from encephalon.library.store.patience import attempts
from encephalon.library.store.registration import Registration
from encephalon.library.store.shards import indexed
from encephalon.library.store.stores import Stores
from encephalon.state import ABSENT, Change, Unchanged

__all__ = ["Committer"]

_Result = TypeVar("_Result")


@dataclass(slots=True)
class _Tried:
    numbers: list[int] = field(default_factory=list)
    """The versions under which a record was to be written."""
    doubtful: set[int] = field(default_factory=set)
    """Of these, those of which nothing was heard: they may have been written all the same."""


class Committer:
    """Commits records for one writer."""

    def __init__(self, stores: Stores, registration: Registration, holder: Holder) -> None:
        self._stores = stores
        self._registration = registration
        self._holder = holder

    async def commit(self, draft: pb.Record, *, reuse: bool, alias: str | None) -> pb.Record:
        """Under the next number of its name."""
        record = finished(draft)
        tried = _Tried()

        async def attempt(condition: Unchanged, size: int) -> pb.Record:
            for record.id.version in tried.doubtful:
                if await self._is_there(record):
                    return record
            head = await read_head(self._stores, name_of_kind(record.id.kind), record.id.name)
            if reuse and (found := await self._same(head, record)) is not None:
                return await self._reused(found, alias)
            record.id.version = await self._next(head, tried)
            parents = [await lives(self._stores, parent.record) for parent in record.parents]
            others: list[Change | Unchanged] = [condition, *parents, *await self._alias(record, alias)]
            tried.numbers.append(record.id.version)
            await self._write(record, size, head, others)
            return record

        return await self._until_written(record, tried, attempt)

    async def put(self, record: pb.Record) -> bool:
        """Under the number that it has. False when it is there already, AlreadyExists when another has its number."""
        check_record(record)
        tried = _Tried()

        async def attempt(condition: Unchanged, size: int) -> bool:
            if await self._is_there(record):
                return bool(tried.doubtful)
            if await self._stores.key_value.get(self._stores.keys.record(record.id)) is not None:
                raise AlreadyExists(
                    f"{Reference.of(record.id)} is there already and says something else; remove it first, or use "
                    "another namespace",
                    record=Reference.of(record.id),
                )
            head = await read_head(self._stores, name_of_kind(record.id.kind), record.id.name)
            found = [await lives_if_there(self._stores, parent.record) for parent in record.parents]
            tried.numbers.append(record.id.version)
            await self._write(record, size, head, [condition, *filter(None, found)])
            return True

        return await self._until_written(record, tried, attempt)

    async def _until_written(
        self, record: pb.Record, tried: _Tried, attempt: Callable[[Unchanged, int], Awaitable[_Result]]
    ) -> _Result:
        """Repeats `attempt(condition, size)` until nobody disturbs it, with its objects held each time, under the
        condition that the writer lives since before that. A store that is silent is asked again only when a commit was
        tried, to find out whether it was done.
        """
        digests = await self._reached(record)
        async for last in attempts(self._stores.timing.retry_s):
            try:
                if self._registration.lost:
                    await self._registration.begin()
                condition = self._registration.condition
                return await attempt(condition, sum((await self._holder.hold(digests)).values()))
            except Conflict as error:
                if error.details.get("key") == condition.key:
                    self._registration.forget(condition.key)
                if last:
                    raise
            except Unavailable:
                if last or not tried.numbers:
                    raise
                tried.doubtful.add(tried.numbers[-1])
        raise Unavailable("the library is too busy to take a record; try later")

    async def _reached(self, record: pb.Record) -> set[str]:
        digests = digests_of(record)
        await self._holder.hold(digests)
        return digests | {shard.sha256 async for shard in indexed(self._stores.objects, record)}

    async def _write(self, record: pb.Record, size: int, head: Head, others: Sequence[Change | Unchanged]) -> None:
        keys, version = self._stores.keys, record.id.version
        changes: list[Change | Unchanged] = [
            head.change(self._stores, given=max(head.given, version), latest=max(head.latest, version)),
            Change(keys.record(record.id), bytes_of(record), expected=ABSENT),
            Change(keys.summary(record.id), bytes_of(summary_of(record, size))),
        ]
        edges = [
            Change(keys.child(parent.record, record.id), bytes_of(pb.Edge(role=parent.role)))
            for parent in record.parents
        ]
        await self._stores.key_value.commit([*changes, *edges, *others])

    async def _next(self, head: Head, tried: _Tried) -> int:
        number = head.given + 1
        if number in tried.numbers:
            # It was refused and the head has not moved: a head that is behind its versions, written by another hand.
            number = max(number, 1 + max(await versions_of(self._stores, head.kind, head.name), default=0))
        if number > MAX_VERSION:
            raise FailedPrecondition(f"{head.kind}:{head.name} has used up its versions; choose another name")
        return number

    async def _is_there(self, record: pb.Record) -> bool:
        entry = await self._stores.key_value.get(self._stores.keys.record(record.id))
        return entry is not None and message_or_none(pb.Record, entry) == record

    async def _same(self, head: Head, record: pb.Record) -> pb.Record | None:
        """The latest version when it says what the record says."""
        latest = pb.Reference(kind=record.id.kind, name=record.id.name, version=head.latest)
        entry = await self._stores.key_value.get(self._stores.keys.record(latest)) if head.latest else None
        if entry is None:
            return None
        found = record_in(self._stores.keys, entry)
        return found if says(found) == says(record) else None

    async def _reused(self, found: pb.Record, alias: str | None) -> pb.Record:
        if alias is not None:
            await aliases.move(self._stores, found.id, alias)
        return found

    async def _alias(self, record: pb.Record, alias: str | None) -> list[Change]:
        if alias is None:
            return []
        change, _ = await aliases.moved(self._stores, record.id, alias)
        return [change] if change is not None else []
