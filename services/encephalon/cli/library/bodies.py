"""What is particular to a kind of record, as tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping

from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import RenderableType
from rich.json import JSON

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.cli.library import quantities
from encephalon.cli.library.tables import facts, titled
from encephalon.library.records import Reference

__all__ = ["parts"]

SHARDS_SHOWN = 12


def parts(record: pb.Record) -> list[RenderableType]:
    """Tables of the record's body, in the order in which they are read."""
    body = record.WhichOneof("body")
    return list(PARTS[body](record)) if body is not None else []


def area(record: pb.Record) -> Iterator[RenderableType]:
    if record.area.package:
        yield facts({"package": record.area.package})
    yield titled("Networks", ("code", "architecture"), sorted(record.area.networks.items()))
    yield from contract(record.area.contract)


def network(record: pb.Record) -> Iterator[RenderableType]:
    found = record.network
    yield facts(
        {
            "network": f"{found.area}/{found.code}",
            "architecture": found.architecture,
            "arguments": plain(found.arguments),
            "weights": f"{quantities.size(found.weights.size)} of {found.format}" if found.HasField("weights") else "",
            "sha256": found.weights.sha256,
        }
    )
    yield from contract(found.contract)


def plain(text: str) -> str:
    """A JSON object as `name=value` words."""
    try:
        values = json.loads(text or "{}")
    except ValueError:
        return text
    return (
        ", ".join(f"{name}={json.dumps(value)}" for name, value in values.items()) if isinstance(values, dict) else text
    )


def data_set(record: pb.Record) -> Iterator[RenderableType]:
    found = record.data_set
    yield facts({"recipe": found.recipe, "parameters": plain(found.parameters)})
    rows = [(item.name, item.type, shaped(item.datatype, item.shape), particular(item)) for item in found.modalities]
    yield titled("Modalities", ("name", "type", "of a sample", ""), rows)
    splits = [
        (
            item.name,
            str(item.samples),
            str(len(item.shards)) if item.shards else "in an index",
            shards_size(item.shards),
        )
        for item in found.splits
    ]
    yield titled("Splits", ("name", "samples", "shards", "size"), splits, right=("samples", "shards", "size"))
    if found.statistics:
        figures = [(name, quantities.figure(value)) for name, value in sorted(found.statistics.items())]
        yield titled("Statistics", ("name", "figure"), figures, right=("figure",))


def particular(modality: pb.Modality) -> str:
    if modality.sample_rate:
        return f"{modality.sample_rate} Hz"
    classes = list(modality.classes)
    shown = ", ".join(classes[:SHARDS_SHOWN]) + (", ..." if len(classes) > SHARDS_SHOWN else "")
    return f"{len(classes)} classes: {shown}" if classes else ""


def shards_size(shards: Iterable[pb.Shard]) -> str:
    total = sum(shard.object.size for shard in shards)
    return quantities.size(total) if total else ""


def scene(record: pb.Record) -> Iterator[RenderableType]:
    yield facts({"goal": record.scene.goal, "modalities": ", ".join(record.scene.modalities)})
    yield JSON(record.scene.document or "{}")


def brain(record: pb.Record) -> Iterator[RenderableType]:
    rows = [(region, str(Reference.of(network))) for region, network in sorted(record.brain.networks.items())]
    if rows:
        yield titled("Regions", ("region", "network"), rows)
    yield from contract(record.brain.contract)


def run(record: pb.Record) -> Iterator[RenderableType]:
    found = record.run
    state = pb.Run.State.Name(found.state).removeprefix("STATE_").lower()
    yield facts({"state": state, "took": took(found.started_time, found.ended_time), "settings": plain(found.settings)})
    rows = [(name, quantities.size(item.size), item.sha256[:12]) for name, item in sorted(found.artefacts.items())]
    if rows:
        yield titled("Artefacts", ("file", "size", "sha256"), rows, right=("size",))


def took(started: Timestamp, ended: Timestamp) -> str:
    if not started.seconds or not ended.seconds:
        return ""
    return str(quantities.moment(ended) - quantities.moment(started)).partition(".")[0]


def contract(found: pb.Contract) -> Iterator[RenderableType]:
    rows = [(way, item) for way, items in (("in", found.inputs), ("out", found.outputs)) for item in items]
    if rows:
        cells = [(way, named(item), shaped(item.datatype, item.shape), item.description) for way, item in rows]
        yield titled("Contract", ("", "tensor", "type", "description"), cells)


def named(spec: pb.TensorSpec) -> str:
    return f"{spec.name} (optional)" if spec.optional else spec.name


def shaped(datatype: str, shape: Iterable[int]) -> str:
    """`UINT8 [?, 28, 28]`: a question mark is any size."""
    return f"{datatype} [{', '.join('?' if size < 0 else str(size) for size in shape)}]"


PARTS: Mapping[str, Callable[[pb.Record], Iterator[RenderableType]]] = {
    "area": area,
    "network": network,
    "data_set": data_set,
    "scene": scene,
    "brain": brain,
    "run": run,
}
