"""The checks that are particular to a kind of record."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import InvalidInput
from encephalon.core.wire import DATATYPES
from encephalon.library.records.bounds import (
    MAX_INDEX_BYTES,
    check_code,
    check_figures,
    check_json,
    check_line,
    check_object,
    check_text,
    check_unique,
)
from encephalon.library.records.kinds import name_of_kind
from encephalon.library.records.reference import check_name

__all__ = ["FORMATS", "MAX_STATISTICS", "MODALITIES", "check_body", "check_time"]

FORMATS: Final = ("safetensors", "onnx")
MODALITIES: Final = ("image", "audio", "label", "text", "tensor")
MAX_RANK: Final = 8
MAX_TENSORS: Final = 200
MAX_STATISTICS: Final = 2_000
# As in the names of files: no way out of a folder.
_FILE: Final = re.compile(r"[^/\\\x00-\x1f\x7f]{1,200}(/[^/\\\x00-\x1f\x7f]{1,200}){0,7}")


def check_body(record: pb.Record) -> None:
    """InvalidInput with the field that is wrong; of which kind the body is has been checked before."""
    body = record.WhichOneof("body")
    if body is not None:
        _CHECKS[body](getattr(record, body))


def check_time(field: str, time: Timestamp) -> None:
    """InvalidInput unless it is a time of the years 1 to 9999."""
    try:
        time.ToDatetime()
    except (ValueError, OverflowError):
        raise InvalidInput(f"{field} is no time of the years 1 to 9999", field=field) from None


def _area(area: pb.Area) -> None:
    if area.HasField("contract"):
        _contract(area.contract)
    if len(area.networks) > 1_000:
        raise InvalidInput(f"the area has {len(area.networks)} networks, at most 1000 are allowed", field="networks")
    for code, title in area.networks.items():
        check_code("the code of a network", code)
        check_line(f"the title of network {code}", title)
    check_line("the package", area.package)


def _network(network: pb.Network) -> None:
    check_name(network.area)
    check_code("the code of the network", network.code)
    check_line("the architecture", network.architecture)
    check_json("the arguments", network.arguments)
    if network.HasField("weights"):
        check_object("the weights", network.weights)
        if network.format not in FORMATS:
            raise InvalidInput(
                f"the weights' format is '{network.format[:40]}', expected {' or '.join(FORMATS)}", field="format"
            )
    elif network.format:
        raise InvalidInput(f"there is a format '{network.format[:40]}' and no weights; give both", field="format")
    if network.HasField("contract"):
        _contract(network.contract)


def _data_set(found: pb.DataSet) -> None:
    if not found.modalities:
        raise InvalidInput("the data set has no modalities; name its columns", field="modalities")
    check_unique("the modality", [modality.name for modality in found.modalities])
    check_unique("the split", [split.name for split in found.splits])
    for modality in found.modalities:
        _modality(modality)
    for split in found.splits:
        _split(split)
    check_line("the recipe", found.recipe)
    check_json("the parameters", found.parameters)
    check_figures("statistics", found.statistics, MAX_STATISTICS)


def _modality(modality: pb.Modality) -> None:
    check_line("the name of a modality", modality.name, most=100, empty=False)
    if modality.type not in MODALITIES:
        raise InvalidInput(
            f"the modality '{modality.name}' is of the type '{modality.type[:40]}', expected {', '.join(MODALITIES)}",
            field="modalities",
        )
    _tensor(modality.name, modality.datatype, modality.shape)
    check_unique(f"the class of '{modality.name}'", modality.classes)
    for name in modality.classes:
        check_line(f"a class of '{modality.name}'", name, most=200)


def _split(split: pb.Split) -> None:
    check_line("the name of a split", split.name, most=100, empty=False)
    if split.HasField("index"):
        if split.shards:
            raise InvalidInput(f"the split '{split.name}' has shards and an index; give one of them", field="splits")
        check_object(f"the index of '{split.name}'", split.index, MAX_INDEX_BYTES)
        return
    for shard in split.shards:
        check_object(f"a shard of '{split.name}'", shard.object)
    held = sum(shard.samples for shard in split.shards)
    if held != split.samples:
        raise InvalidInput(
            f"the split '{split.name}' has {split.samples} samples and its shards hold {held}; they must agree",
            field="splits",
        )


def _scene(scene: pb.Scene) -> None:
    check_json("the scene's document", scene.document, empty=False)
    check_unique("the modality", scene.modalities)
    for modality in scene.modalities:
        check_line("a modality", modality, most=100, empty=False)
    check_text("the goal", scene.goal, 20_000)


def _brain(brain: pb.Brain) -> None:
    check_json("the brain's manifest", brain.manifest, empty=False)
    if brain.HasField("contract"):
        _contract(brain.contract)
    for region, network in brain.networks.items():
        check_line("the name of a region", region, most=100, empty=False)
        if name_of_kind(network.kind) != "network" or not network.version:
            raise InvalidInput(f"the region '{region}' names no version of a network", field="networks")
        check_name(network.name)


def _run(run: pb.Run) -> None:
    if run.state not in (pb.Run.STATE_SUCCEEDED, pb.Run.STATE_FAILED, pb.Run.STATE_STOPPED):
        raise InvalidInput(f"the run's state is {run.state}, expected succeeded, failed or stopped", field="state")
    check_time("started_time", run.started_time)
    check_time("ended_time", run.ended_time)
    if run.HasField("ended_time") and run.ended_time.ToNanoseconds() < run.started_time.ToNanoseconds():
        raise InvalidInput("the run ended before it started; check its times", field="ended_time")
    check_json("the settings", run.settings)
    for name, artefact in run.artefacts.items():
        if not _FILE.fullmatch(name) or any(part in (".", "..") for part in name.split("/")):
            raise InvalidInput(
                f"the artefact '{name[:100]!s}' is no file name; give one relative to the run, without '..'",
                field="artefacts",
            )
        check_object(f"the artefact '{name}'", artefact)


def _contract(contract: pb.Contract) -> None:
    for what, specs in (("input", contract.inputs), ("output", contract.outputs)):
        if len(specs) > MAX_TENSORS:
            raise InvalidInput(f"there are {len(specs)} {what}s, at most {MAX_TENSORS} are allowed", field="contract")
        check_unique(f"the {what}", [spec.name for spec in specs])
        for spec in specs:
            check_line(f"the name of an {what}", spec.name, most=200, empty=False)
            _tensor(spec.name, spec.datatype, spec.shape)
            check_text(f"the description of '{spec.name}'", spec.description, 2_000)


def _tensor(name: str, datatype: str, shape: Any) -> None:
    if datatype not in DATATYPES:
        raise InvalidInput(
            f"'{name}' has the datatype '{datatype[:40]}', expected one of {', '.join(DATATYPES)}", field="datatype"
        )
    if len(shape) > MAX_RANK or any(size < -1 for size in shape):
        raise InvalidInput(
            f"'{name}' has the shape {list(shape)[:12]}, expected at most {MAX_RANK} sizes of 0 or more, or -1 for any",
            field="shape",
        )


_CHECKS: Final[Mapping[str, Callable[[Any], None]]] = {
    "area": _area,
    "network": _network,
    "data_set": _data_set,
    "scene": _scene,
    "brain": _brain,
    "run": _run,
}
