"""What the library must do, whichever stores are below: SQLite and a folder, etcd and MinIO's gateway, etcd and
SeaweedFS.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import uuid
from pathlib import Path

import pytest

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import AlreadyExists, Conflict, FailedPrecondition, InvalidInput, NotFound
from encephalon.library.library import Library
from encephalon.library.records import Reference
from encephalon.library.records.checks import MAX_PARENTS, MAX_RECORD_BYTES
from encephalon.library.store.keys import object_key
from encephalon.library.store.watching import LibraryEvent
from encephalon.state import KeyValue, Objects
from tests.drafts import brain, data_set, network, parent, run, scene


async def stored(library: Library) -> set[str]:
    return {found.key async for found in library.objects.list("")}


async def add_with(library: Library, data: bytes, name: str = "digits", alias: str | None = None) -> pb.Record:
    async with library.writing("test") as writer:
        return await writer.commit(network(name, await writer.put_bytes(data)), alias=alias)


async def test_a_record_is_shown_as_it_was_added(library: Library) -> None:
    added = await library.add(network("vision/digits", text="Ten digits."))
    assert added.id == pb.Reference(kind=pb.KIND_NETWORK, name="vision/digits", version=1)
    assert "@" in added.created_by
    assert added.code_version.startswith("encephalon ")
    assert added.created_time.seconds > 1_700_000_000
    for reference in (
        "vision/digits",
        "network:vision/digits@1",
        "vision/digits@latest",
        Reference("vision/digits", 1),
    ):
        assert await library.show(reference) == added
    assert added.network == network().network


async def test_versions_count_from_one_within_a_name(library: Library) -> None:
    for number in (1, 2, 3):
        draft = network(text=f"try {number}")
        draft.id.version = 77  # is for the library to say
        assert (await library.add(draft)).id.version == number
    assert (await library.add(network("other"))).id.version == 1
    assert (await library.add(brain())).id.version == 1
    assert await library.versions("network", "digits") == [1, 2, 3]
    assert await library.names("networks") == ["digits", "other"]
    assert (await library.resolve("network:digits")).selector == 3
    assert (await library.show("network:digits@2")).description == "try 2"


async def test_objects_come_back_byte_for_byte(library: Library, tmp_path: Path) -> None:
    large, small = os.urandom(9 * 1024 * 1024 + 17), b"small"
    path = tmp_path / "weights"
    path.write_bytes(large)
    done: list[int] = []
    async with library.writing("test") as writer:
        record = await writer.commit(network(weights=await writer.put_file(path, progress=done.append)))
        notes = await writer.commit(run(**{"log.txt": await writer.put_bytes(small)}))
    assert done[-1] == len(large)
    assert done == sorted(done)
    weights = record.network.weights
    assert weights == pb.Object(sha256=hashlib.sha256(large).hexdigest(), size=len(large))
    for _ in range(2):
        assert (await library.fetch(weights)).read_bytes() == large
    assert await library.read(notes.run.artefacts["log.txt"]) == small
    assert await library.verify() == []


async def test_the_same_bytes_are_kept_once(library: Library) -> None:
    first, second = [await add_with(library, b"the same", name) for name in ("one", "two")]
    await add_with(library, b"others", "two")
    assert first.network.weights == second.network.weights
    assert len(await stored(library)) == 2
    usage = await library.du()
    assert (usage.objects, usage.bytes, usage.shared, usage.saved, usage.unreached) == (2, 14, 8, 8, 0)
    assert {found.name: (found.versions, found.bytes, found.own) for found in usage.names} == {
        "one": (1, 8, 0),
        "two": (2, 14, 6),
    }


async def test_reuse_gives_the_latest_version_that_says_the_same(library: Library) -> None:
    first = await library.add(network(text="same"), reuse=True)
    assert await library.add(network(text="same"), reuse=True, alias="production") == first
    assert (await library.add(network(text="same"))).id.version == 2
    assert (await library.add(network(text="other"), reuse=True)).id.version == 3
    assert (await library.aliases("network", "digits"))["production"].version == 1


async def test_an_alias_moves_when_it_means_what_was_expected(library: Library) -> None:
    for _ in range(3):
        await library.add(network())
    assert (await library.alias("digits@1", "production", expected=0)).version == 1
    assert (await library.alias("digits@2", "production", expected=1)).version == 2
    with pytest.raises(Conflict, match="expected to mean version 1 and means version 2"):
        await library.alias("digits@3", "production", expected=1)
    with pytest.raises(Conflict, match="expected to mean nothing and means version 2"):
        await library.alias("digits@3", "production", expected=0)
    moved = await library.alias("digits@3", "production")
    assert (moved.version, list(moved.previous), moved.HasField("moved_time")) == (3, [1, 2], True)
    assert (await library.alias("digits@3", "production")) == moved
    assert await library.show("digits@production") == await library.show("digits@3")
    await library.alias("digits@production", "best")
    assert {alias: found.version for alias, found in (await library.aliases("network", "digits")).items()} == {
        "production": 3,
        "best": 3,
        "latest": 3,
    }
    await library.drop_alias("network", "digits", "best")
    with pytest.raises(NotFound, match="no alias 'best'"):
        await library.show("digits@best")


async def test_a_record_can_come_with_an_alias(library: Library) -> None:
    await add_with(library, b"1", alias="production")
    await add_with(library, b"2", alias="production")
    production = (await library.aliases("network", "digits"))["production"]
    assert (production.version, list(production.previous)) == (2, [1])


async def test_rollback_goes_back_step_by_step(library: Library) -> None:
    for _ in range(3):
        await library.add(network(), alias="production")
    assert (await library.rollback("digits")).version == 2
    assert (await library.rollback("digits")).version == 1
    with pytest.raises(FailedPrecondition, match="means version 1 and nothing that is still there before it"):
        await library.rollback("digits")
    with pytest.raises(NotFound, match="no alias 'canary'; there are latest, production"):
        await library.rollback("digits", "canary")


async def test_rollback_leaves_out_what_was_removed(library: Library) -> None:
    for _ in range(3):
        await library.add(network(), alias="production")
    await library.remove("digits@2")
    assert (await library.rollback("digits")).version == 1


async def test_latest_is_not_moved_by_hand(library: Library) -> None:
    await library.add(network())
    for move in (library.alias("digits", "latest"), library.rollback("digits", "latest")):
        with pytest.raises(InvalidInput, match="follows every new version by itself"):
            await move


async def test_what_is_unknown_gets_the_nearest_suggested(library: Library) -> None:
    with pytest.raises(NotFound, match="the library is empty"):
        await library.show("digits")
    await library.add(network("vision/digits"), alias="production")
    await library.add(scene("seeing"))
    expected = {
        "vision/digit": "did you mean 'network:vision/digits'",
        "network:vision/digitz": "did you mean 'vision/digits'",
        "brain:vision/digits": "there is network:vision/digits",
        "brain:seeink": "did you mean 'scene:seeing'",
        "vision/digits@9": "has no version 9; it has 1",
        "vision/digits@prodution": "did you mean 'production'",
        "zzz": "see `library ls`",
    }
    for reference, hint in expected.items():
        with pytest.raises(NotFound, match=hint):
            await library.show(reference)
    with pytest.raises(NotFound, match="did you mean 'vision/digits'"):
        await library.versions("network", "vision/digit")
    with pytest.raises(InvalidInput, match="did you mean 'network'"):
        await library.show("netwrok:vision/digits")


async def test_a_name_of_several_kinds_must_say_which(library: Library) -> None:
    await library.add(network("digits"))
    added = await library.add(brain("digits"))
    with pytest.raises(InvalidInput, match="write network:digits or brain:digits"):
        await library.show("digits")
    assert await library.show("digits", kind="brain") == added
    assert await library.show("brain:digits@latest") == added
    with pytest.raises(InvalidInput, match="'brain:digits@latest' is of the kind brain, expected was network"):
        await library.show("brain:digits", kind="network")


async def test_a_record_never_names_what_is_not_there(library: Library) -> None:
    missing = pb.Object(sha256="ab" * 32, size=5)
    with pytest.raises(FailedPrecondition, match=r"names the object sha256:abab.*is not in the library"):
        await library.add(network(weights=missing))
    with pytest.raises(FailedPrecondition, match="names the object"):
        await library.add(brain(manifest='{"weights": "object:sha256:' + "cd" * 32 + '"}'))
    nobody = pb.Parent(record=pb.Reference(kind=pb.KIND_NETWORK, name="nobody", version=1), role="network")
    with pytest.raises(NotFound, match="there is no network:nobody@1"):
        await library.add(network("digits", None, nobody))
    assert await library.names("network") == []
    assert await library.verify() == []


async def test_shards_of_an_index_are_checked_and_kept(library: Library) -> None:
    async with library.writing("test") as writer:
        shards = [await writer.put_bytes(bytes([number])) for number in range(60)]
        listed = pb.ShardIndex(shards=[pb.Shard(object=shard, samples=10) for shard in shards])
        index = await writer.put_bytes(listed.SerializeToString())
        await writer.commit(data_set("many", index=index))
        listed.shards.add(samples=1).object.CopyFrom(pb.Object(sha256="ef" * 32, size=1))
        bad = await writer.put_bytes(listed.SerializeToString())
        with pytest.raises(FailedPrecondition, match="names the object sha256:efef"):
            await writer.commit(data_set("bad", index=bad))
    collected = await library.gc(grace_s=0)
    assert (collected.objects, collected.left) == (1, 61)
    assert await library.read(shards[57]) == bytes([57])
    assert (await library.du()).names[0].bytes == 60 + index.size
    assert await library.verify() == []


async def test_what_is_referred_to_cannot_be_removed(library: Library) -> None:
    first = await library.add(network("digits"), alias="production")
    second = await library.add(network("digits"))
    child = await library.add(brain("digits", visual=second.id))
    assert [each.record for each in child.parents] == [second.id]
    with pytest.raises(FailedPrecondition, match="in use by the alias 'production'"):
        await library.remove("network:digits@1")
    with pytest.raises(FailedPrecondition, match="in use by brain:digits@1"):
        await library.remove("network:digits@2")
    await library.add(network("more", None, parent(first), parent(second)))
    await library.remove("more")
    await library.remove("brain:digits")
    await library.remove("digits@2")
    assert await library.resolve("digits") == Reference("digits", 1, "network")
    assert (await library.add(network("digits"))).id.version == 3
    await library.drop_alias("network", "digits", "production")
    for version in (1, 3):
        await library.remove(f"digits@{version}")
    with pytest.raises(NotFound):
        await library.remove("digits@3")
    assert await library.names("network") == []
    assert (await library.add(network("digits"))).id.version == 4
    assert await library.verify() == []


async def test_garbage_is_what_no_record_reaches(library: Library) -> None:
    async with library.writing("test") as writer:
        kept = await writer.put_bytes(b"kept")
        pinned = await writer.put_bytes(b"pinned")
        await writer.commit(network(weights=kept))
        await writer.commit(brain(manifest='{"weights": "object:sha256:' + pinned.sha256 + '"}'))
        await writer.put_bytes(b"garbage")
    # A brain that runs from a file keeps its weights in the same bucket, without an entry: they are not ours to delete.
    foreign = object_key("01" * 32)
    await library.objects.put(foreign, b"put by another program")
    assert (await library.gc()).objects == 0
    would = await library.gc(grace_s=0, dry_run=True)
    assert (would.objects, would.bytes, would.left) == (1, 7, 2)
    assert len(await stored(library)) == 4
    counts: list[tuple[int, int]] = []
    assert await library.gc(grace_s=0, progress=lambda *count: counts.append(count)) == would
    assert counts[-1] == (1, 1)
    assert await stored(library) == {object_key(kept.sha256), object_key(pinned.sha256), foreign}
    await library.remove("brain:digits")
    await library.remove("network:digits")
    assert (await library.gc(grace_s=0)).objects == 2
    assert await stored(library) == {foreign}
    assert await library.verify() == []


async def test_a_writers_objects_are_spared_while_it_works(library: Library) -> None:
    old = await add_with(library, b"old")
    await library.remove("digits")
    async with library.writing("test") as writer:
        new = await writer.put_bytes(b"new")
        again = await writer.put_bytes(b"old")
        assert again == old.network.weights
        collected = await library.gc(grace_s=0)
        assert (collected.objects, collected.spared) == (0, 2)
        await writer.commit(network("one", new))
        await writer.commit(network("two", again))
    assert (await library.gc(grace_s=0)).objects == 0
    assert await library.verify() == []


async def test_bytes_that_the_store_lost_are_healed_by_putting_them_again(library: Library) -> None:
    record = await add_with(library, b"precious")
    await library.objects.delete(object_key(record.network.weights.sha256))
    (problem,) = await library.verify(quick=True)
    assert (problem.what, problem.subject) == ("object", record.network.weights.sha256)
    with pytest.raises(NotFound, match="not in the library; see `library verify`"):
        await library.fetch(record.network.weights)
    await add_with(library, b"precious")
    assert await library.verify() == []


async def test_an_import_keeps_number_time_and_author(
    library: Library, library_stores: tuple[KeyValue, Objects]
) -> None:
    await library.add(network())
    original = await library.add(network(text="second"))
    other = Library(*library_stores, namespace=uuid.uuid4().hex)
    async with other.writing("import") as writer:
        assert await writer.put_record(original)
        assert not await writer.put_record(original)
        assert await other.show("digits") == original
        assert await other.versions("network", "digits") == [2]
        assert await writer.put_record(await library.show("digits@1"))
        changed = pb.Record()
        changed.CopyFrom(original)
        changed.description = "forged"
        with pytest.raises(AlreadyExists, match="network:digits@2 is there already and says something else"):
            await writer.put_record(changed)
        changed.id.version = 0
        with pytest.raises(InvalidInput, match="version 0"):
            await writer.put_record(changed)
    assert await other.show("digits") == original
    assert (await other.add(network())).id.version == 3
    assert await other.verify() == []


async def test_an_imported_record_may_come_before_its_parents(library: Library) -> None:
    await library.add(network("base"))
    child = await library.add(network("child", None, parent(await library.show("base"))))
    other = Library(library.key_value, library.objects, namespace=uuid.uuid4().hex)
    async with other.writing("import") as writer:
        await writer.put_record(child)
        await writer.put_record(await library.show("base"))
    with pytest.raises(FailedPrecondition, match="in use by network:child@1"):
        await other.remove("base")
    assert await other.verify() == []


async def test_namespaces_do_not_disturb_each_other(library: Library, library_stores: tuple[KeyValue, Objects]) -> None:
    other = Library(*library_stores, namespace=uuid.uuid4().hex)
    mine = await add_with(library, b"the same bytes")
    theirs = await add_with(other, b"the same bytes")
    await other.remove("digits")
    assert (await other.gc(grace_s=0)).objects == 1
    assert await library.read(mine.network.weights) == b"the same bytes"
    with pytest.raises(NotFound):
        await other.read(theirs.network.weights)


async def test_a_watch_tells_what_happens(library: Library) -> None:
    await library.add(network("before"))
    async with contextlib.aclosing(library.watch()) as events, asyncio.timeout(20):
        assert await anext(events) == LibraryEvent("watching")
        await library.add(network("one"))
        assert await anext(events) == LibraryEvent("added", "network", "one", 1)
        await library.alias("one", "production")
        assert await anext(events) == LibraryEvent("alias moved", "network", "one", 1, "production")
        with pytest.raises(FailedPrecondition):
            await library.remove("one")
        await library.drop_alias("network", "one", "production")
        assert await anext(events) == LibraryEvent("alias dropped", "network", "one", 0, "production")
        await library.remove("one")
        told = await anext(events)
        assert told == LibraryEvent("removed", "network", "one", 1)
        assert str(told.reference) == "network:one@1"


async def test_a_watch_can_be_of_one_name(library: Library) -> None:
    with pytest.raises(InvalidInput, match="say its kind too"):
        await anext(library.watch(name="one"))
    async with contextlib.aclosing(library.watch("network", "one")) as events, asyncio.timeout(20):
        await anext(events)
        await library.add(network("one/more"))
        await library.add(brain("one"))
        await library.add(network("one"))
        assert await anext(events) == LibraryEvent("added", "network", "one", 1)


async def test_an_alias_is_followed(library: Library) -> None:
    await library.add(network())
    async with (
        contextlib.aclosing(library.watch_alias("network", "digits", "production")) as production,
        contextlib.aclosing(library.watch_alias("network", "digits", "latest")) as latest,
        asyncio.timeout(20),
    ):
        assert await anext(latest) == 1
        coming = asyncio.ensure_future(anext(production))  # it is not there yet
        await library.alias("digits@1", "production-2")
        await library.alias("digits@1", "production")
        assert await coming == 1
        await library.add(network(), alias="production")
        assert await anext(production) == await anext(latest) == 2
        await library.rollback("digits")
        assert await anext(production) == 1


async def test_damage_is_found_and_skipped_elsewhere(library: Library) -> None:
    async with library.writing("test") as writer:
        first = await writer.commit(network("one", await writer.put_bytes(b"first")), alias="production")
        second = await writer.commit(network("two", await writer.put_bytes(b"second"), parent(first)))
        third = await writer.commit(network("three"))
    keys, store = library.stores.keys, library.key_value
    await library.objects.put(object_key(first.network.weights.sha256), b"FIRST")
    await store.put(keys.record(third.id), b"\xff\xff")
    await store.put(keys.summary(second.id), pb.Summary(id=second.id).SerializeToString())
    await store.delete(keys.child(first.id, second.id))
    await store.put(keys.alias("network", "one", "broken"), pb.Alias(version=7).SerializeToString())
    await store.put(keys.alias("network", "one", "foreign"), b"\xff\xff")
    await store.put(keys.head("network", "two"), pb.Head(given=5, latest=5).SerializeToString())
    await store.put(keys.root + "something/else", b"")
    await store.put(keys.summaries("network", "ghost") + "00000001", b"\xff\xff")
    found = {(problem.what, problem.subject) for problem in await library.verify()}
    assert found == {
        ("object", first.network.weights.sha256),
        ("record", keys.record(third.id)),
        ("summary", keys.summary(third.id)),
        ("summary", "network:two@1"),
        ("lineage", "network:two@1"),
        ("alias", "network:one@broken"),
        ("alias", keys.alias("network", "one", "foreign")),
        ("head", "network:two"),
        ("key", keys.root + "something/else"),
        ("summary", keys.summaries("network", "ghost") + "00000001"),
    }
    with pytest.raises(FailedPrecondition, match=r"what the record at .*three.* needs cannot be read"):
        await library.gc(grace_s=0)
    assert set(await library.aliases("network", "one")) == {"production", "broken", "latest"}
    assert {name.name for name in (await library.du()).names} == {"one", "two"}
    await library.remove("three")
    assert (await library.add(network("two"))).id.version == 6


async def test_the_largest_record_fits_into_one_commit(library: Library) -> None:
    long = "n" * 100 + "/"
    parents = [await library.add(network(f"{long}{number:02d}")) for number in range(MAX_PARENTS)]
    draft = network(long + "child", None, *(parent(record) for record in parents))
    draft.network.arguments = json.dumps({"text": "x" * (MAX_RECORD_BYTES - draft.ByteSize() - 500)})
    added = await library.add(draft, alias="production")
    assert await library.show(f"{long}child@production") == added
    with pytest.raises(FailedPrecondition, match="in use by"):
        await library.remove(f"{long}07")
    await library.drop_alias("network", f"{long}child", "production")
    await library.remove(f"{long}child")
    assert await library.verify() == []
