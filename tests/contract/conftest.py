"""One server of each kind for the whole session, and each store opened afresh for each test below a prefix of
its own.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from encephalon.library.library import Library
from encephalon.library.store.cache import Cache
from encephalon.state import KeyValue, Objects, open_key_value, open_objects
from tests.servers import Server, etcd_server, juicefs_gateway, seaweedfs


def _served(start: Callable[[], AbstractAsyncContextManager[Server]]) -> Iterator[str]:
    """Keeps a server running beside the event loops of the tests, which end with each test."""
    with asyncio.Runner() as runner:
        context = start()
        server = runner.run(context.__aenter__())
        try:
            yield server.url
        finally:
            runner.run(context.__aexit__(None, None, None))


@pytest.fixture(scope="session")
def etcd_url() -> Iterator[str]:
    yield from _served(etcd_server)


@pytest.fixture(scope="session")
def juicefs_url() -> Iterator[str]:
    yield from _served(juicefs_gateway)


@pytest.fixture(scope="session")
def seaweedfs_url() -> Iterator[str]:
    yield from _served(seaweedfs)


@pytest.fixture(params=["sqlite", "etcd"])
def key_value_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite://{tmp_path}/store.db" if request.param == "sqlite" else request.getfixturevalue("etcd_url")


@pytest.fixture
async def store(key_value_url: str) -> AsyncIterator[KeyValue]:
    async with open_key_value(key_value_url) as store:
        yield store


@pytest.fixture
def prefix() -> str:
    return f"/{uuid.uuid4().hex}/"


@pytest.fixture(params=["folder", "juicefs", "seaweedfs"])
def objects_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return f"folder://{tmp_path}/objects"
    return f"{request.getfixturevalue(f'{request.param}_url')}-{uuid.uuid4().hex[:8]}"


@pytest.fixture
async def objects(objects_url: str) -> AsyncIterator[Objects]:
    async with open_objects(objects_url) as objects:
        yield objects


@pytest.fixture(params=["embedded", "juicefs", "seaweedfs"])
def library_urls(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    if request.param == "embedded":
        return f"sqlite://{tmp_path}/state.db", f"folder://{tmp_path}/objects"
    return request.getfixturevalue("etcd_url"), request.getfixturevalue(f"{request.param}_url") + "-library"


@pytest.fixture
async def library_stores(library_urls: tuple[str, str]) -> AsyncIterator[tuple[KeyValue, Objects]]:
    async with open_key_value(library_urls[0]) as key_value, open_objects(library_urls[1]) as objects:
        yield key_value, objects


@pytest.fixture
def library(library_stores: tuple[KeyValue, Objects], tmp_path: Path) -> Library:
    return Library(*library_stores, namespace=uuid.uuid4().hex, cache=Cache(tmp_path / "cache"))
