"""The manifest as it is written: its keys, their types and bounds. The checks across keys are in `checks`."""

from __future__ import annotations

import difflib
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from encephalon.library.brains.document import Document, Path

__all__ = ["Manifest", "ManifestPathway", "ManifestRegion", "ManifestTensor", "read_manifest", "schema", "suggestion"]

NAME = r"^[A-Za-z][A-Za-z0-9_-]{0,62}$"

Name = Annotated[str, Field(pattern=NAME)]
TensorName = Annotated[str, Field(min_length=1, max_length=256)]
Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
    "FP16", "BF16", "FP32", "FP64", "BYTES",
]  # fmt: skip
Milliseconds = Annotated[float, Field(allow_inf_nan=False, gt=0, le=3_600_000)]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=False)


class ManifestTensor(Part):
    """A named tensor; the first dimension is the batch, -1 means any size."""

    datatype: Datatype
    shape: Annotated[list[Annotated[int, Field(ge=-1, lt=2**31)]], Field(min_length=1, max_length=8)]
    optional: bool = Field(default=False, description="A request may leave it out.")
    description: Annotated[str, Field(max_length=1000)] = ""


class ManifestRegion(Part):
    """One node of the brain: a network of an area, or a model on any server of the Open Inference Protocol."""

    network: str | None = Field(
        default=None, pattern=r"^[a-z][a-z0-9_]*/[0-9]{3}$", description="<area>/<code>, for example vision/002."
    )
    address: str | None = Field(
        default=None,
        pattern=r"^(unix:.+|\[[0-9A-Fa-f:.]+\]:[0-9]{1,5}|[A-Za-z0-9._-]+:[0-9]{1,5})$",
        description="host:port or unix:/path of a server of the Open Inference Protocol, instead of a network.",
    )
    model: Annotated[str, Field(min_length=1, max_length=256)] | None = Field(
        default=None, description="The model's name on that server; the region's name when left out."
    )
    inputs: dict[TensorName, ManifestTensor] | None = Field(
        default=None,
        description="What the model takes; with an address or a graph. Read from the address when left out.",
    )
    outputs: dict[TensorName, ManifestTensor] | None = Field(
        default=None,
        description="What the model gives; with an address or a graph. Read from the address when left out.",
    )
    weights: Annotated[str, Field(min_length=1, max_length=4096)] | None = Field(
        default=None, description="A file, or object:sha256:<hex>; the network's packaged weights when left out."
    )
    arguments: dict[str, Any] = Field(default_factory=dict, description="What the network is constructed with.")
    replicas: Annotated[int, Field(ge=1, le=1000)] = 1
    max_batch: Annotated[int, Field(ge=1, le=65536)] | None = Field(
        default=None, description="Rows that go through the network together; 32 when left out, 1 with an address."
    )
    max_delay_ms: Annotated[float, Field(ge=0, le=10_000, allow_inf_nan=False)] = Field(
        default=2.0, description="Milliseconds that a message waits for others to share a batch with."
    )
    mailbox: Annotated[int, Field(ge=1, le=1_000_000)] = Field(default=256, description="Messages that may wait.")
    placement: Literal["colocated", "distributed"] | None = Field(
        default=None,
        description="In the coordinator's process or in one of its own; the command decides when left out.",
    )


class ManifestPathway(Part):
    """Where an activation goes. A region's input has exactly one pathway."""

    source: Annotated[str, Field(min_length=1, max_length=512)] = Field(
        alias="from", description="An input of the brain, or <region>.<output>."
    )
    target: Annotated[str, Field(min_length=1, max_length=512)] = Field(alias="to", description="<region>.<input>.")
    optional: bool = Field(
        default=False, description="The receiver carries on without it when its source is missing or late."
    )
    timeout_ms: Milliseconds | None = Field(
        default=None,
        description="How long the receiver waits for the source from its start; the request's time when left out.",
    )
    retries: Annotated[int, Field(ge=0, le=10)] | None = Field(
        default=None, description="How often the source is asked again when a replica is unavailable; 2 when left out."
    )
    hedge_ms: Milliseconds | None = Field(
        default=None,
        description="A second replica is asked when the first has not answered after this time; never when left out.",
    )


