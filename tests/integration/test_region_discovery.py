"""What discovery knows of a region, while its network changes and while the store is lost."""

from __future__ import annotations

import json
from pathlib import Path

from encephalon.core.inference import InferenceClient
from encephalon.discovery import Instance, resolve
from encephalon.state import KeyValue, open_key_value
from tests.regions import infer, manifest, region_process
from tests.servers import etcd_server
from tests.waiting import until


async def only(store: KeyValue) -> Instance | None:
    """The one instance of the region; None when there is none."""
    found = await resolve(store, "default", "test", "echo")
    assert len(found) <= 1
    return found[0] if found else None


async def test_the_version_in_service_and_its_absence_are_told(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    async with (
        region_process(manifest(), "--state", url) as region,
        region.client() as client,
        open_key_value(url) as store,
    ):
        first = await only(store)
        assert first is not None
        await client.load("echo", {"config": json.dumps({"network": "diagnostics/003", "version": "slow"})})
        await until(lambda: told(store, "diagnostics/003", "slow", Instance.STATE_READY))
        await client.unload("echo")
        await until(lambda: told(store, "diagnostics/003", "slow", Instance.STATE_STARTING))
        await client.load("echo")
        await until(lambda: told(store, "diagnostics/003", "slow", Instance.STATE_READY))
        last = await only(store)
        assert last is not None
        assert last.id == first.id


async def told(store: KeyValue, network: str, version: str, state: Instance.State.ValueType) -> bool:
    found = await only(store)
    return found is not None and (found.network, found.version, found.state) == (network, version, state)


async def test_a_lost_etcd_is_survived() -> None:
    """It answers all the time, and announces itself again to an etcd that has forgotten everything."""
    async with etcd_server() as etcd, region_process(manifest(), "--state", etcd.url) as region:
        async with open_key_value(etcd.url) as store:
            before = await only(store)
            assert before is not None
            assert before.address == region.address
        await etcd.kill()
        etcd.wipe()
        async with region.client() as client:
            for number in range(20):
                assert (await infer(client, float(number))).outputs[0].array[0, 0] == number
        await etcd.start()
        async with open_key_value(etcd.url) as store:
            await until(lambda: only(store), within=15)
            after = await only(store)
            assert after is not None
            assert (after.id, after.address) == (before.id, before.address)
            region.terminate()
            assert await region.ended() == 0
            assert await only(store) is None


async def test_leaving_without_its_store_does_not_hang() -> None:
    async with etcd_server() as etcd, region_process(manifest(), "--state", etcd.url) as region:
        await etcd.kill()
        async with InferenceClient(region.address) as client:
            await infer(client)
        region.terminate()
        assert await region.ended(within=8.0) == 0
