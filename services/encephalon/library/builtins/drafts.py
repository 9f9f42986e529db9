"""The built-in areas and networks as records that are not written yet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf.json_format import ParseDict

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.library.area import Area
from encephalon.library.brains.pinning import contract_message
from encephalon.library.builtins.files import NETWORKS, WEIGHTS

__all__ = ["LICENCE", "PROJECT", "TAGS", "area_draft", "file_of", "network_draft", "networks", "sample_fields"]

LICENCE = "Apache-2.0"
PROJECT = "ships with encephalon"
TRAINED_ON = "the training split of AV-MNIST (rank 3, -6 dB, seed 0), by encephalon.areas.pretrain"
TAGS = {"built-in": "yes"}


def networks() -> list[dict[str, Any]]:
    """What is known of each of the packaged weights; parents come before their children."""
    found: list[dict[str, Any]] = json.loads(NETWORKS.read_text("utf-8"))
    return found


def file_of(network: Mapping[str, Any]) -> Path:
    return WEIGHTS / str(network["file"])


def area_draft(area: Area) -> pb.Record:
    body = pb.Area(networks=dict(area.networks), package=area.package)
    if area.contract is not None:
        body.contract.CopyFrom(contract_message(area.contract))
    return pb.Record(
        id=pb.Reference(kind=pb.KIND_AREA, name=area.name),
        description=area.description,
        tags=TAGS,
        licence=LICENCE,
        origin=PROJECT,
        area=body,
    )


def network_draft(
    network: Mapping[str, Any], weights: pb.Object, parents: Mapping[tuple[str, str], pb.Reference]
) -> pb.Record:
    """`parents` has the areas and networks that are written already, by kind and name."""
    area = pb.Parent(record=parents["area", network["area"]], role="area")
    others = [pb.Parent(record=parents["network", name], role="network") for name in network["parents"]]
    return pb.Record(
        id=pb.Reference(kind=pb.KIND_NETWORK, name=network["name"]),
        description=network["description"],
        tags={**TAGS, "trained_on": "avmnist", "parameters": str(network["parameters"])},
        parents=[area, *others],
        licence=LICENCE,
        origin=f"{PROJECT}; trained on {TRAINED_ON}",
        metrics=network["metrics"],
        network=pb.Network(
            area=network["area"],
            code=network["code"],
            architecture=network["architecture"],
            arguments=json.dumps(network["arguments"], sort_keys=True),
            weights=weights,
            contract=ParseDict(network["contract"], pb.Contract()),
            format="safetensors",
        ),
    )


def sample_fields() -> dict[str, Any]:
    """What the record of the sample says of it."""
    return {
        "description": "300 pairs of the test split of AV-MNIST, 30 of each digit: a handwritten digit reduced to "
        "three principal components, and the same digit spoken in noise. MNIST by LeCun, Cortes and Burges "
        "(CC BY-SA 3.0), Free Spoken Digit Dataset by Jackson et al. (CC BY-SA 4.0), ESC-10 by Piczak (CC BY 3.0).",
        "tags": TAGS,
        "licence": "CC-BY-SA-3.0 AND CC-BY-SA-4.0 AND CC-BY-3.0",
        "origin": f"{PROJECT}; taken from the data set that encephalon data get avmnist builds",
    }
