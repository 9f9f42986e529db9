"""Ten thousand networks: how long the first page takes, and how much memory a list of all.

    python -m tests.bench.library.listing [--networks 10000]

Prints a Markdown table. Each store is asked by a process of its own, which has done nothing else before.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

from encephalon.library.query import Query, ls, page
from encephalon.state import open_key_value
from tests.servers import etcd_server
from tests.unit.library.summaries import SomeLibrary, fill, networks

ROUNDS: Final = 30
LIMIT_MS: Final[Mapping[str, float]] = {"SQLite": 100.0, "etcd": 200.0}
ROOT: Final = Path(__file__).parents[3]

QUERIES: Final[Mapping[str, Query]] = {
    "one area, accuracy ≥ 0.5, best first": Query(
        kind="network", area="vision", metrics=[("accuracy.test", ">=", 0.5)], sort="-metric:accuracy.test"
    ),
    "accuracy ≥ 0.5, newest first": Query(kind="network", metrics=[("accuracy.test", ">=", 0.5)], sort="-created"),
    "two words of text, by name": Query(text="vision trial", sort="name"),
    "all, as they lie": Query(),
}

Figures = Mapping[str, tuple[float, float]]


async def measure(url: str) -> dict[str, object]:
    """Milliseconds of the first call and of later ones (median), by query; of a list of all its time and what it adds
    to the memory of the process, MiB.
    """
    pages: dict[str, tuple[float, float]] = {}
    for title, query in QUERIES.items():
        # A connection of its own: the first call is one that nothing was prepared for.
        async with open_key_value(url) as store:
            times = [await _page_ms(SomeLibrary(store), query) for _ in range(ROUNDS + 1)]
        pages[title] = times[0], statistics.median(times[1:])
    async with open_key_value(url) as store:
        before = _start_of_peak_mib()
        began, count = time.perf_counter(), 0
        async with contextlib.aclosing(ls(SomeLibrary(store))) as found:
            async for _ in found:
                count += 1
        took = time.perf_counter() - began
        return {"pages": pages, "listed": count, "seconds": took, "mib": _status_mib("VmHWM") - before}


async def _page_ms(library: SomeLibrary, query: Query) -> float:
    began = time.perf_counter()
    found = await page(library, query)
    took = time.perf_counter() - began
    assert found.items
    return took * 1e3


def _start_of_peak_mib() -> float:
    Path("/proc/self/clear_refs").write_text("5")
    return _status_mib("VmRSS")


def _status_mib(field: str) -> float:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


@contextlib.asynccontextmanager
async def stores() -> AsyncIterator[Mapping[str, str]]:
    with tempfile.TemporaryDirectory() as folder:
        async with etcd_server() as etcd:
            yield {"SQLite": f"sqlite://{folder}/store.db", "etcd": etcd.url}


async def asked(url: str) -> dict[str, object]:
    """What `measure` finds in a new process."""
    command = [sys.executable, "-m", "tests.bench.library.listing", "--measure", url]
    done = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, check=True, capture_output=True, text=True)
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


async def main(count: int) -> bool:
    """Whether every first page came within its limit."""
    print(f"{count:,} networks; {os.cpu_count()} cores, Python {sys.version.split()[0]}; medians of {ROUNDS}\n")
    print("| | " + " | ".join(f"{name}: first, ms | later, ms" for name in LIMIT_MS) + " |")
    print("|---" * (1 + 2 * len(LIMIT_MS)) + "|")
    found: dict[str, dict[str, object]] = {}
    async with stores() as urls:
        for name, url in urls.items():
            async with open_key_value(url) as store:
                await fill(store, networks(count))
            found[name] = await asked(url)
    pages: dict[str, Figures] = {name: one["pages"] for name, one in found.items()}  # type: ignore[misc]
    for title in QUERIES:
        cells = [f"{figure:.1f}" for name in found for figure in pages[name][title]]
        print(f"| {title} | {' | '.join(cells)} |")
    listed = [f"{one['listed']:,} in {one['seconds']:.2f} s | {one['mib']:+.1f} MiB" for one in found.values()]
    print(f"| list of all | {' | '.join(listed)} |")
    late = [
        f"{name}, {title}: {first:.1f} ms"
        for name, limit in LIMIT_MS.items()
        for title, (first, later) in pages[name].items()
        if max(first, later) > limit
    ]
    print("\nLate: " + "; ".join(late) if late else "\nNone took longer than 100 ms on SQLite, 200 ms on etcd.")
    return not late


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=10_000)
    parser.add_argument("--measure", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(asyncio.run(measure(options.measure))))
    else:
        sys.exit(0 if asyncio.run(main(options.networks)) else 1)
