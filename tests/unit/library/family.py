"""A small library: a data set with an index, a scene, two networks of a run, and a brain with one of them pinned."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.library.library import Library
from encephalon.state import open_key_value, open_objects

__all__ = ["WEIGHTS", "add_family", "embedded_library"]

WEIGHTS = b"weights of the network that sees " * 20


@contextlib.asynccontextmanager
async def embedded_library(folder: Path) -> AsyncIterator[Library]:
    async with (
        open_key_value(f"sqlite://{folder}/store.db") as key_value,
        open_objects(f"folder://{folder}/objects") as objects,
    ):
        yield Library(key_value, objects)


async def add_family(library: Library, weights: bytes = WEIGHTS) -> dict[str, pb.Record]:
    """By name: digits-data, digits-scene, digits-search (a run), seeing, hearing and digits (a brain)."""
    made: dict[str, pb.Record] = {}
    async with library.writing("add") as writer:
        shards = [
            pb.Shard(object=await writer.put_bytes(f"shard {number}".encode() * 9), samples=5) for number in range(3)
        ]
        index = await writer.put_bytes(pb.ShardIndex(shards=shards[1:]).SerializeToString(deterministic=True))
        made["digits-data"] = await writer.commit(_data_set(shards[0], index))
        made["digits-scene"] = await writer.commit(_scene(made["digits-data"]))
        curve = await writer.put_bytes(b"epoch,loss\n1,0.5\n")
        made["digits-search"] = await writer.commit(_run(curve, made["digits-data"], made["digits-scene"]))
        seen = await writer.put_bytes(weights)
        made["seeing"] = await writer.commit(_network("seeing", seen, made["digits-search"], made["digits-data"]))
        made["hearing"] = await writer.commit(_network("hearing", None, made["digits-search"]))
        made["digits"] = await writer.commit(_brain(seen, made["seeing"], made["hearing"], made["digits-scene"]))
    return made


def _draft(kind: pb.Kind.ValueType, name: str, *parents: tuple[pb.Record, str]) -> pb.Record:
    draft = pb.Record(id=pb.Reference(kind=kind, name=name), description=f"the {name} of the tests", licence="CC0-1.0")
    draft.tags["team"] = "tests"
    for parent, role in parents:
        draft.parents.add(role=role).record.CopyFrom(parent.id)
    return draft


def _data_set(shard: pb.Shard, index: pb.Object) -> pb.Record:
    draft = _draft(pb.KIND_DATA_SET, "digits-data")
    draft.data_set.modalities.add(name="image", type="image", datatype="UINT8", shape=[28, 28])
    draft.data_set.splits.add(name="test", samples=5, shards=[shard])
    draft.data_set.splits.add(name="train", samples=10, index=index)
    return draft


def _scene(data: pb.Record) -> pb.Record:
    draft = _draft(pb.KIND_SCENE, "digits-scene", (data, "data_set"))
    draft.scene.document = json.dumps({"goal": "name the digit"})
    return draft


def _run(curve: pb.Object, data: pb.Record, scene: pb.Record) -> pb.Record:
    draft = _draft(pb.KIND_RUN, "digits-search", (data, "data_set"), (scene, "scene"))
    draft.run.state = pb.Run.STATE_SUCCEEDED
    draft.run.artefacts["curves/loss.csv"].CopyFrom(curve)
    return draft


def _network(name: str, weights: pb.Object | None, run: pb.Record, data: pb.Record | None = None) -> pb.Record:
    draft = _draft(pb.KIND_NETWORK, name, (run, "run"), *([(data, "data_set")] if data is not None else []))
    draft.network.area, draft.network.code = "vision" if weights is not None else "diagnostics", "001"
    draft.metrics["accuracy.test"] = 0.75
    if weights is not None:
        draft.network.weights.CopyFrom(weights)
        draft.network.format = "safetensors"
    return draft


def _brain(weights: pb.Object, seeing: pb.Record, hearing: pb.Record, scene: pb.Record) -> pb.Record:
    draft = _draft(pb.KIND_BRAIN, "digits", (scene, "scene"))
    draft.brain.manifest = json.dumps({"regions": {"visual": {"weights": f"object:sha256:{weights.sha256}"}}})
    draft.brain.networks["visual"].CopyFrom(seeing.id)
    draft.brain.networks["auditory"].CopyFrom(hearing.id)
    return draft
