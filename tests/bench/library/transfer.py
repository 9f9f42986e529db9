"""A large file into the object store and out of it, against the bare client of MinIO.

    python -m tests.bench.library.transfer [--mib 256] [--rounds 3]

Both talk to one JuiceFS gateway (MinIO's server code) on this machine, by turns: `fput_object` and `fget_object` there,
`put_file` and `fetch` of a new library here, which take the SHA-256 of all before and while it moves. Memory is the
highest resident size above that before the first byte, each measured in a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from minio import Minio
from urllib3 import PoolManager

from encephalon.library.open import open_library
from encephalon.state import open_objects
from tests.servers import juicefs_gateway

MIB = 1024 * 1024
BAR_RATIO, BAR_MIB = 0.8, 64
SIDES = ("minio client", "encephalon")


def main(arguments: list[str]) -> int:
    """Returns 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.side:
        print(json.dumps(asyncio.run(one_turn(chosen.side, chosen.url, chosen.folder))))
        return 0
    rounds = asyncio.run(measure(chosen.mib, chosen.rounds))
    lines, held = report(rounds, chosen.mib)
    print("\n".join(lines))
    return 0 if held else 1


async def measure(mib: int, rounds: int) -> list[dict[str, dict[str, float]]]:
    with tempfile.TemporaryDirectory(prefix="encephalon-bench-") as name:
        folder = Path(name)
        write_file(folder / "in", mib)
        async with juicefs_gateway() as gateway:
            async with open_objects(gateway.url):  # creates the bucket
                pass
            # The first turn of each finds everything cold.
            for side in SIDES:
                await turn(side, gateway.url, folder)
            return [{side: await turn(side, gateway.url, folder) for side in order(number)} for number in range(rounds)]


def order(number: int) -> tuple[str, ...]:
    return SIDES if number % 2 == 0 else SIDES[::-1]


def write_file(path: Path, mib: int) -> None:
    with path.open("wb") as file:
        for _ in range(mib):
            file.write(os.urandom(MIB))
        file.flush()
        os.fsync(file.fileno())


async def turn(side: str, url: str, folder: Path) -> dict[str, float]:
    command = ["-m", "tests.bench.library.transfer", "--side", side, "--url", url, "--folder", str(folder)]
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"a turn of {side} ended with {process.returncode}")
    return json.loads(output)  # type: ignore[no-any-return]


async def one_turn(side: str, url: str, folder: Path) -> dict[str, float]:
    source, target = folder / "in", folder / "out"
    target.unlink(missing_ok=True)
    # What the turn before has left to be written to disk must not be paid for by this one.
    await asyncio.to_thread(os.sync)
    sha256 = await asyncio.to_thread(digest, source)
    if side == SIDES[0]:
        turned = await asyncio.to_thread(bare, url, source, target)
    else:
        turned = await ours(url, source, target)
    assert await asyncio.to_thread(digest, target) == sha256
    return turned


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def bare(url: str, source: Path, target: Path) -> dict[str, float]:
    parts = urlsplit(url)
    with PoolManager() as pool:
        address, secret = f"{parts.hostname}:{parts.port}", (parts.username or "", parts.password or "")
        client, bucket = Minio(address, *secret, secure=False, http_client=pool), parts.path.strip("/")
        client.bucket_exists(bucket)
        with Memory() as memory:
            put = seconds(lambda: client.fput_object(bucket, "bare", str(source)))
            os.sync()
            got = seconds(lambda: client.fget_object(bucket, "bare", str(target)))
    return {"put": put, "get": got, "memory": memory.mib}


async def ours(url: str, source: Path, target: Path) -> dict[str, float]:
    """Through the library as a user calls it; one that is new, so that it finds nothing to be there already."""
    with tempfile.TemporaryDirectory(prefix="encephalon-bench-", dir=target.parent) as folder:
        async with open_library(
            f"sqlite://{folder}/state.db", url, namespace="bench", cache_dir=Path(folder) / "cache", seed=False
        ) as library:
            with Memory() as memory:
                start = time.perf_counter()
                async with library.writing("put") as writer:
                    stored = await writer.put_file(source)
                put = time.perf_counter() - start
                await asyncio.to_thread(os.sync)
                start = time.perf_counter()
                fetched = await library.fetch(stored)
                got = time.perf_counter() - start
            fetched.rename(target)
    return {"put": put, "get": got, "memory": memory.mib}


def seconds(step: Callable[[], Any]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


class Memory:
    """The highest resident size of this process while the block lasts, above that at its beginning."""

    def __enter__(self) -> Memory:
        self._process = psutil.Process()
        self._before = self._highest = self._process.memory_info().rss
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def _look(self) -> None:
        while not self._over.wait(0.01):
            self._highest = max(self._highest, self._process.memory_info().rss)

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def mib(self) -> float:
        return (self._highest - self._before) / MIB


def report(rounds: list[dict[str, dict[str, float]]], mib: int) -> tuple[list[str], bool]:
    """A table, and whether the bars hold."""
    median = {
        side: {what: statistics.median(turned[side][what] for turned in rounds) for what in ("put", "get", "memory")}
        for side in SIDES
    }
    bare, own = (median[side] for side in SIDES)
    ratios = {what: bare[what] / own[what] for what in ("put", "get")}
    lines = [
        f"{mib} MiB, JuiceFS gateway, medians of {len(rounds)} rounds",
        "",
        f"| | {SIDES[0]} | {SIDES[1]} | ratio | bar |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {what} | {mib / bare[what]:.0f} MiB/s | {mib / own[what]:.0f} MiB/s | {ratio:.2f} | >= {BAR_RATIO} |"
        for what, ratio in ratios.items()
    ]
    lines.append(f"| memory above idle | {bare['memory']:.0f} MiB | {own['memory']:.0f} MiB | | <= {BAR_MIB} MiB |")
    return lines, min(ratios.values()) >= BAR_RATIO and own["memory"] <= BAR_MIB


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
