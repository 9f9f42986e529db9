"""What only the folder must prove: what a dead writer left is swept, what a living one writes is not, damage is
named.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from encephalon.core.errors import Corrupt
from encephalon.state import open_objects, read


async def test_orphans_are_swept_and_living_writers_are_not(tmp_path: Path) -> None:
    incoming = tmp_path / ".incoming"
    incoming.mkdir()
    for name in ("orphan", "living", "young"):
        (incoming / name).write_bytes(b"half")
        if name != "young":
            os.utime(incoming / name, (1, 1))
    with (incoming / "living").open("rb") as living:
        fcntl.flock(living, fcntl.LOCK_EX)
        async with open_objects(f"folder://{tmp_path}") as objects:
            assert [entry.key async for entry in objects.list("")] == []
    assert sorted(left.name for left in incoming.iterdir()) == ["living", "young"]


@pytest.mark.parametrize("keep", [0, 10, -1, -40, -41])
async def test_a_cut_file_is_corrupt(tmp_path: Path, keep: int) -> None:
    async with open_objects(f"folder://{tmp_path}") as objects:
        await objects.put("a", b"x" * 100)
        path = tmp_path / "a"
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(Corrupt, match="'a'"):
            await read(objects, "a")


async def test_a_put_leaves_nothing_behind_but_its_object(tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        raise OSError("gone")

    async with open_objects(f"folder://{tmp_path}") as objects:
        await asyncio.gather(*(objects.put("a", b"%d" % number) for number in range(20)))
        with pytest.raises(OSError, match="gone"):
            await objects.put("b", broken())
    assert sorted(os.listdir(tmp_path)) == [".incoming", "a"]
    assert os.listdir(tmp_path / ".incoming") == []
