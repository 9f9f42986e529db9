"""`python -m encephalon.areas.packaged`: writes down what the packaged weights are, for the library, which loads none.

The contracts come from the files; the accuracies are those of the README beside them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from encephalon.areas import weights
from encephalon.areas.catalog import load_network
from encephalon.core.contract import Contract
from encephalon.library.areas import find_area
from encephalon.library.builtins import NETWORKS, WEIGHTS

__all__ = ["METRICS", "described"]

VALIDATION, SAMPLE, TEST = "accuracy.validation", "accuracy.sample", "accuracy.test"
MISSING = (".without_image", ".without_audio")


def accuracy(validation: float, sample: float, test: float) -> Mapping[str, float]:
    return {VALIDATION: validation, SAMPLE: sample, TEST: test}


def fused(*found: tuple[float, float, float]) -> Mapping[str, float]:
    """Each with both senses, without image, without audio."""
    names = [f"{where}{missing}" for where in (VALIDATION, SAMPLE, TEST) for missing in ("", *MISSING)]
    return dict(zip(names, itertools.chain(*found), strict=True))


METRICS: Mapping[str, Mapping[str, float]] = {
    "vision-001": accuracy(0.527, 0.523, 0.539),
    "vision-002": accuracy(0.531, 0.513, 0.530),
    "vision-003": accuracy(0.536, 0.513, 0.530),
    "vision-004": accuracy(0.528, 0.547, 0.533),
    "hearing-001": accuracy(0.646, 0.513, 0.502),
    "hearing-002": accuracy(0.785, 0.713, 0.698),
    "hearing-003": accuracy(0.748, 0.667, 0.673),
    "hearing-004": accuracy(0.758, 0.687, 0.645),
    "association-001": fused((0.879, 0.768, 0.505), (0.850, 0.703, 0.483), (0.832, 0.682, 0.519)),
    "association-001-vision-001": fused((0.877, 0.762, 0.508), (0.820, 0.690, 0.497), (0.826, 0.673, 0.523)),
    "association-001-vision-003": fused((0.880, 0.768, 0.498), (0.847, 0.707, 0.510), (0.832, 0.681, 0.517)),
    "association-001-vision-004": fused((0.880, 0.772, 0.500), (0.867, 0.693, 0.473), (0.834, 0.682, 0.510)),
}
"""File name without its end to shares from 0 to 1."""

PARENTS: Mapping[str, tuple[str, ...]] = {
    "association-001": ("vision/002", "hearing/002"),
    **{f"association-001-vision-{code}": (f"vision/{code}", "hearing/002") for code in ("001", "003", "004")},
}
"""Whose features a network learned from."""

DESCRIPTIONS: Mapping[str, str] = {
    "vision": "{title} of Lv et al. 2022 (Table 6), sees handwritten digits reduced to three principal components.",
    "hearing": "{title} of Lv et al. 2022 (Table 6), hears spoken digits in noise at -6 dB.",
    "association": "Late fusion of the features of {parents}; concludes from either one when the other is missing.",
}


def described(path: Path) -> dict[str, Any]:
    """What the library says of one weights file."""
    area, code = path.stem.split("-")[:2]
    network = load_network(area, code, path)
    data, read = path.read_bytes(), weights.read(path)
    title = find_area(area).networks[code]
    parents = PARENTS.get(path.stem, ())
    return {
        "name": f"{area}/{path.stem.partition('-')[2]}",
        "area": area,
        "code": code,
        "architecture": title,
        "arguments": read.arguments,
        "file": path.name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "size": len(data),
        "contract": view(network.contract),
        "metrics": dict(METRICS.get(path.stem, {})),
        "parents": list(parents),
        "parameters": sum(tensor.numel() for tensor in read.tensors.values()),
        "description": DESCRIPTIONS[area].format(title=title, parents=" and ".join(parents)),
    }


def view(contract: Contract) -> dict[str, Any]:
    return {
        kind: [dataclasses.asdict(spec) for spec in specs]
        for kind, specs in (("inputs", contract.inputs), ("outputs", contract.outputs))
    }


def text() -> str:
    found = [described(path) for path in sorted(WEIGHTS.glob("*.safetensors"))]
    # Parents come before their children.
    found.sort(key=lambda network: (bool(network["parents"]), network["name"]))
    return json.dumps(found, indent=1) + "\n"


def main() -> int:
    NETWORKS.write_text(text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
