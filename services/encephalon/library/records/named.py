"""Which objects a record names: what must not be missing while the record is there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final

from encephalon.api.library.v1 import library_pb2 as pb

__all__ = ["digests_of", "indexes_of", "objects_of", "pinned"]

_PIN: Final = re.compile(r"object:sha256:([0-9a-f]{64})")


def objects_of(record: pb.Record) -> Iterator[pb.Object]:
    """The objects that stand in the record with their sizes; an index's shards stand in the index. One may come
    twice.
    """
    match record.WhichOneof("body"):
        case "network":
            if record.network.HasField("weights"):
                yield record.network.weights
        case "data_set":
            for split in record.data_set.splits:
                yield from (shard.object for shard in split.shards)
                if split.HasField("index"):
                    yield split.index
        case "run":
            yield from record.run.artefacts.values()


def indexes_of(record: pb.Record) -> Iterator[pb.Object]:
    """Those of the objects that are a `ShardIndex` and name further ones."""
    return (split.index for split in record.data_set.splits if split.HasField("index"))


def pinned(record: pb.Record) -> set[str]:
    """The digests that a brain's manifest names; their sizes stand in the networks' records."""
    manifest = record.brain.manifest
    if "\\u" in manifest:
        # Some of its letters may be written as numbers.
        manifest = json.dumps(json.loads(manifest))
    return set(_PIN.findall(manifest))


def digests_of(record: pb.Record) -> set[str]:
    """Of all objects that the record names itself; those in an index are not among them."""
    return {found.sha256 for found in objects_of(record)} | pinned(record)
