"""What only the embedded store must prove: bounds of its history, its clock, several openers, a killed writer."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from encephalon.core.errors import Unavailable
from encephalon.state import EventKind, open_key_value, sqlite, sqlite_file
from encephalon.state.sqlite_file import SqliteFile


@pytest.fixture
def file(tmp_path: Path) -> Iterator[SqliteFile]:
    opened = SqliteFile(tmp_path / "store.db", 5)
    yield opened
    opened.close()


def test_the_history_is_bounded_by_changes(file: SqliteFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "MAX_HISTORY_CHANGES", 100)
    for number in range(250):
        last = file.commit([], [("k", b"%d" % number, None)])
    assert file.changes(b"k", b"l", 1, 1000) == (None, 1)
    changes, _ = file.changes(b"k", b"l", last - 50, 1000)
    assert [int(change.value) for change in changes or ()] == list(range(200, 250))
    assert file._db.execute("SELECT count(*) FROM history").fetchone()[0] <= 100


def test_the_history_is_bounded_by_bytes(file: SqliteFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "MAX_HISTORY_BYTES", 10_000)
    for _ in range(50):
        file.commit([], [("k", bytes(1000), None)])
    assert file._db.execute("SELECT sum(length(value)) FROM history").fetchone()[0] <= 11_000


def test_a_lease_from_before_a_reboot_has_run_out(file: SqliteFile, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = file.grant(5)
    file.commit([], [("k", b"", lease)])
    assert file.get(b"k")
    # After a reboot the monotonic clock starts again from nothing.
    monkeypatch.setattr(time, "monotonic", lambda: 1.0 if file else 0.0)
    assert file.get(b"k") is None
    assert not file.keep(lease)


async def test_what_is_opened_for_who_was_cancelled_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on, closed = threading.Event(), threading.Event(), threading.Event()

    class Slow(SqliteFile):
        def __init__(self, path: Path, busy_s: float) -> None:
            begun.set()
            go_on.wait(20)
            super().__init__(path, busy_s)

        def close(self) -> None:
            super().close()
            closed.set()

    monkeypatch.setattr(sqlite, "SqliteFile", Slow)
    opening = asyncio.create_task(open_key_value(f"sqlite://{tmp_path}/store.db").__aenter__())
    assert await asyncio.to_thread(begun.wait, 20)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    go_on.set()
    assert await asyncio.to_thread(closed.wait, 20)


async def test_a_file_that_stays_locked_is_unavailable_and_the_watch_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with (
        open_key_value(f"sqlite://{path}", deadline_s=0.3) as store,
        contextlib.aclosing(store.watch("")) as events,
    ):
        assert (await anext(events)).kind is EventKind.LISTED
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(Unavailable):
                await store.put("a", b"")
            other.execute("ROLLBACK")
        await asyncio.wait_for(_put_in_the_end(store), 5)
        assert (await asyncio.wait_for(anext(events), 5)).key == "a"


async def _put_in_the_end(store: object) -> None:
    while True:
        with contextlib.suppress(Unavailable):
            await store.put("a", b"")  # type: ignore[attr-defined]
            return


_OPENER = """
import asyncio, sys
from encephalon.state import open_key_value
async def main(url, name):
    async with open_key_value(url, deadline_s=20) as store:
        await store.put(name, b"")
asyncio.run(main(*sys.argv[1:]))
"""


async def test_several_processes_may_create_the_file_at_once(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/new/store.db"
    openers = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", _OPENER, url, f"k{number}") for number in range(4)
    ]
    assert await asyncio.gather(*(opener.wait() for opener in openers)) == [0] * 4
    async with open_key_value(url) as store:
        assert [entry.key async for entry in store.list("")] == ["k0", "k1", "k2", "k3"]


_WRITER = """
import asyncio, sys
from encephalon.state import open_key_value
async def main(url):
    async with open_key_value(url) as store:
        number = 0
        while True:
            await store.put("n", b"%d" % number)
            print(number, flush=True)
            number += 1
asyncio.run(main(sys.argv[1]))
"""


async def test_what_was_answered_outlives_a_killed_writer(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/store.db"
    writer = await asyncio.create_subprocess_exec(sys.executable, "-c", _WRITER, url, stdout=asyncio.subprocess.PIPE)
    assert writer.stdout is not None
    for _ in range(50):
        assert await writer.stdout.readline()
    writer.kill()
    rest, _ = await writer.communicate()
    answered = int(rest.split()[-1]) if rest.split() else 49
    async with open_key_value(url) as store:
        entry = await store.get("n")
    assert entry is not None
    assert answered <= int(entry.value) <= answered + 1
