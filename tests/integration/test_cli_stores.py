"""The same brain with the stores that a cluster has."""

from __future__ import annotations

import hashlib
import json

from encephalon.library.sample import load_sample
from encephalon.local import example
from encephalon.state import open_key_value, open_objects
from tests.running import running_brain
from tests.servers import etcd_server, juicefs_gateway


async def test_regions_meet_in_etcd_and_load_their_weights_from_minio() -> None:
    sample = load_sample()
    async with etcd_server() as etcd, juicefs_gateway() as minio:
        stores = ("--etcd", etcd.url, "--minio", minio.url, "--namespace", "cluster")
        async with running_brain(example("digits"), *stores) as brain:
            async with brain.connect() as brains:
                answer = await brains.infer("digits", image=sample.images[:8], audio=sample.audio[:8])
                manifest = json.loads((await brains.describe("digits")).manifest)
            assert answer["probabilities"].shape == (8, 10)
            assert answer.missing == ()
            digests = {region["weights"].removeprefix("object:sha256:") for region in manifest["regions"].values()}
            assert len(digests) == 3
            async with open_key_value(etcd.url) as store:
                keys = [entry.key async for entry in store.list("/encephalon/cluster/instances/digits/")]
            assert len(keys) == 3
            async with open_objects(minio.url) as objects:
                for digest in digests:
                    data = b"".join([part async for part in objects.get(f"sha256/{digest}")])
                    assert hashlib.sha256(data).hexdigest() == digest
            assert minio.url.partition("@")[0] not in (brain.state_dir / "brains/digits/run.json").read_text()
