"""The instances of a brain as the store announces them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from google.protobuf.message import DecodeError

from encephalon.api.discovery.v1.instance_pb2 import Instance
from encephalon.state import EventKind, KeyValue

__all__ = ["watch_instances"]


async def watch_instances(store: KeyValue, namespace: str, brain: str) -> AsyncGenerator[Sequence[Instance], None]:
    known: dict[str, Instance] = {}
    listed = False
    async with aclosing(store.watch(f"/encephalon/{namespace}/instances/{brain}/")) as events:  # type: ignore[type-var]
        async for event in events:
            if event.kind is EventKind.PUT:
                try:
                    known[event.key] = Instance.FromString(event.value)
                except DecodeError:
                    continue
            elif event.kind is EventKind.DELETE:
                known.pop(event.key, None)
            else:
                listed = True
            if listed:
                yield list(known.values())
