"""What is built in comes into a library of every pair of stores, whole and once."""

from __future__ import annotations

import asyncio
import json

from encephalon.library.builtins import NETWORKS
from encephalon.library.builtins.seed import seed
from encephalon.library.library import Library
from tests.waiting import until


async def test_the_built_in_records_are_whole_and_there_once(library: Library) -> None:
    other = Library(library.key_value, library.objects, namespace=library.namespace)
    await asyncio.gather(seed(library), seed(other))
    await seed(library)
    assert await library.names("network") == sorted(entry["name"] for entry in json.loads(NETWORKS.read_text()))
    for kind in ("area", "network", "data_set", "brain"):
        for name in await library.names(kind):
            assert await library.versions(kind, name) == [1]
    assert (await library.resolve("digits@production")).selector == 1

    async def sound() -> bool:
        return await library.verify() == []

    # SeaweedFS may need a moment to list what two have written at once.
    await until(sound, what="the library is sound")
