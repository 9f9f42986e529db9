"""Where the regions of a worker are: told by discovery in one thread, asked for in another."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import aclosing, asynccontextmanager
from typing import Final

from encephalon.api.discovery.v1.instance_pb2 import Instance
from encephalon.core.errors import EncephalonError, Unavailable
from encephalon.core.tasks import background
from encephalon.discovery import watch
from encephalon.state import KeyValue
from encephalon.training.runs import INSTANCES

__all__ = ["Places", "following_regions"]

LOG = logging.getLogger(__name__)
RETRY_S: Final = 0.2


class Places:
    """Of the regions of one worker. Where a region has two, one was killed a moment ago: the newer one is taken, and
    one that has failed only when there is no other."""

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._changed = threading.Condition()
        self._known: dict[str, dict[str, Instance]] = {}
        """By region and instance, in the order in which they were seen."""
        self._failed: set[str] = set()

    def announced(self, instances: Iterable[Instance]) -> None:
        """These are there now, of all the run."""
        prefix = f"{self._worker}."
        found: dict[str, dict[str, Instance]] = {}
        for each in instances:
            if each.region.startswith(prefix) and each.state != Instance.STATE_DRAINING:
                found.setdefault(each.region.removeprefix(prefix), {})[each.id] = each
        with self._changed:
            for region, known in found.items():
                before = [id for id in self._known.get(region, {}) if id in known]
                found[region] = {id: known[id] for id in [*before, *(id for id in known if id not in before)]}
            self._known = found
            self._failed &= {id for known in found.values() for id in known}
            self._changed.notify_all()

    def failed(self, instance: str) -> None:
        with self._changed:
            self._failed.add(instance)

    def of(self, regions: Collection[str], within_s: float) -> dict[str, Instance]:
        """One for each region. Unavailable, naming a region, when it is not announced within the time."""
        with self._changed:
            self._changed.wait_for(lambda: all(region in self._known for region in regions), within_s)
            missing = [region for region in regions if region not in self._known]
            if missing:
                raise Unavailable(
                    f"region '{missing[0]}' of {self._worker} is not there; start it with python -m "
                    f"encephalon.region.learning --worker {self._worker} --region {missing[0]}",
                    region=missing[0],
                )
            return {region: self._newest(region) for region in regions}

    def _newest(self, region: str) -> Instance:
        known = list(self._known[region].values())
        return next((each for each in reversed(known) if each.id not in self._failed), known[-1])


@asynccontextmanager
async def following_regions(store: KeyValue, namespace: str, run: str, worker: str) -> AsyncIterator[Places]:
    """Followed while the block lasts, also when the store is away for a while."""
    places = Places(worker)
    async with background(f"follow the regions of {worker}", _follow(places, store, namespace, run)):
        yield places


async def _follow(places: Places, store: KeyValue, namespace: str, run: str) -> None:
    while True:
        try:
            async with aclosing(watch(store, namespace, INSTANCES + run)) as changes:
                async for instances in changes:
                    places.announced(instances)
        except EncephalonError as error:
            LOG.warning("the regions cannot be looked for yet", extra={"cause": error.message})
        await asyncio.sleep(RETRY_S)