class Manifest(Part):
    """A brain: regions, and pathways from outputs to inputs."""

    brain: Name
    description: Annotated[str, Field(max_length=10_000)] = ""
    inputs: Annotated[dict[Name, ManifestTensor], Field(min_length=1, max_length=256)]
    regions: Annotated[dict[Name, ManifestRegion], Field(min_length=1, max_length=256)]
    pathways: Annotated[list[ManifestPathway], Field(min_length=1, max_length=4096)]
    outputs: Annotated[dict[TensorName, str], Field(min_length=1, max_length=256)]


def schema() -> dict[str, Any]:
    """The JSON schema of a manifest, for editors and for people."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Manifest.model_json_schema(by_alias=True),
        "title": "Encephalon brain manifest",
    }


def read_manifest(document: Document) -> Manifest:
    """InvalidManifest, with line and key, for an unknown or missing key and for a wrong value."""
    if not isinstance(document.value, dict):
        raise document.error((), "a manifest is a mapping that starts with 'brain: NAME'")
    try:
        return Manifest.model_validate(document.value)
    except ValidationError as error:
        problems = sorted(error.errors(include_url=False), key=partial(order, document))
        first, more = problems[0], len(problems) - 1
        rest = f" ({more} more problem{'s' if more > 1 else ''} in this manifest)" if more else ""
        raise document.error(position(first), sentence(first, document.value) + rest) from None


def order(document: Document, problem: Any) -> tuple[int, bool]:
    """As they stand in the file; a misspelt key before the missing one that it was meant to be."""
    return document.line(position(problem)), problem["type"] != "extra_forbidden"


def position(problem: Any) -> Path:
    return tuple(part for part in problem["loc"] if part != "[key]")


def sentence(problem: Any, value: Any) -> str:
    path = position(problem)
    kind, where = problem["type"], place(path, value)
    if kind == "extra_forbidden":
        known = keys_at(path[:-1])
        return f"unknown key '{path[-1]}'{where}; {suggestion(str(path[-1]), known)}"
    if kind == "missing":
        return f"'{path[-1]}' is missing{where}"
    if "[key]" in problem["loc"]:
        return f"'{path[-1]}' is no valid name; it needs a letter first, then at most 62 letters, digits, '_' and '-'"
    got, what = repr(problem["input"]), problem["msg"]
    short = got if len(got) <= 60 else got[:57] + "..."
    return f"'{path[-1]}'{where}: {what[:1].lower()}{what[1:]}, got {short}"


def place(path: Path, value: Any) -> str:
    """The region, pathway or tensor that a path lies in, in words."""
    if len(path) < 2 or path[0] not in ("regions", "pathways", "inputs", "outputs"):
        return ""
    if path[0] == "pathways" and isinstance(path[1], int):
        item = value["pathways"][path[1]]
        ends = item if isinstance(item, dict) else {}
        return f" of pathway {ends.get('from', '?')} -> {ends.get('to', '?')}"
    return f" of {str(path[0])[:-1]} '{path[1]}'" if len(path) > 2 else ""


def keys_at(path: Path) -> list[str]:
    model: type[BaseModel] = Manifest
    if path and path[0] == "regions":
        model = ManifestTensor if len(path) > 2 else ManifestRegion
    elif path and path[0] == "pathways":
        model = ManifestPathway
    elif path:
        model = ManifestTensor
    return [field.alias or name for name, field in model.model_fields.items()]


def suggestion(got: str, known: list[str]) -> str:
    """The end of a sentence about an unknown word: the nearest known one, or all of them."""
    near = difflib.get_close_matches(got, known, n=1, cutoff=0.6)
    if near:
        return f"did you mean '{near[0]}'?"
    return f"known are {', '.join(known)}" if known else "none is known"
