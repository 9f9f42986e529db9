"""Takes a record out that nothing refers to. Its objects go with the next collection of garbage."""

from __future__ import annotations

from collections.abc import Sequence

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import Conflict, Corrupt, FailedPrecondition, NotFound, Unavailable
from encephalon.library.records.kinds import name_of_kind
from encephalon.library.records.reference import Reference
from encephalon.library.store.entries import bytes_of, message_or_none, record_in
from encephalon.library.store.heads import read_head, versions_of
from encephalon.library.store.patience import attempts
from encephalon.library.store.registration import Registration, registered
from encephalon.library.store.stores import Stores
from encephalon.library.store.suggestions import no_version
from encephalon.state import ABSENT, Change, Entry, Unchanged

__all__ = ["remove"]

_SHOWN = 5


async def remove(stores: Stores, id: pb.Reference) -> None:
    """Raises NotFound, and FailedPrecondition while an alias or a record that was made from it refers to it."""
    async with registered(stores, "remove") as registration:
        removal = _Removal(stores, registration, id)
        async for last in attempts(stores.timing.retry_s):
            try:
                await removal.attempt()
            except Conflict:
                if last or registration.lost:
                    raise
            except (NotFound, Unavailable) as error:
                # When nothing was heard of the last step, what is gone is gone by it, or by another's.
                if last or not removal.tried:
                    raise
                if isinstance(error, NotFound):
                    return
            else:
                return
    raise Unavailable(f"{Reference.of(id)} is written to by too many at once; try later")


class _Removal:
    def __init__(self, stores: Stores, registration: Registration, id: pb.Reference) -> None:
        self._stores = stores
        self._registration = registration
        self._id = id
        self._kind = name_of_kind(id.kind)
        self.tried = False
        """Whether a commit was tried that takes it out."""

    async def attempt(self) -> None:
        """Marks the record, so that no commit that saw it unmarked succeeds, and then looks who refers to it."""
        store, keys = self._stores.key_value, self._stores.keys
        entry = await store.get(keys.record(self._id))
        before = await store.get(keys.summary(self._id))
        if entry is None and before is None:
            raise await no_version(self._stores, self._id)
        summary = message_or_none(pb.Summary, before) or pb.Summary(id=self._id)
        if summary.removing not in ("", self._registration.id) and await store.get(keys.writer(summary.removing)):
            raise FailedPrecondition(f"{Reference.of(self._id)} is being removed by somebody else")
        marked = await self._mark(summary, self._registration.id, before)
        if users := await self._users():
            await self._mark(summary, "", Entry("", b"", marked))
            more = ", ..." if len(users) > _SHOWN else ""
            raise FailedPrecondition(
                f"{Reference.of(self._id)} is in use by {', '.join(users[:_SHOWN])}{more}; remove or move those first",
                record=Reference.of(self._id),
            )
        changes: list[Change | Unchanged] = [
            self._registration.condition,
            Change(keys.summary(self._id), None, expected=marked),
            Change(keys.record(self._id), None, expected=entry.revision if entry is not None else ABSENT),
            await self._head(),
            *(Change(key, None) for key in await self._edges(entry)),
        ]
        self.tried = True
        await store.commit(changes)

    async def _mark(self, summary: pb.Summary, writer: str, over: Entry | None) -> int:
        marked = pb.Summary()
        marked.CopyFrom(summary)
        marked.removing = writer
        expected = over.revision if over is not None else ABSENT
        return await self._stores.key_value.put(
            self._stores.keys.summary(self._id), bytes_of(marked), expected=expected
        )

    async def _users(self) -> list[str]:
        store, keys = self._stores.key_value, self._stores.keys
        users: list[str] = []
        async for entry in store.list(keys.aliases(self._kind, self._id.name)):
            alias = message_or_none(pb.Alias, entry)
            if alias is not None and alias.version == self._id.version:
                users.append(f"the alias '{keys.parts(entry.key)[-1]}'")
        async for entry in store.list(keys.children(self._id)):
            kind, name, version = keys.parts(entry.key)[-3:]
            users.append(f"{kind}:{name}@{version.lstrip('0')}")
            if len(users) > _SHOWN:
                break
        return users

    async def _head(self) -> Change:
        head = await read_head(self._stores, self._kind, self._id.name)
        left = [version for version in await self._versions() if version != self._id.version]
        return head.change(self._stores, given=max(head.given, self._id.version), latest=max(left, default=0))

    async def _versions(self) -> Sequence[int]:
        return await versions_of(self._stores, self._kind, self._id.name)

    async def _edges(self, entry: Entry | None) -> list[str]:
        """The lineage that ends at it. That of a damaged record is searched for, it does not say whose child it is."""
        keys = self._stores.keys
        try:
            if entry is not None:
                record = record_in(keys, entry)
                return [keys.child(parent.record, self._id) for parent in record.parents]
        except Corrupt:
            pass
        end = "/" + keys.record(self._id).removeprefix(keys.root)
        below = f"{keys.root}child/"
        return [each.key async for each in self._stores.key_value.list(below) if each.key.endswith(end)][:90]
