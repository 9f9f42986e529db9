"""Summaries as they would lie in a library, made up, and written into a store without the records behind them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.library.store.keys import Keys
from encephalon.state import Change, KeyValue

__all__ = ["SomeLibrary", "fill", "networks"]

AREAS = ("vision", "hearing", "association", "detection", "language")
_BATCH = 100  # at most so many changes are one commit


@dataclass
class SomeLibrary:
    """As much of a library as a query needs."""

    key_value: KeyValue
    namespace: str = "default"


def networks(count: int, *, seed: int = 7) -> Iterator[pb.Summary]:
    """Networks of five areas, described at the usual length, each with a random accuracy."""
    chance = random.Random(seed)
    for number in range(count):
        area = AREAS[number % len(AREAS)]
        summary = pb.Summary(
            id=pb.Reference(kind=pb.KIND_NETWORK, name=f"{area}-{number:05d}", version=1),
            created_by="somebody@somewhere",
            description=f"Network {number} of the {area} area, trained on AV-MNIST; the one of trial {number // 10}.",
            tags={"team": ("blue", "red", "green")[number % 3], "stage": "candidate"},
            metrics={"accuracy.test": chance.random(), "loss.test": chance.random() * 3},
            area=area,
            code=f"{number % 4 + 1:03d}",
            modalities=["image"],
            data_sets=["avmnist"],
            size=chance.randrange(10_000, 100_000_000),
        )
        summary.created_time.FromSeconds(1_700_000_000 + chance.randrange(10_000_000))
        yield summary


async def fill(store: KeyValue, summaries: Iterable[pb.Summary], namespace: str = "default") -> None:
    keys = Keys(namespace)
    changes = [Change(keys.summary(summary.id), summary.SerializeToString()) for summary in summaries]
    for batch in _batches(changes):
        await store.commit(batch)


def _batches(changes: Sequence[Change]) -> Iterator[Sequence[Change]]:
    for start in range(0, len(changes), _BATCH):
        yield changes[start : start + _BATCH]
