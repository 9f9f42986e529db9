"""One key that is kept, though what it says changes all the time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from encephalon.core.tasks import background
from encephalon.discovery import Leased
from encephalon.state import open_key_value

LEASE_S = 1.5


async def test_what_changes_all_the_time_keeps_its_lease(tmp_path: Path) -> None:
    numbers: Iterator[int] = count()
    async with open_key_value(f"sqlite://{tmp_path / 'state.db'}") as store:
        leased = Leased(store, "/encephalon/here/key", lambda: str(next(numbers)).encode(), LEASE_S)
        await leased.write()
        lease = leased._lease
        async with background("keep", leased.keep()):
            end = asyncio.get_running_loop().time() + 2 * LEASE_S
            while asyncio.get_running_loop().time() < end:
                leased.touch()
                await asyncio.sleep(LEASE_S / 30)
        assert leased._lease is lease, "it was lost, and whoever watches has seen the key go"
        await leased.leave()
        assert await store.get("/encephalon/here/key") is None
