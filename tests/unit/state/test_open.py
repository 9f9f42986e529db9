"""Opening a store: one sentence for what cannot be opened, soon, and no password in it."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from encephalon.core.errors import Denied, FailedPrecondition, InvalidInput, Unavailable
from encephalon.state import open_key_value, open_objects
from tests.servers import juicefs_gateway


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "sqlite://data.db",
        "sqlite:///",
        "etcd://",
        "etcd://host",
        "etcd://host:0x1",
        "etcd://h:1/path",
        "redis://h:1",
    ],
)
def test_a_bad_key_value_url_is_one_sentence(url: str) -> None:
    with pytest.raises(InvalidInput, match=r"sqlite:///ABSOLUTE/PATH or etcd://HOST:PORT"):
        open_key_value(url)


@pytest.mark.parametrize(
    "url",
    [
        "folder://data",
        "minio://h:1/b",
        "minio://a:secret@h/b",
        "minio://a:secret@h:1",
        "minio://a:secret@h:1/b?secure=yes",
    ],
)
def test_a_bad_objects_url_is_one_sentence_without_the_secret(url: str) -> None:
    with pytest.raises(InvalidInput, match=r"folder:///ABSOLUTE/PATH or minio://") as caught:
        open_objects(url)
    assert "secret@" not in caught.value.message


@pytest.mark.parametrize("silent", [False, True], ids=["refused", "silent"])
@pytest.mark.parametrize("url", ["etcd://127.0.0.1:{}", "minio://a:secretsecret@127.0.0.1:{}/bucket"])
async def test_a_store_out_of_reach_is_one_sentence_within_the_deadline(url: str, silent: bool) -> None:
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        if silent:
            listener.listen()
        url = url.format(listener.getsockname()[1])
        opened = open_key_value(url, deadline_s=1) if url.startswith("etcd") else open_objects(url, deadline_s=1)
        start = asyncio.get_running_loop().time()
        with pytest.raises(Unavailable) as caught:
            async with opened:
                pass
        assert asyncio.get_running_loop().time() - start < 4
        assert "127.0.0.1" in caught.value.message
        assert "\n" not in caught.value.message
        assert "secretsecret" not in caught.value.message


async def test_a_wrong_password_is_denied() -> None:
    async with juicefs_gateway() as server:
        with pytest.raises(Denied):
            async with open_objects(server.url.replace("encephalon-secret", "wrong-secret")):
                pass


async def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("no database " * 1000)
    with pytest.raises(FailedPrecondition, match="is not a store"):
        async with open_key_value(f"sqlite://{path}"):
            pass
    assert path.read_text() == "no database " * 1000


async def test_a_file_of_a_later_release_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "store.db")) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(FailedPrecondition, match="format 99"):
        async with open_key_value(f"sqlite://{tmp_path}/store.db"):
            pass


@pytest.mark.parametrize("scheme", ["sqlite", "folder"])
async def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path, scheme: str) -> None:
    (tmp_path / "file").write_text("")
    url = f"{scheme}://{tmp_path}/file/below/store"
    with pytest.raises(Unavailable, match="below"):
        async with open_key_value(url) if scheme == "sqlite" else open_objects(url):
            pass


def test_a_store_is_imported_only_when_its_url_asks_for_it() -> None:
    program = "import sys, encephalon.state as s; s.open_key_value('sqlite:///x'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert not {"aetcd", "minio"} & set(done.stdout.split())
